"""The steps of making an engine: the plan with its papers, then its check and its time."""

import json
from pathlib import Path
from typing import Any

from .check import References, Runner, compare, exceeded, timed
from .cuda import Cuda
from .finish import CACHE, PLAN, PLAN_MACHINE, finish, write
from .machine import fingerprint
from .plan import build, tensorrt


def make_plan(folder: Path, graph: str, precision: str, workspace_mib: int = 1024, level: int = 3) -> tuple[Any, Cuda]:
    """Write the plan and what it was made on. TensorRT and the GPU, opened. BuildError where it cannot be."""
    library, cuda = tensorrt(), Cuda()
    known = (folder / CACHE).read_bytes() if (folder / CACHE).exists() else b""
    plan, learned = build(library, folder / graph, workspace_mib << 20, level, known, exact=precision == "fp32")
    write(folder / PLAN, plan)
    write(folder / CACHE, learned)
    write(folder / PLAN_MACHINE, json.dumps(plan_machine(library, cuda), indent=1).encode())
    return library, cuda


def plan_machine(library: Any, cuda: Cuda) -> dict[str, str]:
    """What a plan is good for and nothing else."""
    return {"tensorrt": library.__version__, **cuda.gpu()}


def examine(
    folder: Path, draft: dict[str, Any], runner: Runner, about: dict[str, Any], warm_up: int, times: int
) -> list[str]:
    """Check and time an engine; where it agrees, the folder is an engine from now on. What it exceeds, in words."""
    references = References(folder / draft["references"])
    found = compare(runner, references)
    print(f"against PyTorch in float32, {len(references)} decisions: " + _row(found), flush=True)
    wrong = exceeded(found, draft["tolerances"])
    if wrong:
        return wrong
    speed = timed(runner, references, warm_up, times)
    print(f"{times} decisions, milliseconds: " + _row(speed["steady"]), flush=True)
    notes = {"agreement": found, "tolerances": draft["tolerances"], "timing": speed, **about}
    finish(folder, draft, fingerprint(draft["instructions"]), notes)
    return []


def _row(values: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
