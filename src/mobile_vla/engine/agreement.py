"""How far an engine's decisions are from those of the same network in PyTorch and float32.

Each decision is made from the same inputs by both, the same history among them, so that differences do not add up over
a drive; what becomes of them in a drive, ``evaluate.engines`` measures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.engine.backends.base import Engine
from mobile_vla.policy.step import BELIEF, DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import load_network

SEEN = 0.5
"""Visibility from which a belief of where the target is counts: below it the robot acts on none."""
MOVING = 0.02
"""Root mean square of a chunk's shares of the limits, from which it has a direction to compare."""


class Answers(NamedTuple):
    """To K inputs, float32: chunks (K, horizon, 3) in shares of the limits, status (K, 4), belief (K, 7)."""

    chunk: NDArray[np.float32]
    status: NDArray[np.float32]
    belief: NDArray[np.float32]


@dataclass(frozen=True)
class Tolerance:
    """What an engine may differ by. ``p99`` and ``worst`` are shares of the limits, on each axis and row of a chunk."""

    p99: float
    worst: float
    status_equal: float
    bearing_rad: float
    distance_m: float


_FLOAT, _HALF, _BYTES = (
    Tolerance(p99=1e-4, worst=1e-4, status_equal=0.995, bearing_rad=1e-4, distance_m=0.001),
    Tolerance(p99=0.01, worst=0.02, status_equal=0.99, bearing_rad=0.02, distance_m=0.05),
    Tolerance(p99=0.05, worst=0.1, status_equal=0.98, bearing_rad=0.2, distance_m=0.4),
)
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": _FLOAT,
    "bf16": _HALF,
    "fp16": _HALF,
    "fp8": _BYTES,
    "int8": _BYTES,
    "int8_weights": _BYTES,
    "int4_weights": _BYTES,
}
"""By precision; of the narrow ones about twice what the shipped policy's engines were measured to differ by."""


@dataclass(frozen=True)
class Difference:
    """By axis in the order of the contract, in its unit: 99th percentile over decisions, and the worst of all."""

    p99: tuple[float, ...]
    worst: tuple[float, ...]


@dataclass(frozen=True)
class Agreement:
    """``first`` is of the rows of a chunk that are executed before the next frame, ``chunk`` of all rows.

    ``cosine`` and ``cosine_worst``: of the chunks of the ``moving`` decisions, 1 where none moves. ``status_equal``:
    share of decisions with the same status. ``bearing_rad`` and ``distance_m``: 99th percentile over the ``seen``
    decisions, in which float32 sees the target; 0 where there are none. ``visibility``: worst difference of the
    probability. ``share_p99`` and ``share_worst``: as ``chunk``, in shares of the limits, of the axis that is worst.
    """

    decisions: int
    moving: int
    seen: int
    units: tuple[str, ...]
    cosine: float
    cosine_worst: float
    first: Difference
    chunk: Difference
    share_p99: float
    share_worst: float
    status_equal: float
    visibility: float
    bearing_rad: float
    distance_m: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def within(self, precision: str) -> str | None:
        """A clause that names all that exceeds the tolerance of the precision; None where nothing does.

        ConfigError for a precision without one.
        """
        if precision not in TOLERANCES:
            raise ConfigError(f"no tolerance is stated for {precision!r}: choose among {', '.join(TOLERANCES)}")
        allowed = TOLERANCES[precision]
        pairs = {
            "actions differ by {:.3g} of the limits (99th percentile), {:.3g} allowed": (self.share_p99, allowed.p99),
            "actions differ by {:.3g} of the limits at worst, {:.3g} allowed": (self.share_worst, allowed.worst),
            "the status differs in {:.3g} of all decisions, {:.3g} allowed": (
                1.0 - self.status_equal,
                1.0 - allowed.status_equal,
            ),
            "the bearing differs by {:.3g} rad, {:.3g} allowed": (self.bearing_rad, allowed.bearing_rad),
            "the distance differs by {:.3g} m, {:.3g} allowed": (self.distance_m, allowed.distance_m),
        }
        # what is not a number exceeds too
        return "; ".join(text.format(*pair) for text, pair in pairs.items() if not pair[0] <= pair[1] + 1e-9) or None


def reference(checkpoint: Path, inputs: Sequence[Inputs]) -> Answers:
    """Of the network itself, in PyTorch and float32, one input after another."""
    return stepped(step_of(load_network(checkpoint)).float(), inputs)


@torch.inference_mode()
def stepped(step: DecisionStep, inputs: Sequence[Inputs]) -> Answers:
    """Of a decision run as it is, in its own precision; see ``reference``."""
    rows = [step(*each) for each in inputs]
    chunk, status, belief = (torch.cat([row[place] for row in rows]).float().numpy() for place in range(3))
    return Answers(chunk, status, belief)


def answers(engine: Engine, inputs: Sequence[Inputs]) -> Answers:
    """Of an engine, as many at once as it takes."""
    like = engine.start()
    given = []
    for begin in range(0, len(inputs), engine.sessions):
        part = inputs[begin : begin + engine.sessions]
        given.append(
            engine.decide(
                np.concatenate([each.pixels.numpy() for each in part]),
                [engine.bring(each.words) for each in part],
                np.concatenate([each.motion.numpy() for each in part]),
                [_brought(each.history, like) for each in part],
            )
        )
    chunk, status, belief = (np.concatenate([getattr(each, name) for each in given]) for name in Answers._fields)
    return Answers(chunk, status, belief)


def agreement(wanted: Answers, given: Answers, contract: ActionContract) -> Agreement:
    """How far ``given`` is from ``wanted``, answers to the same inputs."""
    limits = contract.limits_array
    shares = np.abs(np.clip(wanted.chunk, -1.0, 1.0) - np.clip(given.chunk, -1.0, 1.0))
    physical = shares * limits
    moves = np.sqrt(np.square(wanted.chunk).mean(axis=(1, 2))) >= MOVING
    cosines = _cosines(wanted.chunk[moves], given.chunk[moves])
    names = {name: place for place, name in enumerate(BELIEF)}
    off = np.abs(wanted.belief - given.belief)
    sees = wanted.belief[:, names["visibility"]] >= SEEN
    return Agreement(
        decisions=len(shares),
        moving=int(moves.sum()),
        seen=int(sees.sum()),
        units=contract.units,
        cosine=float(cosines.mean()) if len(cosines) else 1.0,
        cosine_worst=float(cosines.min()) if len(cosines) else 1.0,
        first=_difference(physical[:, : contract.rows_per_frame]),
        chunk=_difference(physical),
        share_p99=float(np.percentile(shares.max(axis=1), 99, axis=0).max()),
        share_worst=float(shares.max()),
        status_equal=float((wanted.status.argmax(axis=1) == given.status.argmax(axis=1)).mean()),
        visibility=float(off[:, names["visibility"]].max()),
        bearing_rad=_p99(off[sees, names["bearing_rad"]]),
        distance_m=_p99(off[sees, names["distance_m"]]),
    )


def _brought(history: Tensor, like: Any) -> Any:
    """A recorded history as the engine keeps its own."""
    return history.to(like) if isinstance(like, Tensor) else history.numpy().astype(like.dtype, copy=False)


def _difference(values: NDArray[np.float32]) -> Difference:
    """(K, rows, axes), by axis; a decision counts by its worst row."""
    rows = values.max(axis=1)
    return Difference(tuple(np.percentile(rows, 99, axis=0).tolist()), tuple(rows.max(axis=0).tolist()))


def _cosines(wanted: NDArray[np.float32], given: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = (each.reshape(len(each), math.prod(each.shape[1:])).astype(np.float64) for each in (wanted, given))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    result: NDArray[np.float64] = (one * other).sum(axis=1) / np.maximum(lengths, 1e-12)
    return result


def _p99(values: NDArray[np.float32]) -> float:
    return float(np.percentile(values, 99)) if len(values) else 0.0
