"""Which tests can run where an optional part (torch, the simulator) is not installed: found by reading their imports.

A test module needs what it imports anywhere, and what that imports when it is loaded, and so on through our own files.
Nothing is loaded to find out. What is imported only inside a function of ours, below ``if TYPE_CHECKING``, or in a
``try`` that expects an ImportError, is not needed. What reading cannot find, in another process for one, a test says
itself: ``@pytest.mark.needs("torch")``.
"""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import mobile_vla
from mobile_vla.cli.extras import MODULES

TESTS = Path(__file__).parent
ROOTS = (Path(mobile_vla.__file__).parents[1], TESTS, TESTS.parent / "benchmarks")
"""Where our own modules are looked for, by their full names."""

ABSENT = frozenset(name for name in MODULES if find_spec(name) is None)
"""Optional modules that are not installed here."""


def needs(path: Path) -> frozenset[str]:
    """Names of MODULES that a test module or conftest needs, installed or not."""
    return _needs(path, path.name.startswith("test_")) & MODULES.keys()


@cache
def lacks(path: Path) -> frozenset[str]:
    """What a test module, or the conftest of a folder of tests, needs and is not installed here."""
    if not ABSENT:
        return ABSENT
    if path.is_dir():
        path /= "conftest.py"
    if path.suffix != ".py" or not path.is_file():
        return frozenset()
    return needs(path) & ABSENT


def left_out() -> dict[Path, frozenset[str]]:
    """The test modules that cannot run here, below ``tests``, and what each of them lacks."""
    found = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        folders = (folder for folder in path.parents if TESTS in folder.parents)
        missing = frozenset().union(lacks(path), *map(lacks, folders))
        if missing:
            found[path.relative_to(TESTS)] = missing
    return found


def sentences() -> list[str]:
    """For pytest's summary: which test modules of which folder are not collected, and what they lack."""
    by_folder: dict[Path, dict[str, frozenset[str]]] = {}
    for path, missing in left_out().items():
        by_folder.setdefault(path.parent, {})[path.name] = missing
    lines = []
    for folder, modules in by_folder.items():
        all_of_it = len(modules) == len(list((TESTS / folder).glob("test_*.py")))
        lack = ", ".join(sorted(frozenset().union(*modules.values())))
        lines.append(f"{folder}, for lack of {lack}: {'all of it' if all_of_it else ' '.join(modules)}")
    return lines


def _needs(path: Path, everywhere: bool) -> frozenset[str]:
    seen: set[Path] = set()
    outside: set[str] = set()
    waiting = [(path, everywhere)]
    while waiting:
        here, whole = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for name in _imports(here, whole):
            ours = _files(name, here)
            waiting += [(file, False) for file in ours]
            if not ours:
                outside.add(name.partition(".")[0])
    return frozenset(outside)


@cache
def _imports(path: Path, everywhere: bool) -> frozenset[str]:
    """Full names of what a file imports: "a.b" for ``import a.b``, "a.b.c" for ``from a.b import c``."""
    names = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8")).body, everywhere):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = _package(path)[: -(node.level - 1) or None] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _statements(body: list[ast.stmt], everywhere: bool) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not everywhere:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _statements(node.orelse, everywhere)
            continue
        if isinstance(node, ast.Try) and any(_expects_absence(handler) for handler in node.handlers):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []), everywhere)


def _expects_absence(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type else ""
    return "ImportError" in caught or "ModuleNotFoundError" in caught


def _package(path: Path) -> tuple[str, ...]:
    """The names of the package that a file lies in."""
    names: list[str] = []
    for folder in path.parents:
        if not (folder / "__init__.py").exists():
            break
        names.insert(0, folder.name)
    return tuple(names)


@cache
def _files(name: str, importer: Path) -> tuple[Path, ...]:
    """Our own files that importing ``name`` loads: its packages and itself; none when it is not ours."""
    parts = name.split(".")
    for root in (importer.parent, *ROOTS):
        if root is importer.parent and (root / "__init__.py").exists():
            continue  # in a package, siblings are imported by their full names
        found = []
        for count in range(1, len(parts) + 1):
            place = root.joinpath(*parts[:count])
            found += [file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file()]
        if found:
            return tuple(found)
    return ()
