"""Are the tests of the safety layer any good? mutmut breaks the layer in many small ways; the tests must notice.

    .venv/bin/python -m pip install mutmut==3.8.1
    .venv/bin/python benchmarks/safety_mutants.py [--json] [--children N] [--show]

Works on a copy in a temporary folder, with 25 examples for each property, always the same. Prints the score of every
file and the names of the survivors, with ``--show`` also what was changed in each. Exits with 1 when less than 95 %
are killed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
SETTINGS = """
[mutmut]
source_paths=
    src
only_mutate=src/mobile_vla/safety/*
also_copy=
    tests
    benchmarks
pytest_add_cli_args_test_selection=
    tests/safety

[tool:pytest]
pythonpath = benchmarks
filterwarnings = error
"""
PROFILE = """
from hypothesis import settings

settings.register_profile("always the same examples", deadline=None, derandomize=True, max_examples=25, database=None)
settings.load_profile("always the same examples")
"""
KILLED = {"killed", "timeout", "segfault", "caught by type check"}
GOAL = 0.95


def copy_to(folder: Path) -> None:
    """What the tests of the safety layer need, and no more: mutmut copies it once again."""
    for room in ("core", "robot", "safety"):
        shutil.copytree(HOME / "src/mobile_vla" / room, folder / "src/mobile_vla" / room)
    shutil.copy(HOME / "src/mobile_vla/__init__.py", folder / "src/mobile_vla")
    shutil.copytree(HOME / "tests/safety", folder / "tests/safety")
    (folder / "tests/safety/conftest.py").write_text(PROFILE)
    (folder / "benchmarks").mkdir()
    shutil.copy(HOME / "benchmarks/safety_steps.py", folder / "benchmarks")
    (folder / "setup.cfg").write_text(SETTINGS)


def mutmut(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and arguments[0] != "run":
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=int, default=1, help="processes at once")
    parser.add_argument("--show", action="store_true", help="print what was changed in every survivor")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_to(folder)
        log = mutmut(folder, "run", "--max-children", str(options.children))
        lines = [line.strip() for line in mutmut(folder, "results", "--all", "true").splitlines()]
        fates = dict(line.rsplit(": ", 1) for line in lines if line.startswith("mobile_vla.safety.") and ": " in line)
        if not fates or "not checked" in fates.values():
            raise SystemExit(f"mutmut did not come to its end:\n{log[-3000:]}")
        survivors = sorted(name for name, fate in fates.items() if fate not in KILLED)
        changes = {name: change(mutmut(folder, "show", name)) for name in survivors}
    by_file: dict[str, Counter[bool]] = defaultdict(Counter)
    for name, fate in fates.items():
        by_file[name.split(".")[2]][fate in KILLED] += 1
    score = 1 - len(survivors) / len(fates)
    result = {
        "mutants": len(fates),
        "killed": len(fates) - len(survivors),
        "score": round(score, 4),
        "seconds": round(time.monotonic() - began),
        "files": {name: {"killed": count[True], "survived": count[False]} for name, count in sorted(by_file.items())},
        "fates": dict(Counter(fates.values())),
        "survivors": changes,
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"{result['killed']} of {result['mutants']} mutants killed: {score:.1%}, in {result['seconds']} s")
        for name, count in result["files"].items():
            print(f"  {name:12} {count['killed']:>5} killed {count['survived']:>4} survived")
        for name in survivors:
            print(f"{fates[name]}: {name}", *(changes[name] if options.show else []), sep="\n    ")
    raise SystemExit(score < GOAL)


def change(diff: str) -> list[str]:
    """The lines that differ."""
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


if __name__ == "__main__":
    main()
