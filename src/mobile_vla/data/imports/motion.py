"""Numbers of a source as velocities of the contract: axes, rates, the rows of a chunk, limits."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import AXES, NS_PER_S, ActionContract, ConfigError, DatasetError
from mobile_vla.data.imports.mapping import Axes, ImportMapping

LIMIT_TOLERANCE = 1e-4
"""Share of a limit by which rounding may exceed it; ``data.validate`` allows the same."""
RATE_TOLERANCE = 1e-3


def velocities(axes: Axes, numbers: Mapping[str, NDArray[np.floating]], length: int) -> NDArray[np.float64]:
    """(T, 3) in m/s, m/s, rad/s from the parts of a source, each (T, its numbers)."""
    result = np.zeros((length, len(AXES)))
    for place, axis in enumerate(axes):
        if axis is not None:
            result[:, place] = np.asarray(numbers[axis.place][:, axis.index], dtype=np.float64) * axis.factor
    return result


def places_of(*axes: Axes | None) -> list[str]:
    """The parts of the source that they need, each once."""
    return list(dict.fromkeys(axis.place for group in axes if group is not None for axis in group if axis is not None))


def require_chunk_rate(contract: ActionContract) -> None:
    """ConfigError unless a whole number of action rows passes between two frames, which holds for any source."""
    if not _whole(contract.rate_hz / contract.frame_rate_hz):
        raise ConfigError(
            f"contract.rate_hz {contract.rate_hz:g} must be contract.frame_rate_hz {contract.frame_rate_hz:g} or a "
            "whole multiple of it: change one of them in the mapping"
        )


def require_even_rates(mapping: ImportMapping) -> None:
    """ConfigError when an evenly spaced source cannot give the contract's frames or the rows of its chunks.

    Every ``every``-th frame is taken, which must give the contract's frame rate. Rows of an ``exact`` chunk are frames
    of the source, so its rate must be a whole multiple of ``rate_hz``.
    """
    contract, source_hz, every = mapping.contract, mapping.source_rate_hz, mapping.every
    assert source_hz is not None
    require_chunk_rate(contract)
    given = source_hz / every
    if abs(given / contract.frame_rate_hz - 1) > RATE_TOLERANCE:
        ratio = source_hz / contract.frame_rate_hz
        remedy = (
            f"write `every: {round(ratio)}`"
            if ratio > 0.5 and _whole(ratio)
            else f"write `every: K` and `contract: {{frame_rate_hz: {source_hz:g} / K}}` for a whole K"
        )
        raise ConfigError(
            f"the source has {source_hz:g} frames a second and every: {every} gives {given:g}, but "
            f"contract.frame_rate_hz is {contract.frame_rate_hz:g}: {remedy} (nothing is made up between frames)"
        )
    if mapping.chunk == "exact" and not _whole(source_hz / contract.rate_hz):
        raise ConfigError(
            f"the source has {source_hz:g} actions a second, of which no whole number makes a row of a chunk at "
            f"contract.rate_hz {contract.rate_hz:g}: write a rate_hz by which {source_hz:g} can be divided, "
            "`chunk: hold` to keep each action in force until the next, or `chunk: none` for no chunks"
        )


def taken(length: int, every: int) -> NDArray[np.int64]:
    """The frames of an evenly spaced episode that are taken."""
    return np.arange(0, length, every, dtype=np.int64)


def even_chunks(
    actions: NDArray[np.floating], frames: NDArray[np.int64], mapping: ImportMapping
) -> NDArray[np.float32]:
    """(N, horizon, 3) for ``frames`` of ``actions`` (T, 3): what is in force at each row's time; NaN past the end."""
    contract, source_hz = mapping.contract, mapping.source_rate_hz
    assert source_hz is not None
    if mapping.chunk == "none":
        return np.full((len(frames), contract.horizon, len(AXES)), np.nan, dtype=np.float32)
    ahead = np.floor(np.arange(contract.horizon) * source_hz / contract.rate_hz + 1e-6).astype(np.int64)
    rows = frames[:, None] + ahead
    chunks: NDArray[np.float32] = actions[np.minimum(rows, len(actions) - 1)].astype(np.float32)
    chunks[rows >= len(actions)] = np.nan
    return chunks


def before(actions: NDArray[np.floating], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, 3): the action of the source's frame before each of ``frames``, zero before the first.

    This stands for a measured velocity where there is none. Never the frame's own action, which a policy could copy.
    """
    led = np.concatenate([np.zeros((1, len(AXES))), actions])
    return led[frames].astype(np.float32)


def synthetic_ns(frames: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Capture times of evenly spaced frames, from zero."""
    return np.round(frames * (NS_PER_S / rate_hz)).astype(np.int64)


def within(
    name: str,
    values: NDArray[np.floating],
    mapping: ImportMapping,
    frames: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.float64], int]:
    """``values`` (T, 3) within the contract's limits, and how many of them were clipped.

    DatasetError naming episode and frame (``frames``, else the place) for a value that is not finite, and for one
    outside the limits unless the mapping says ``outside: clip``.
    """
    limits = np.array(mapping.contract.limits)
    require_finite(name, "action", values, frames)
    outside = np.abs(values) > limits * (1 + LIMIT_TOLERANCE)
    if outside.any() and mapping.outside == "error":
        row, axis = np.argwhere(outside)[0]
        frame = row if frames is None else frames[row]
        largest = ", ".join(f"{each:.4g}" for each in np.abs(values).max(axis=0))
        raise DatasetError(
            f"{name}, frame {frame}: {AXES[axis]} is {values[row, axis]:.4g} and contract.limits allow "
            f"{limits[axis]:g} ({int(outside.any(axis=1).sum())} frames are outside; the largest are {largest}): "
            "correct unit or scale, raise contract.limits, or write `outside: clip` in the mapping"
        )
    return np.clip(values, -limits, limits), int(outside.any(axis=1).sum())


def require_finite(name: str, what: str, values: NDArray[np.floating], frames: NDArray[np.int64] | None = None) -> None:
    """DatasetError naming episode, frame and axis of the first value that is none."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, axis = bad[0]
        frame = row if frames is None else frames[row]
        raise DatasetError(
            f"{name}, frame {frame}: {what} {AXES[axis]} is {values[row, axis]}: "
            "mend or remove this episode in the source"
        )


def _whole(ratio: float) -> bool:
    return ratio > 0.5 and abs(ratio - round(ratio)) <= RATE_TOLERANCE * ratio
