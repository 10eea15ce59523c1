"""Recorded data: how far the policy's actions are from those that were shown, beside predictors that do not look.

Open-loop error says little about driving; it finds errors of units, axes and signs in minutes. Each episode is stepped
through with the policy's own state, on the recorded frames and measured velocities. The baselines stand in
``evaluate.baselines``; no report can be made without all of them.

The range of an axis is from its lower to its upper limit, 2 x limit. Intervals are of a bootstrap over episodes,
because frames of one episode are alike. A policy and its baselines are judged on the same frames and drawn together, so
that their difference has an interval of its own, mostly much narrower than theirs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import (
    ActionContract,
    CheckpointError,
    ContractMismatchError,
    DatasetError,
    Frame,
    Instruction,
    InstructionError,
    Observation,
    Policy,
    Twist,
)
from mobile_vla.data import Dataset, Episode, data_hash, load_split, schema
from mobile_vla.evaluate.baselines import BASELINES, Chunks, Sources, judged_frames, labels
from mobile_vla.evaluate.remarks import PARTS, Judged, Part, about, learnt_from
from mobile_vla.evaluate.statistics import Estimate, bootstrap_totals

WITHIN = 0.1
"""Share of the range that counts as close, when it holds on every axis."""

_CLOCK, _CAMERA = "recording", "front"
_LOTS_SEED, _DRAWS_SEED = 37, 31
_FRAMES_AT_ONCE = 32
"""Pictures that are decoded together: a long episode of a large camera does not fit in memory."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """By axis in the order of the contract: mean absolute and root mean square error, in the axis's unit and as shares
    of its range."""

    mae: tuple[Estimate, ...]
    rmse: tuple[Estimate, ...]
    mae_of_range: tuple[Estimate, ...]
    rmse_of_range: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one predictor, or of one less another: of the first actions, and of whole chunks. ``within``: share of first
    actions within ``WITHIN`` of the range on every axis."""

    first: Deviation
    chunk: Deviation
    within: Estimate


@dataclass(frozen=True, slots=True)
class Baseline:
    """A predictor that does not look. ``policy_less_this``: the policy's figures minus these on the same draws of
    episodes; where the policy is better, errors are below zero and ``within`` is above."""

    errors: Errors
    policy_less_this: Errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """All of them; there is no way to leave one out. TypeError for anything else in the place of one."""

    constant: Baseline
    majority: Baseline
    hold_last: Baseline
    nearest_instruction: Baseline

    def __post_init__(self) -> None:
        if strange := [name for name, baseline in self if not isinstance(baseline, Baseline)]:
            raise TypeError(f"a result needs the baselines {', '.join(strange)}")

    def __iter__(self) -> Iterator[tuple[str, Baseline]]:
        """Names and baselines."""
        return ((field.name, getattr(self, field.name)) for field in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineReport:
    """Errors on a part of a data set; TypeError without the baselines.

    ``episodes`` and ``frames`` are those judged; ``left_out``: episodes that were looked at and hold no frame that says
    what to do; ``of_episodes``: how many the part has. ``tolerance``: ``WITHIN`` on each axis, in its unit.
    ``split_hash`` is None where the part is "all". ``remarks``: what a reader has to know, in sentences.
    """

    dataset: str
    data_hash: str
    split_hash: str | None
    part: Part
    episodes: int
    frames: int
    left_out: int
    of_episodes: int
    axes: tuple[str, ...]
    units: tuple[str, ...]
    tolerance: tuple[float, ...]
    remarks: tuple[str, ...]
    policy: Errors
    baselines: Baselines

    def __post_init__(self) -> None:
        if not isinstance(self.baselines, Baselines):
            raise TypeError("a result needs its baselines")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def offline_errors(
    policy: Policy,
    dataset: Dataset,
    part: Part = "test",
    limit: int | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
    origin: Mapping[str, Any] | None = None,
) -> OfflineReport:
    """Errors over a part of the data, or over ``limit`` labelled episodes of it that are drawn by lot, always the same.

    Baselines for "test" and "validation" are made from the training part. For "train" and "all" they are made for each
    episode from the others of other scenes; "all" needs no split. ``advance`` is told how many episodes of how many are
    done. ``origin`` is the checkpoint's: it tells whether the policy learnt from these data.

    ContractMismatchError where data and policy differ; DatasetError where the part, or what baselines are made from,
    has no frame that says what to do, or a recorded action is not finite; CheckpointError where the policy's is not.
    """
    _require_fit(policy.contract, dataset)
    episodes, others, split_hash = _parts(dataset, part)
    chosen, left_out = _labelled(dataset, episodes, limit)
    if not chosen:
        raise DatasetError(
            f"the {part} part of {dataset.root} has no frames that an expert or a person labelled "
            f"(`{schema.ACTION_CHUNK}` is empty): record drives, or judge another part"
        )
    sources = Sources(dataset, others)
    if not len(sources):
        raise DatasetError(f"the training part of {dataset.root} has no labelled frames to make baselines from")
    tally = _Tally(dataset.contract)
    for done, index in enumerate(chosen):
        advance(done, len(chosen))
        episode = dataset.episode(index)
        predictions = {"policy": _predicted(policy, episode)} | sources.predictions(episode)
        tally.add(labels(episode, dataset.contract), predictions)
    advance(len(chosen), len(chosen))
    errors, baselines = tally.figures()
    judged = Judged(part, len(chosen), left_out, len(episodes), len(sources))
    hashed = data_hash(dataset.all_records)
    return OfflineReport(
        dataset=str(dataset.root),
        data_hash=hashed,
        split_hash=split_hash,
        part=part,
        episodes=len(chosen),
        frames=tally.frames,
        left_out=left_out,
        of_episodes=len(episodes),
        axes=dataset.contract.axes,
        units=dataset.contract.units,
        tolerance=tuple(WITHIN * 2 * limit for limit in dataset.contract.limits),
        remarks=(*about(judged), learnt_from(origin or {}, part, hashed, split_hash)),
        policy=errors,
        baselines=baselines,
    )


def _require_fit(contract: ActionContract, dataset: Dataset) -> None:
    mine, theirs = contract.frame_rate_hz, dataset.contract.frame_rate_hz
    if mine != theirs:
        raise ContractMismatchError(
            f"the policy decides on {mine:g} frames a second and {dataset.root} holds {theirs:g}: import or record "
            "the data at the policy's rate, or judge a policy that was trained at theirs"
        )
    dataset.contract.require_same(contract, str(dataset.root), "the policy")


def _parts(dataset: Dataset, part: Part) -> tuple[tuple[int, ...], tuple[int, ...], str | None]:
    """The episodes of the part, those that baselines are made from, and the hash of the split."""
    if part not in PARTS:
        raise DatasetError(f"there is no part {part!r}: choose among {', '.join(PARTS)}")
    if part == "all":
        return dataset.episode_indices, dataset.episode_indices, None
    try:
        split = load_split(dataset)
    except DatasetError as error:
        raise DatasetError(
            f"{error}; divide it with `mobile-vla data split {dataset.root}`, or judge the whole of it with --part all"
        ) from error
    sound = set(dataset.episode_indices)
    whole: dict[str, tuple[int, ...]] = {"train": split.train, "validation": split.validation, "test": split.test}
    parts = {name: tuple(index for index in indices if index in sound) for name, indices in whole.items()}
    if not parts[part]:
        raise DatasetError(
            f"the {part} part of {dataset.root} has no episodes: judge another part, or divide the data again"
        )
    return parts[part], parts["train"], split.split_hash


def _labelled(dataset: Dataset, episodes: tuple[int, ...], limit: int | None) -> tuple[list[int], int]:
    """Episodes to judge, and how many were left out because nothing in them says what to do."""
    order = episodes if limit is None else np.random.default_rng(_LOTS_SEED).permutation(episodes).tolist()
    chosen: list[int] = []
    left_out = 0
    for index in order:
        if limit is not None and len(chosen) == limit:
            break
        if judged_frames(labels(dataset.episode(index), dataset.contract)).any():
            chosen.append(index)
        else:
            left_out += 1
    return sorted(chosen), left_out


class _Tally:
    """Sums by episode and predictor, for a bootstrap over episodes."""

    def __init__(self, contract: ActionContract) -> None:
        self._range = 2.0 * np.array(contract.limits)
        self._rows: list[NDArray[np.float64]] = []
        self.frames = 0

    def add(self, truth: Chunks, predictions: dict[str, Chunks]) -> None:
        """One episode: the policy's predictions first, then the baselines' in the order of ``BASELINES``."""
        judged = judged_frames(truth)
        self.frames += int(judged.sum())
        wanted = truth[judged].astype(np.float64)
        known = np.isfinite(wanted)
        row = [np.array([len(wanted)]), known.sum(axis=(0, 1))]
        for name in ("policy", *BASELINES):
            off = np.where(known, predictions[name][judged] - wanted, 0.0)
            close = (np.abs(off[:, 0]) <= WITHIN * self._range).all(axis=1)
            first = [np.abs(off[:, 0]).sum(axis=0), np.square(off[:, 0]).sum(axis=0)]
            chunk = [np.abs(off).sum(axis=(0, 1)), np.square(off).sum(axis=(0, 1))]
            row += [*first, *chunk, np.array([close.sum()])]
        self._rows.append(np.concatenate(row, dtype=np.float64))

    def figures(self) -> tuple[Errors, Baselines]:
        """Over all that was added."""
        totals = bootstrap_totals(np.stack(self._rows), np.random.default_rng(_DRAWS_SEED))
        axes = len(self._range)
        frames, rows = totals[:, :1], totals[:, 1 : 1 + axes]
        each = np.split(totals[:, 1 + axes :], 1 + len(BASELINES), axis=1)
        policy, *others = (self._figures(sums, frames, rows) for sums in each)
        baselines = {
            name: Baseline(self._errors(figures), self._errors(policy - figures))
            for name, figures in zip(BASELINES, others, strict=True)
        }
        return self._errors(policy), Baselines(**baselines)

    def _figures(
        self, sums: NDArray[np.float64], frames: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Sums as ``add`` puts them to figures in the same places; a draw a row."""
        axes = len(self._range)
        first, first_squared, chunk, chunk_squared, close = np.split(sums, [axes * k for k in (1, 2, 3, 4)], axis=1)
        columns = [first / frames, np.sqrt(first_squared / frames), chunk / rows, np.sqrt(chunk_squared / rows)]
        return np.concatenate([*columns, close / frames], axis=1)

    def _errors(self, figures: NDArray[np.float64]) -> Errors:
        axes = len(self._range)
        estimates = [Estimate.of_draws(column) for column in figures.T]
        first_mae, first_rmse, chunk_mae, chunk_rmse = (tuple(estimates[axes * k : axes * (k + 1)]) for k in range(4))
        return Errors(self._deviation(first_mae, first_rmse), self._deviation(chunk_mae, chunk_rmse), estimates[-1])

    def _deviation(self, mae: tuple[Estimate, ...], rmse: tuple[Estimate, ...]) -> Deviation:
        return Deviation(mae, rmse, self._of_range(mae), self._of_range(rmse))

    def _of_range(self, estimates: tuple[Estimate, ...]) -> tuple[Estimate, ...]:
        return tuple(each.scaled(1.0 / float(size)) for each, size in zip(estimates, self._range, strict=True))


def _predicted(policy: Policy, episode: Episode) -> Chunks:
    """(T, horizon, axes), stepped through in order."""
    columns = episode.read([schema.STATE, schema.CAPTURE_NS])
    velocities, stamps = columns[schema.STATE], columns[schema.CAPTURE_NS].reshape(-1)
    shape = (policy.contract.horizon, len(policy.contract.axes))
    number = episode.record.episode_index
    try:
        state = policy.reset(Instruction(episode.instruction))
    except InstructionError as error:
        raise DatasetError(f"the instruction of episode {number} of {episode.path} is of no use: {error}") from error
    chunks = np.empty((len(episode), *shape), dtype=np.float32)
    for place in range(len(episode)):
        if place % _FRAMES_AT_ONCE == 0:
            pixels = episode.images(place, min(place + _FRAMES_AT_ONCE, len(episode)))
        frame = Frame(pixels[place % _FRAMES_AT_ONCE], int(stamps[place]), _CLOCK, _CAMERA, place)
        step = policy.step(Observation(frame, Twist.from_array(velocities[place])), state)
        state = step.state
        if step.chunk.velocities.shape != shape:
            raise ContractMismatchError(
                f"the policy gives chunks of shape {step.chunk.velocities.shape} where its own contract says {shape}: "
                "the checkpoint does not belong to this contract"
            )
        if not np.isfinite(step.chunk.velocities).all():
            raise CheckpointError(
                f"the policy's actions at frame {place} of episode {number} are not finite: its weights are damaged "
                "or overflow in its precision; check the checkpoint, or run it in fp32"
            )
        chunks[place] = step.chunk.velocities
    return chunks
