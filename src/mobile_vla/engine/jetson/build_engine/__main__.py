"""``python3 -m build_engine``: build, check against PyTorch, time, and say so in ``engine.json``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cuda import BuildError
from .finish import PLAN, forget, read_draft
from .machine import board
from .plan import PlanRunner
from .work import examine, make_plan, plan_machine


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the engine is ready. 1: it answers too differently from PyTorch. 2: it could not be built."""
    parser = argparse.ArgumentParser(prog="build_engine", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(), help="made by mobile-vla export --for jetson (here)")
    parser.add_argument("--workspace-mib", type=int, default=1024, help="memory that kernels may be tried with (1024)")
    parser.add_argument("--level", type=int, default=3, choices=range(6), help="how long to search, 0 to 5 (3)")
    parser.add_argument("--warm-up", type=int, default=50, help="decisions that are not timed (50)")
    parser.add_argument("--times", type=int, default=1000, help="decisions that are timed (1000)")
    options = parser.parse_args(arguments)
    if min(options.workspace_mib, options.times) < 1 or options.warm_up < 0:
        parser.error("--workspace-mib and --times are at least 1, --warm-up at least 0")
    try:
        return _build(options)
    except BuildError as error:
        print(f"build_engine: {error}", file=sys.stderr)
        return 2


def _build(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    draft = read_draft(folder)
    precision = draft["manifest"]["precision"]
    forget(folder)
    print(f"building {draft['manifest']['policy']} in {precision}, which takes minutes", flush=True)
    library, cuda = make_plan(folder, draft["graph"], precision, options.workspace_mib, options.level)
    runner = PlanRunner(library, (folder / PLAN).read_bytes(), cuda)
    try:
        about = {**board(), **plan_machine(library, cuda), "one_launch": not runner.unrecorded}
        print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
        if runner.unrecorded:
            print(f"kernels are launched one by one: {runner.unrecorded}", flush=True)
        wrong = examine(folder, draft, runner, about, options.warm_up, options.times)
    finally:
        runner.close()
    if wrong:
        print(f"this engine is not used: {'; '.join(wrong)}", file=sys.stderr)
        return 1
    print(f"{folder.resolve()} is an engine now: mobile-vla drive --policy {folder.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
