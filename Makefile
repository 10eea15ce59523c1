# make run SAY="..."  drives the simulated robot;  make test  runs the tests.  The first of either sets up .venv, once.
# Needs Python 3.11 or newer, pip and make. Another Python: make test PYTHON=/path/to/python3

SAY ?= go to the red cup, pass the box on the left
ARGS ?=
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$each"; break; fi; done)
BIN = .venv/bin
READY = .venv/.ready
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH = torch==$(shell sed -n 's/^torch==//p' constraints.txt)
export SAY

.PHONY: run test check clean

run: $(READY)
	@$(BIN)/mobile-vla drive --say "$$SAY" $(ARGS)

test: $(READY)
	$(BIN)/pytest -n auto $(ARGS)

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv

# torch comes first, as its CPU build where pip's indexes have it: the one for GPUs is several gigabytes larger
$(READY): pyproject.toml constraints.txt
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo 'mobile-vla needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; fi
	@echo 'setting up .venv, once; this takes some minutes'
	@if ! $(BIN)/python -c '' 2>/dev/null && ! "$(PYTHON)" -m venv --clear .venv; then \
		echo 'cannot make .venv: Python lacks its venv module (Debian, Ubuntu: apt-get install python3-venv)' >&2; \
		rm -rf .venv; exit 1; fi
	@$(PIP) --no-deps '$(TORCH)+cpu' 2>/dev/null || $(PIP) --no-deps '$(TORCH)'
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@
