"""Recorded data: how far the policy's actions are from the expert's, always beside predictors that look at nothing.

Open-loop error says little about driving; it finds errors of units, axes and signs in minutes. Each episode is stepped
through with the policy's own state, on the recorded frames and measured velocities.

The range of an axis is from its lower to its upper limit, 2 x limit. Baselines: "constant", the mean over the training
part; "majority", the middle of the most frequent cell there, with actions cut into ``CELLS_PER_AXIS`` cells an axis;
"hold_last", the action that was executed at the frame before (zero at the first). Intervals are of a bootstrap over
episodes, because frames of one episode are alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, DatasetError, Frame, Instruction, Observation, Policy, Twist
from mobile_vla.data import Dataset, Episode, data_hash, load_split, schema
from mobile_vla.evaluate.statistics import Estimate

Part = Literal["validation", "test"]
Chunks = NDArray[np.float32]
"""(T, horizon, 3), m/s, m/s, rad/s."""

CELLS_PER_AXIS = 21
WITHIN = 0.1
"""Share of the range that counts as close, when it holds on every axis."""

_CLOCK, _CAMERA = "recording", "front"
_DRAWS_SEED = 31


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one predictor. By axis in the order of the contract: mean absolute error in the axis's unit, and as a share of
    its range; of the first action, and of the whole chunk. ``within``: share of first actions within ``WITHIN`` of the
    range on every axis."""

    first: tuple[Estimate, ...]
    first_of_range: tuple[Estimate, ...]
    chunk: tuple[Estimate, ...]
    chunk_of_range: tuple[Estimate, ...]
    within: Estimate


@dataclass(frozen=True, slots=True)
class OfflineReport:
    """``errors`` by predictor, "policy" and its baselines. ``tolerance``: ``WITHIN`` on each axis, in its unit."""

    dataset: str
    data_hash: str
    split_hash: str
    part: Part
    episodes: int
    frames: int
    axes: tuple[str, ...]
    units: tuple[str, ...]
    tolerance: tuple[float, ...]
    errors: dict[str, Errors]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def offline_errors(policy: Policy, dataset: Dataset, part: Part = "test", limit: int | None = None) -> OfflineReport:
    """Errors over the first ``limit`` labelled episodes of a part of the data, all of them by default.

    ContractMismatchError where data and policy differ; DatasetError where the part, or the training part that baselines
    are made from, has no frames that the expert labelled.
    """
    contract = dataset.contract
    contract.require_same(policy.contract, str(dataset.root), "the policy")
    split = load_split(dataset)
    chosen = [index for index in getattr(split, part) if _is_labelled(dataset, index)][:limit]
    if not chosen:
        raise DatasetError(f"the {part} part of {dataset.root} has no frames that an expert labelled: record drives")
    training = _training_chunks(dataset, split.train)
    constant, majority = training.mean(axis=0), _most_frequent(training[:, 0], contract)
    predictors: dict[str, Callable[[Episode, Chunks], Chunks]] = {
        "policy": lambda episode, truth: _predicted(policy, episode),
        "constant": lambda episode, truth: np.broadcast_to(constant, truth.shape),
        "majority": lambda episode, truth: np.broadcast_to(majority, truth.shape),
        "hold_last": lambda episode, truth: np.broadcast_to(_held(episode)[:, None], truth.shape),
    }
    tallies = {name: _Tally(contract) for name in predictors}
    frames = 0
    for index in chosen:
        episode = dataset.episode(index)
        truth = _labels(episode, contract)
        known = np.isfinite(truth).all(axis=(1, 2))
        frames += int(known.sum())
        for name, predict in predictors.items():
            tallies[name].add((predict(episode, truth) - truth)[known])
    return OfflineReport(
        dataset=str(dataset.root),
        data_hash=data_hash(dataset.all_records),
        split_hash=split.split_hash,
        part=part,
        episodes=len(chosen),
        frames=frames,
        axes=contract.axes,
        units=contract.units,
        tolerance=tuple(WITHIN * 2 * limit for limit in contract.limits),
        errors={name: tally.errors() for name, tally in tallies.items()},
    )


class _Tally:
    """Sums by episode, for a bootstrap over episodes."""

    def __init__(self, contract: ActionContract) -> None:
        self._range = 2.0 * np.array(contract.limits)
        self._counts: list[int] = []
        self._first: list[NDArray[np.float64]] = []
        self._chunk: list[NDArray[np.float64]] = []
        self._within: list[float] = []

    def add(self, off: NDArray[np.floating]) -> None:
        """Differences (T, horizon, 3) of one episode."""
        size = np.abs(off.astype(np.float64))
        self._counts.append(len(size))
        self._first.append(size[:, 0].sum(axis=0))
        self._chunk.append(size.mean(axis=1).sum(axis=0))
        self._within.append(float((size[:, 0] <= WITHIN * self._range).all(axis=1).sum()))

    def errors(self) -> Errors:
        """Over all that was added."""
        first, chunk = np.stack(self._first), np.stack(self._chunk)
        return Errors(
            first=self._by_axis(first),
            first_of_range=self._by_axis(first / self._range),
            chunk=self._by_axis(chunk),
            chunk_of_range=self._by_axis(chunk / self._range),
            within=self._mean(np.array(self._within)),
        )

    def _by_axis(self, sums: NDArray[np.float64]) -> tuple[Estimate, ...]:
        return tuple(self._mean(column) for column in sums.T)

    def _mean(self, sums: NDArray[np.float64]) -> Estimate:
        return Estimate.of(sums, np.array(self._counts), np.random.default_rng(_DRAWS_SEED))


def _predicted(policy: Policy, episode: Episode) -> Chunks:
    pixels, stamps = episode.images(), episode[schema.CAPTURE_NS].reshape(-1)
    state = policy.reset(Instruction(episode.instruction))
    chunks = []
    for sequence, velocity in enumerate(episode[schema.STATE]):
        frame = Frame(pixels[sequence], int(stamps[sequence]), _CLOCK, _CAMERA, sequence)
        step = policy.step(Observation(frame, Twist.from_array(velocity)), state)
        state = step.state
        chunks.append(step.chunk.velocities)
    return np.stack(chunks)


def _held(episode: Episode) -> NDArray[np.float32]:
    executed = episode[schema.ACTION]
    return np.concatenate([np.zeros_like(executed[:1]), executed[:-1]])


def _labels(episode: Episode, contract: ActionContract) -> Chunks:
    chunks: Chunks = episode[schema.ACTION_CHUNK].reshape(len(episode), contract.horizon, len(contract.axes))
    return chunks


def _is_labelled(dataset: Dataset, index: int) -> bool:
    chunks = dataset.episode(index).read([schema.ACTION_CHUNK])[schema.ACTION_CHUNK]
    return bool(np.isfinite(chunks).any())


def _training_chunks(dataset: Dataset, episodes: Sequence[int]) -> Chunks:
    contract = dataset.contract
    flat = dataset.columns([schema.ACTION_CHUNK], episodes)[schema.ACTION_CHUNK]
    chunks: Chunks = flat.reshape(len(flat), contract.horizon, len(contract.axes))
    chunks = chunks[np.isfinite(chunks).all(axis=(1, 2))]
    if not len(chunks):
        raise DatasetError(f"the training part of {dataset.root} has no labelled frames to make baselines from")
    return chunks


def _most_frequent(actions: NDArray[np.float32], contract: ActionContract) -> NDArray[np.float32]:
    """The middle of the cell of (axes,) that most actions (N, axes) lie in."""
    shares = np.clip(contract.normalise(actions), -1.0, 1.0)
    cells = np.rint((shares + 1.0) / 2.0 * (CELLS_PER_AXIS - 1)).astype(np.int64)
    kinds, counts = np.unique(cells, axis=0, return_counts=True)
    middle = kinds[int(counts.argmax())] / (CELLS_PER_AXIS - 1) * 2.0 - 1.0
    return contract.denormalise(middle)
