# make run SAY="..."  drives the simulated robot;  make test  runs the tests.  The first of either sets up .venv, once.
# Needs Python 3.11 or newer, pip and make. Another Python: make test PYTHON=/path/to/python3
# make test-robot  runs the tests of what a robot needs, on Python 3.10 and without torch or the simulator, in .venv-robot.

SAY ?= go to the red cup, pass the box on the left
ARGS ?=
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do \
	if "$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$each"; break; fi; done)
# each is run: a shim of pyenv is there and fails where its 3.10 is not the chosen one
PYTHON310 ?= $(shell for each in python3.10 "$$HOME"/.pyenv/versions/3.10.*/bin/python3.10; do \
	if "$$each" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then echo "$$each"; break; fi; done)
BIN = .venv/bin
READY = .venv/.ready
ROBOT_READY = .venv-robot/.ready
PIP = python -m pip install --quiet --disable-pip-version-check
TORCH = torch==$(shell sed -n 's/^torch==//p' constraints.txt)
export SAY

.PHONY: run test test-robot check python310 clean

run: $(READY)
	@$(BIN)/mobile-vla drive --say "$$SAY" $(ARGS)

test: $(READY)
	$(BIN)/pytest -n auto -m 'not realtime' $(ARGS) || [ $$? -eq 5 ] # 5: ARGS chose none of these
	$(BIN)/pytest -m realtime $(ARGS) || [ $$? -eq 5 ]

test-robot: $(ROBOT_READY)
	.venv-robot/bin/pytest -n auto -m 'not realtime' $(ARGS)

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# the Python 3.10 that test-robot would use, for scripts; nothing where there is none
python310:
	@echo $(PYTHON310)

clean:
	rm -rf .venv .venv-robot

# torch comes first, as its CPU build where pip's indexes have it: the one for GPUs is several gigabytes larger
$(READY): pyproject.toml constraints.txt
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo 'mobile-vla needs Python 3.11 or newer: install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; fi
	@echo 'setting up .venv, once; this takes some minutes'
	@if ! $(BIN)/python -c '' 2>/dev/null && ! "$(PYTHON)" -m venv --clear .venv; then \
		echo 'cannot make .venv: Python lacks its venv module (Debian, Ubuntu: apt-get install python3-venv)' >&2; \
		rm -rf .venv; exit 1; fi
	@$(BIN)/$(PIP) --no-deps '$(TORCH)+cpu' 2>/dev/null || $(BIN)/$(PIP) --no-deps '$(TORCH)'
	@$(BIN)/$(PIP) --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

$(ROBOT_READY): pyproject.toml constraints.txt
	@if ! "$(PYTHON310)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then \
		echo 'no Python 3.10 here: install it, or name it: make test-robot PYTHON310=/path/to/python3.10' >&2; exit 1; fi
	@echo 'setting up .venv-robot, once'
	@if ! .venv-robot/bin/python -c '' 2>/dev/null; then "$(PYTHON310)" -m venv --clear .venv-robot; fi
	@.venv-robot/bin/$(PIP) --constraint constraints.txt --editable '.[test]'
	@touch $@
