"""What the full-size policies learn from: windows of drives, and single frames asked for several names.

Every draw follows from the generator alone. Each process, and each pass over a part of a batch, draws the places of the
whole batch and reads only its own piece, so that how a batch is divided changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ActionContract, Colour, ConfigError, DatasetError, Goal, Kind, Target
from mobile_vla.data import Dataset, Extras, schema
from mobile_vla.policy import preprocess
from mobile_vla.train.drive import goal_of
from mobile_vla.train.feed_cache import Fit, Pictures
from mobile_vla.train.feed_columns import Columns, Floats, read_columns
from mobile_vla.train.see import NAMES

IN_VIEW, HARDLY = 0.30, 0.08
"""An object is in view from this share on, and not in view below the other; in between it counts as neither."""

_UNSAID = len(Colour)
_NAME_KINDS = np.array([list(Kind).index(name.kind) for name in NAMES], dtype=np.int8)
_NAME_COLOURS = np.array([_UNSAID if name.colour is None else list(Colour).index(name.colour) for name in NAMES])
_NEAR_SHARE = 2 / 3
"""Of the names asked that are not in view, so many are near misses, if there are enough."""


class Part(Protocol):
    """Which piece of a batch is this process's, in this pass."""

    def part(self, batch: int) -> slice:
        """Of ``batch`` places."""
        ...


class Frames(NamedTuple):
    """Frames of windows, leading dimensions (B, T). What is unknown is NaN, or -1 where whole numbers stand.

    ``pixels``: RGB uint8 (B, T, H, W, 3). ``velocity``: measured, (B, T, 3). ``odometry``: (x, y, angle turned) since
    the episode's start, dead reckoned, (B, T, 3). ``chunk``: the next velocities in shares of the limits
    (B, T, horizon, 3). ``status``: int64 (B, T). ``visible``: share of the target that is seen; ``box``: (B, T, 4),
    left, top, right, bottom as shares of the picture; ``bearing`` in rad, left positive; ``distance`` in m. ``mask``:
    (B, T), False after the end of an episode, where pixels and motion are zero and nothing else is known.
    ``at_start``: (B,), the window begins with its episode.
    """

    pixels: NDArray[np.uint8]
    velocity: Floats
    odometry: Floats
    chunk: Floats
    status: NDArray[np.int64]
    visible: Floats
    box: Floats
    bearing: Floats
    distance: Floats
    mask: NDArray[np.bool_]
    at_start: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Consecutive frames of B episodes; of each what the robot was told, and what that means where it was noted."""

    frames: Frames
    instructions: list[str]
    goals: list[Goal | None]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What stands in B frames, named or not.

    Of up to eight objects ``kinds`` and ``colours``, int8 (B, 8), -1 where there is none; the share ``seen`` (B, 8);
    ``boxes`` (B, 8, 4) as shares of the picture; ``distances`` (B, 8) in m. ``ranges`` (B, 24): how far the way is
    free, in m, left to right over the picture; NaN unknown.
    """

    kinds: NDArray[np.int8]
    colours: NDArray[np.int8]
    seen: Floats
    boxes: Floats
    distances: Floats
    ranges: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """B frames, each asked for K names: ``pixels`` uint8 (B, H, W, 3), ``targets`` B x K.

    ``visible`` (B, K): share seen of the object that is meant, 0 where none is in view, NaN where it can hardly be
    seen. Of several in view that answer to the name, the nearest is meant. ``box`` (B, K, 4) as shares of the picture,
    ``bearing`` (B, K) in rad of the base, left positive, and ``distance`` (B, K) in m are NaN where none is in view.
    ``scene``: everything that stands there.
    """

    pixels: NDArray[np.uint8]
    targets: list[list[Target]]
    visible: Floats
    box: Floats
    bearing: Floats
    distance: Floats
    scene: Scene


class Feed:
    """Episodes of one or more data sets; ``sources`` are data sets with the numbers of their episodes to learn from.

    All numbers are read at once; frames are decoded when they are drawn, by ``threads`` threads, and fitted to ``size``
    (rows, columns). The fitted frames last used are kept, ``cache_bytes`` of them at most. Draws may come from any
    number of threads. Another ``fit`` must show the same part of the camera's image as ours does.

    ContractMismatchError when the contracts differ; DatasetError when there is nothing to learn from, an episode is
    damaged, or a number cannot be learnt from.
    """

    def __init__(
        self,
        sources: Sequence[tuple[Dataset, Sequence[int]]],
        size: tuple[int, int],
        cache_bytes: int = 2 * 2**30,
        fit: Fit | None = None,
        threads: int = 1,
    ) -> None:
        for name, value, least in (("size", min(size), 1), ("cache_bytes", cache_bytes, 0), ("threads", threads, 1)):
            if value < least:
                raise ConfigError(f"{name} needs to be at least {least}, got {value}")
        self._sources = [(dataset, list(episodes)) for dataset, episodes in sources if len(episodes)]
        if not self._sources:
            named = ", ".join(str(dataset.root) for dataset, _ in sources) or "no data set"
            raise DatasetError(f"there is no episode to learn from in {named}: record some, or give another data set")
        self.check()
        self._columns = Columns.joined([read_columns(dataset, episodes) for dataset, episodes in self._sources])
        chosen = [(dataset, index) for dataset, episodes in self._sources for index in episodes]
        self._pictures = Pictures(chosen, size, cache_bytes, fit or preprocess.fit, threads)
        self._starts = self._pictures.starts
        self._instructions = [dataset.episode(index).instruction for dataset, index in chosen]
        self._goals = [_goal_of(dataset, index, dataset.episode(index).record.extras) for dataset, index in chosen]
        advised = np.isfinite(self._columns.chunk.sum(axis=2)).sum(axis=1) > 0
        labelled = self._columns.kinds.max(axis=1) >= 0
        self._labelled = np.flatnonzero(labelled)
        self._mute, self._blind = self._without(advised), self._without(labelled)

    def __len__(self) -> int:
        """Episodes."""
        return len(self._instructions)

    @property
    def frames(self) -> int:
        """Of all episodes."""
        return int(self._starts[-1])

    @property
    def contract(self) -> ActionContract:
        """That of every source."""
        return self._sources[0][0].contract

    @property
    def held_bytes(self) -> int:
        """Of fitted frames that are kept now, never more than ``cache_bytes``."""
        return self._pictures.held_bytes

    def check(self) -> None:
        """ContractMismatchError when two sources do not share one contract, frame rate included."""
        first = self._sources[0][0]
        for other, _ in self._sources[1:]:
            first.contract.require_same(other.contract, str(first.root), str(other.root))

    def windows(
        self, rng: np.random.Generator, piece: Part, batch: int, length: int, at_start_share: float = 0.5
    ) -> Windows:
        """The ``piece`` of ``batch`` windows of ``length`` frames.

        A window begins at a frame drawn evenly from all, or, ``at_start_share`` of them, where that frame's episode
        begins. DatasetError when a source has no chunk that says what to do, in any frame.
        """
        _require_positive(batch=batch, length=length)
        if not 0.0 <= at_start_share <= 1.0:
            raise ConfigError(f"at_start_share needs to lie in 0..1, got {at_start_share}")
        if self._mute is not None:
            raise DatasetError(
                f"{self._mute} cannot teach driving: no frame of its episodes has a finite {schema.ACTION_CHUNK}; "
                "leave it out of the drives, or record it with somebody driving"
            )
        begin = rng.integers(self.frames, size=batch)
        from_start = rng.random(batch) < at_start_share
        begin, from_start = begin[piece.part(batch)], from_start[piece.part(batch)]
        episodes = np.searchsorted(self._starts, begin, side="right") - 1
        begin = np.where(from_start, self._starts[episodes], begin)
        places = begin[:, None] + np.arange(length)
        mask = places < self._starts[episodes + 1][:, None]
        return Windows(
            self._frames(np.where(mask, places, 0), mask, begin == self._starts[episodes]),
            [self._instructions[episode] for episode in episodes],
            [self._goals[episode] for episode in episodes],
        )

    def asked(self, rng: np.random.Generator, piece: Part, batch: int, names: int) -> Asked:
        """The ``piece`` of ``batch`` frames, each asked for ``names`` different names.

        Frames are drawn evenly from those whose objects are known. About half of the names are of what is in view, as
        far as there is so much; most others are near misses. DatasetError when no frame of a source tells its objects.
        """
        _require_positive(batch=batch, names=names)
        if names > len(NAMES):
            raise ConfigError(f"there are {len(NAMES)} names to ask for, not {names}: lower names")
        if self._blind is not None:
            raise DatasetError(
                f"{self._blind} cannot teach pointing: no frame of its episodes says which objects are there; leave it "
                "out of the surveys, or make a survey"
            )
        frames = self._labelled[rng.integers(len(self._labelled), size=batch)][piece.part(batch)]
        odd, order = rng.random(batch)[piece.part(batch)], rng.random((batch, len(NAMES)))[piece.part(batch)]
        columns = self._columns
        answers = _answers(
            columns.kinds[frames], columns.colours[frames], columns.seen[frames], columns.distances[frames]
        )
        chosen = _choose(answers, names, odd, order)
        pick = partial(np.take_along_axis, indices=chosen, axis=1)
        visible, meant, there = pick(answers.visible), pick(answers.meant), pick(answers.in_view)
        of = (frames[:, None], meant)
        return Asked(
            self._pictures.read(frames),
            [[NAMES[name] for name in row] for row in chosen.tolist()],
            visible,
            np.where(there[..., None], columns.boxes[of], np.float32(np.nan)),
            np.where(there, columns.bearings[of], np.float32(np.nan)),
            np.where(there, columns.distances[of], np.float32(np.nan)),
            Scene(*(getattr(columns, name)[frames] for name in Scene.__dataclass_fields__)),
        )

    def _frames(self, places: NDArray[np.int64], mask: NDArray[np.bool_], at_start: NDArray[np.bool_]) -> Frames:
        columns, rows = self._columns, np.flatnonzero(mask)
        pixels = np.zeros((*mask.shape, *self._pictures.size, 3), dtype=np.uint8)
        self._pictures.fill(pixels.reshape(-1, *self._pictures.size, 3), rows, places.reshape(-1)[rows])

        def of(values: Floats, empty: float) -> Floats:
            taken = values[places]
            taken[~mask] = empty
            return taken

        status = columns.status[places]
        status[~mask] = schema.UNLABELLED
        return Frames(
            pixels,
            velocity=of(columns.velocity, 0.0),
            odometry=of(columns.odometry, 0.0),
            chunk=of(columns.chunk, np.nan),
            status=status,
            visible=of(columns.visible, np.nan),
            box=of(columns.box, np.nan),
            bearing=of(columns.bearing, np.nan),
            distance=of(columns.distance, np.nan),
            mask=mask,
            at_start=at_start,
        )

    def _without(self, labelled: NDArray[np.bool_]) -> str | None:
        """The first data set of which no frame is ``labelled``."""
        start = 0
        for dataset, episodes in self._sources:
            end = start + int(dataset.lengths(episodes).sum())
            if not labelled[start:end].any():
                return str(dataset.root)
            start = end
        return None


class _Answers(NamedTuple):
    """Of every name in each of B frames, all (B, names): ``meant`` is the place of an object among the eight."""

    visible: Floats
    in_view: NDArray[np.bool_]
    near: NDArray[np.bool_]
    meant: NDArray[np.int64]


def _answers(kinds: NDArray[np.int8], colours: NDArray[np.int8], seen: Floats, distances: Floats) -> _Answers:
    same_kind = kinds[..., None] == _NAME_KINDS
    same_colour = colours[..., None] == _NAME_COLOURS
    matching = same_kind & (same_colour | (_NAME_COLOURS == _UNSAID))
    clear = seen[..., None] >= IN_VIEW
    away = np.where(matching & clear, distances[..., None], np.inf)
    meant = away.argmin(axis=1)
    in_view = (matching & clear).any(axis=1)
    hardly = (matching & (seen[..., None] >= HARDLY)).any(axis=1) & ~in_view
    near = ((same_kind | same_colour) & clear).any(axis=1) & ~in_view & ~hardly
    visible = np.where(in_view, np.take_along_axis(seen, meant, axis=1), np.where(hardly, np.nan, 0.0))
    return _Answers(visible.astype(np.float32), in_view, near, meant)


def _choose(
    answers: _Answers, names: int, odd: Floats | NDArray[np.float64], order: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(B, names) different names of each frame. ``odd`` (B,) decides halves, ``order`` (B, all names) is their lot.

    First half of them from what is in view, then near misses, then others, each as far as it goes. What can hardly be
    seen teaches nothing, and comes last of all.
    """
    hardly = np.isnan(answers.visible)
    other = ~(answers.in_view | answers.near | hardly)
    half = (names + (odd < 0.5)) // 2
    in_view = np.minimum(half, answers.in_view.sum(axis=1))
    near = np.minimum(np.rint((names - in_view) * _NEAR_SHARE).astype(np.int64), answers.near.sum(axis=1))
    turn = order + hardly * 2.0
    for group, wanted in ((answers.in_view, in_view), (answers.near, near), (other, names - in_view - near)):
        place = np.where(group, order, np.inf).argsort(axis=1).argsort(axis=1)
        turn -= group & (place < wanted[:, None])
    chosen: NDArray[np.int64] = turn.argsort(axis=1)[:, :names]
    return chosen


def _goal_of(dataset: Dataset, index: int, extras: Extras) -> Goal | None:
    """None where no goal was noted; DatasetError when it is none that we know."""
    if extras.get(schema.EXTRA_GOAL_MODE) is None:
        return None
    try:
        return goal_of(extras)
    except (KeyError, ValueError) as error:
        raise DatasetError(
            f"{dataset.root}, episode {index}: the goal noted with it is none ({error}); correct it, "
            "or take goal_mode out"
        ) from error


def _require_positive(**counts: int) -> None:
    for name, value in counts.items():
        if value < 1:
            raise ConfigError(f"{name} needs to be at least 1, got {value}")
