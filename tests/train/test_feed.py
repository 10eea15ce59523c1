import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobile_vla.core import (
    ActionContract,
    Colour,
    ConfigError,
    ContractMismatchError,
    DatasetError,
    Goal,
    Kind,
    Mode,
    Side,
    Target,
)
from mobile_vla.data import Dataset, EpisodeWriter, load_split, make_split
from mobile_vla.data import schema as s
from mobile_vla.policy.compact import bearing_of
from mobile_vla.policy.preprocess import fit
from mobile_vla.train.drive import dead_reckoning
from mobile_vla.train.feed import HARDLY, IN_VIEW, Asked, Feed, Windows
from mobile_vla.train.feed_cache import Pictures
from mobile_vla.train.see import NAMES, pointing_targets

CONTRACT = ActionContract(horizon=4)
SHAPE, SIZE = (16, 32, 3), (8, 8)
LENGTHS = (3, 11, 1, 6)
PICTURE_BYTES = 8 * 8 * 3
GOAL = {"goal_mode": "go", "goal_kind": "cup", "goal_colour": "red", "goal_side": "left"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    place: int = 0
    of: int = 1

    def part(self, batch: int) -> slice:
        return slice(batch // self.of * self.place, batch // self.of * (self.place + 1))


WHOLE = Piece()


def row(
    rng: np.random.Generator, place: int, shape: tuple[int, int, int] = SHAPE, contract: ActionContract = CONTRACT
) -> Row:
    """A frame of a drive: every number is drawn, and a part of the chunk is what nobody said."""
    limits = contract.limits_array
    chunk = rng.uniform(-limits, limits, (contract.horizon, 3)).astype(np.float32)
    chunk[int(rng.integers(contract.horizon + 1)) :] = np.nan
    return {
        s.IMAGE_FRONT: rng.integers(0, 256, shape, dtype=np.uint8),
        s.STATE: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION_CHUNK: chunk,
        s.STATUS: int(rng.integers(-1, 4)),
        s.GROUNDING_VISIBLE: float(rng.random()),
        s.GROUNDING_BOX: np.sort(rng.random((2, 2)), axis=0).astype(np.float32).ravel(),
        s.GROUNDING_BEARING: float(rng.normal()),
        s.GROUNDING_DISTANCE: float(rng.random()),
        s.OBJECTS: objects(rng, shape),
        s.RANGES: rng.uniform(0.1, 5, s.RANGE_COLUMNS).astype(np.float32),
        s.CAPTURE_NS: place,
        s.SEQUENCE: place,
    }


def objects(rng: np.random.Generator, shape: tuple[int, int, int] = SHAPE) -> NDArray[np.float32]:
    """One to eight objects, some hidden, some hardly to be seen, some of one name."""
    table = np.full((s.MAX_OBJECTS, len(s.OBJECT_FIELDS)), -1.0, np.float32)
    for place in range(int(rng.integers(1, s.MAX_OBJECTS + 1))):
        table[place] = (
            rng.integers(3),
            rng.integers(3),
            rng.uniform(8, shape[1] - 8),
            rng.uniform(4, shape[0] - 4),
            rng.uniform(0.5, 8),
            rng.uniform(0.5, 4),
            rng.choice([0.0, 0.05, 0.15, 0.29, 0.31, 1.0]),
            rng.uniform(0.1, 7),
        )
    return table


def write(
    root: Path,
    episodes: Sequence[Sequence[Row]],
    extras: Row | None = None,
    contract: ActionContract = CONTRACT,
    shape: tuple[int, int, int] = SHAPE,
) -> Dataset:
    with EpisodeWriter(root, contract, shape, {}) as writer:
        for number, rows in enumerate(episodes):
            with writer.episode(f"go to the red cup, {root.name} {number}", extras or {}) as episode:
                for frame in rows:
                    episode.add(frame)
    return Dataset.open(root)


def drives(root: Path, lengths: Sequence[int] = LENGTHS, seed: int = 0, **more: Any) -> Dataset:
    rng = np.random.default_rng(seed)
    shape, contract = more.get("shape", SHAPE), more.get("contract", CONTRACT)
    return write(root, [[row(rng, place, shape, contract) for place in range(length)] for length in lengths], **more)


def feed(*datasets: Dataset, **more: Any) -> Feed:
    return Feed([(dataset, dataset.episode_indices) for dataset in datasets], **{"size": SIZE, **more})


def rewrite(dataset: Dataset, index: int, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:
    """Put a changed table in place of an episode's, as another program would; the data set is not opened again."""
    path = dataset.episode(index).path
    pq.write_table(change(pq.read_table(path)), path, **options)
    return path


def with_value(name: str, frame: int, value: float) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        rows = table.column(name).to_pylist()
        rows[frame] = [value, *rows[frame][1:]] if isinstance(rows[frame], list) else value
        place = table.column_names.index(name)
        return table.set_column(place, name, pa.array(rows, table.column(name).type))

    return change


def same(one: Windows | Asked, other: Windows | Asked) -> None:
    if isinstance(one, Windows) and isinstance(other, Windows):
        assert (one.instructions, one.goals) == (other.instructions, other.goals)
        for mine, theirs in zip(one.frames, other.frames, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    elif isinstance(one, Asked) and isinstance(other, Asked):
        assert one.targets == other.targets
        for mine, theirs in zip(arrays(one), arrays(other), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    else:
        raise AssertionError((one, other))


def arrays(asked: Asked) -> list[NDArray[Any]]:
    parts = [getattr(asked, field.name) for field in fields(asked)]
    parts += [getattr(asked.scene, field.name) for field in fields(asked.scene)]
    return [part for part in parts if isinstance(part, np.ndarray)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drives(tmp_path_factory.mktemp("feed") / "drives", extras=GOAL)


@pytest.fixture(scope="module")
def fed(dataset: Dataset) -> Feed:
    return feed(dataset)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    length=st.integers(1, 14),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    of=st.integers(1, 4),
    each=st.integers(1, 4),
)
def test_pieces_make_the_whole(fed: Feed, seed: int, length: int, share: float, of: int, each: int) -> None:
    batch = of * each
    whole = fed.windows(np.random.default_rng(seed), WHOLE, batch, length, share)
    asked = fed.asked(np.random.default_rng(seed), WHOLE, batch, 6)
    parts = [fed.windows(np.random.default_rng(seed), Piece(place, of), batch, length, share) for place in range(of)]
    asks = [fed.asked(np.random.default_rng(seed), Piece(place, of), batch, 6) for place in range(of)]
    for name in whole.frames._fields:
        joined = np.concatenate([getattr(part.frames, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole.frames, name))
    assert [each for part in parts for each in part.instructions] == whole.instructions
    assert [each for part in parts for each in part.goals] == whole.goals
    for wanted, *pieces in zip(arrays(asked), *map(arrays, asks), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), wanted)
    assert [each for part in asks for each in part.targets] == asked.targets


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 14), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_a_window_is_what_the_reader_reads_of_the_episode(
    dataset: Dataset, fed: Feed, seed: int, length: int, share: float
) -> None:
    windows = fed.windows(np.random.default_rng(seed), WHOLE, 5, length, share)
    for place, instruction in enumerate(windows.instructions):
        episode = next(episode for episode in dataset if episode.instruction == instruction)
        frames = type(windows.frames)(*(values[place] for values in windows.frames))
        begin = int(np.flatnonzero((episode[s.STATE] == frames.velocity[0]).all(axis=1))[0])
        count = min(length, len(episode) - begin)
        rows = slice(begin, begin + count)
        assert frames.mask.tolist() == [True] * count + [False] * (length - count)
        assert bool(frames.at_start) == (begin == 0)
        assert begin == 0 or share < 1.0
        expected = {
            "pixels": np.stack([fit(pixels, SIZE) for pixels in episode.images(begin, begin + count)]),
            "velocity": episode[s.STATE][rows],
            "odometry": np.float32(dead_reckoning(episode[s.STATE], CONTRACT.frame_rate_hz))[rows],
            "chunk": episode[s.ACTION_CHUNK].reshape(-1, 4, 3)[rows] / CONTRACT.limits_array,
            "status": episode[s.STATUS][rows],
            "visible": episode[s.GROUNDING_VISIBLE][rows],
            "box": episode[s.GROUNDING_BOX][rows],
            "bearing": episode[s.GROUNDING_BEARING][rows],
            "distance": episode[s.GROUNDING_DISTANCE][rows],
        }
        for name, wanted in expected.items():
            values = getattr(frames, name)
            np.testing.assert_allclose(values[:count], wanted, rtol=1e-5, atol=1e-6, err_msg=name)
            empty = 0 if name in ("pixels", "velocity", "odometry") else -1 if name == "status" else np.nan
            np.testing.assert_array_equal(values[count:], np.full_like(values[count:], empty), err_msg=name)


def test_shapes_and_types_are_as_promised(fed: Feed) -> None:
    frames = fed.windows(np.random.default_rng(0), WHOLE, 5, 7).frames
    shapes = {name: (values.shape, values.dtype) for name, values in frames._asdict().items()}
    f4, i8, bit = np.dtype("f4"), np.dtype("i8"), np.dtype(bool)
    assert shapes == {
        "pixels": ((5, 7, *SIZE, 3), np.dtype("u1")),
        "velocity": ((5, 7, 3), f4),
        "odometry": ((5, 7, 3), f4),
        "chunk": ((5, 7, 4, 3), f4),
        "status": ((5, 7), i8),
        "visible": ((5, 7), f4),
        "box": ((5, 7, 4), f4),
        "bearing": ((5, 7), f4),
        "distance": ((5, 7), f4),
        "mask": ((5, 7), bit),
        "at_start": ((5,), bit),
    }
    asked = fed.asked(np.random.default_rng(0), WHOLE, 5, 3)
    assert asked.pixels.shape == (5, *SIZE, 3)
    assert asked.box.shape == (5, 3, 4)
    assert {values.dtype for values in (asked.visible, asked.box, asked.bearing, asked.distance)} == {f4}
    assert asked.visible.shape == asked.bearing.shape == asked.distance.shape == (5, 3)


def test_windows_begin_evenly_at_every_frame_or_where_the_episode_begins(fed: Feed) -> None:
    count = 6000
    anywhere = fed.windows(np.random.default_rng(1), WHOLE, count, 1, at_start_share=0.0)
    _, often = np.unique(anywhere.frames.velocity[:, 0], axis=0, return_counts=True)
    assert len(often) == sum(LENGTHS) == fed.frames
    expected = count / fed.frames
    assert (abs(often - expected) < 5 * np.sqrt(expected)).all()
    half = fed.windows(np.random.default_rng(1), WHOLE, count, 1, at_start_share=0.5)
    starts = 0.5 + 0.5 * len(LENGTHS) / fed.frames
    assert abs(half.frames.at_start.mean() - starts) < 5 * np.sqrt(0.25 / count)
    longest = half.instructions.count(f"go to the red cup, drives {int(np.argmax(LENGTHS))}")
    assert abs(longest / count - max(LENGTHS) / fed.frames) < 5 * np.sqrt(0.25 / count)


def test_what_nobody_said_stays_unknown_and_the_rest_are_shares_of_the_limits(dataset: Dataset, fed: Feed) -> None:
    chunks = fed.windows(np.random.default_rng(2), WHOLE, 200, 1, 0.0).frames.chunk
    recorded = np.concatenate([episode[s.ACTION_CHUNK] for episode in dataset])
    assert 0.1 < np.isnan(recorded).mean() < 0.9
    assert abs(np.isnan(chunks).mean() - np.isnan(recorded).mean()) < 0.2
    assert 0.9 < np.nanmax(abs(chunks)) <= 1.0


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    room=st.integers(0, 25),
    threads=st.sampled_from([1, 3]),
    draws=st.lists(st.sampled_from(["windows", "asked"]), min_size=1, max_size=4),
)
def test_the_cache_keeps_its_bound_and_changes_no_result(
    dataset: Dataset, fed: Feed, seed: int, room: int, threads: int, draws: list[str]
) -> None:
    limit = room * PICTURE_BYTES + PICTURE_BYTES // 2
    small = feed(dataset, cache_bytes=limit, threads=threads)
    for number, kind in enumerate(draws):
        for each in (small, fed):
            assert each is fed or each.held_bytes <= limit
        one, other = (
            each.windows(np.random.default_rng([seed, number]), WHOLE, 6, 4)
            if kind == "windows"
            else each.asked(np.random.default_rng([seed, number]), WHOLE, 6, 4)
            for each in (small, fed)
        )
        same(one, other)
    assert small.held_bytes <= min(limit, small.frames * PICTURE_BYTES)


def test_a_frame_is_fitted_once_while_there_is_room(dataset: Dataset) -> None:
    fitted: list[bytes] = []

    def counting(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        fitted.append(pixels.tobytes())
        return fit(pixels, size)

    counted = feed(dataset, fit=counting)
    for seed in range(30):
        counted.windows(np.random.default_rng(seed), WHOLE, 8, 3)
    assert len(fitted) == len(set(fitted)) == counted.frames
    assert counted.held_bytes == counted.frames * PICTURE_BYTES
    none_kept = feed(dataset, fit=counting, cache_bytes=0)
    fitted.clear()
    for _ in range(2):
        none_kept.windows(np.random.default_rng(0), WHOLE, 8, 3)
    assert none_kept.held_bytes == 0
    assert len(fitted) == 2 * len(set(fitted)) > 0


def test_the_pictures_that_were_used_last_are_kept(dataset: Dataset) -> None:
    fitted: list[bytes] = []

    def counting(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        fitted.append(pixels.tobytes())
        return fit(pixels, size)

    pictures = Pictures([(dataset, 1)], SIZE, 2 * PICTURE_BYTES, counting, 1)
    for frame, so_far in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)):
        expected = fit(dataset.episode(1).images()[frame], SIZE)
        np.testing.assert_array_equal(pictures.read(np.array([frame, frame])), [expected, expected])
        assert len(fitted) == so_far


def test_draws_in_several_threads_are_those_of_one(dataset: Dataset, fed: Feed) -> None:
    shared = feed(dataset, cache_bytes=5 * PICTURE_BYTES, threads=2)

    def draw(seed: int, of: Feed) -> Windows:
        return of.windows(np.random.default_rng(seed), WHOLE, 6, 5)

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda seed: draw(seed, shared), range(40)))
    for seed, windows in enumerate(drawn):
        same(windows, draw(seed, fed))


def test_two_data_sets_of_different_cameras_mix(tmp_path: Path, dataset: Dataset) -> None:
    other = drives(tmp_path / "others", (9, 8), seed=5, shape=(30, 40, 3))
    mixed = feed(dataset, other)
    assert len(mixed) == len(LENGTHS) + 2
    assert mixed.frames == sum(LENGTHS) + 17
    windows = mixed.windows(np.random.default_rng(0), WHOLE, 200, 2, 0.0)
    place = [instruction.startswith("go to the red cup, others") for instruction in windows.instructions]
    assert 0.25 < np.mean(place) < 0.65
    assert {windows.goals[i] for i in np.flatnonzero(place)} == {None}
    goal = Goal(Mode.GO, Target(Kind.CUP, Colour.RED), Side.LEFT)
    assert {windows.goals[i] for i in np.flatnonzero(np.logical_not(place))} == {goal}
    number = place.index(True)
    episode = next(episode for episode in other if episode.instruction == windows.instructions[number])
    frame = int(np.flatnonzero((episode[s.STATE] == windows.frames.velocity[number, 0]).all(axis=1))[0])
    np.testing.assert_array_equal(windows.frames.pixels[number, 0], fit(episode.images()[frame], SIZE))


def test_only_the_given_episodes_are_drawn(dataset: Dataset) -> None:
    make_split(dataset, (0.5, 0.25, 0.25))
    chosen = load_split(dataset).train
    assert 0 < len(chosen) < len(LENGTHS)
    windows = Feed([(dataset, chosen)], SIZE).windows(np.random.default_rng(0), WHOLE, 100, 1)
    assert set(windows.instructions) == {dataset.episode(index).instruction for index in chosen}


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_names_are_answered_as_the_compact_policy_learns_to_point(dataset: Dataset, fed: Feed, seed: int) -> None:
    asked = fed.asked(np.random.default_rng(seed), WHOLE, 4, len(NAMES))
    for place, targets in enumerate(asked.targets):
        assert sorted(map(NAMES.index, targets)) == list(range(len(NAMES)))
        table, ranges = the_truth_about(dataset, asked.pixels[place])
        scene = asked.scene
        np.testing.assert_array_equal(scene.ranges[place], ranges)
        for column, values in ((0, scene.kinds), (1, scene.colours), (6, scene.seen), (7, scene.distances)):
            np.testing.assert_array_equal(values[place], table[:, column])
        there = table[:, 0] >= 0
        edges = (table[:, 2:4] - table[:, 4:6]) / SHAPE[1::-1], (table[:, 2:4] + table[:, 4:6]) / SHAPE[1::-1]
        boxes = np.clip(np.concatenate(edges, axis=1), 0, 1)
        np.testing.assert_allclose(scene.boxes[place][there], boxes[there], atol=1e-5)
        wanted, weight = pointing_targets(torch.from_numpy(table[None]))
        for name, target in enumerate(NAMES):
            k = targets.index(target)
            visible = asked.visible[place, k]
            if weight[0, name] == 0:
                assert np.isnan(visible)
            elif wanted[0, name, -1] == 1:
                assert visible == 0
            else:
                assert visible >= IN_VIEW
            numbers = [asked.bearing[place, k], asked.distance[place, k], *asked.box[place, k]]
            assert np.isfinite(numbers).all() if visible > 0 else np.isnan(numbers).all()
            if visible > 0:
                check_meant(table, target, visible, asked.box[place, k], numbers[0], numbers[1])


def the_truth_about(dataset: Dataset, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    for episode in dataset:
        for frame, image in enumerate(episode.images()):
            if np.array_equal(fit(image, SIZE), pixels):
                return episode[s.OBJECTS][frame].reshape(s.MAX_OBJECTS, -1).copy(), episode[s.RANGES][frame]
    raise AssertionError("a frame that is in no episode")


def check_meant(
    table: NDArray[np.float32],
    target: Target,
    visible: float,
    box: NDArray[np.float32],
    bearing: float,
    distance: float,
) -> None:
    """It is the nearest of those in view that answer to the name, with its own box and bearing."""
    answering = [
        thing
        for thing in table
        if thing[0] >= 0 and thing[6] >= IN_VIEW and target.matches(s.KINDS[int(thing[0])], s.COLOURS[int(thing[1])])
    ]
    nearest = min(answering, key=lambda thing: thing[7])
    _, _, u, v, half_u, half_v, seen, away = nearest.tolist()
    assert (visible, distance) == pytest.approx((seen, away))
    height, width, _ = SHAPE
    edges = [(u - half_u) / width, (v - half_v) / height, (u + half_u) / width, (v + half_v) / height]
    assert box.tolist() == pytest.approx(np.clip(edges, 0, 1).tolist(), abs=1e-5)
    expected = bearing_of(torch.tensor([u / width]), torch.tensor([away]).log())
    assert bearing == pytest.approx(float(expected[0]), abs=1e-5)


def standing(*things: tuple[Kind, Colour, float]) -> NDArray[np.float32]:
    table = np.full((s.MAX_OBJECTS, len(s.OBJECT_FIELDS)), -1.0, np.float32)
    for place, (kind, colour, seen) in enumerate(things):
        table[place] = (s.KINDS.index(kind), s.COLOURS.index(colour), 16, 8, 3, 3, seen, 1.0 + place)
    return table


def test_half_of_the_names_are_in_view_and_most_others_are_near_misses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = standing(
        (Kind.CUP, Colour.RED, 1.0),
        (Kind.BALL, Colour.BLUE, 0.9),
        (Kind.CONE, Colour.RED, 0.8 * HARDLY + 0.2 * IN_VIEW),
    )
    surveyed = feed(write(tmp_path / "survey", [[row(rng, 0) | {s.OBJECTS: table} for _ in range(3)]]))
    asked = surveyed.asked(rng, WHOLE, 400, 6)
    in_view = {Target(kind, colour) for kind, colour in ((Kind.CUP, Colour.RED), (Kind.BALL, Colour.BLUE))}
    in_view |= {Target(Kind.CUP), Target(Kind.BALL)}
    near = {name for name in NAMES if name.colour and (name.kind in (Kind.CUP, Kind.BALL))} - in_view
    near |= {name for name in NAMES if name.colour in (Colour.RED, Colour.BLUE)} - in_view
    near -= {Target(Kind.CONE, Colour.RED)}
    for targets, visible in zip(asked.targets, asked.visible, strict=True):
        assert len(set(targets)) == 6
        assert [target in in_view for target in targets] == (visible > 0).tolist()
        assert sum(target in in_view for target in targets) == 3
        assert sum(target in near for target in targets) == 2
    assert not np.isnan(asked.visible).any()
    asked_for = {target for targets in asked.targets for target in targets}
    assert in_view | near <= asked_for
    assert asked_for.isdisjoint((Target(Kind.CONE, Colour.RED), Target(Kind.CONE)))
    assert not np.isnan(surveyed.asked(rng, WHOLE, 5, len(NAMES) - 2).visible).any()
    single = [targets[0] in in_view for targets in surveyed.asked(rng, WHOLE, 400, 1).targets]
    assert 0.35 < np.mean(single) < 0.65
    one, more = (surveyed.asked(rng, WHOLE, 1, names).visible for names in (1, len(NAMES)))
    assert one.shape == (1, 1)
    assert np.isnan(more).sum() == 2  # the red cone and the cone


def test_what_can_hardly_be_seen_is_asked_about_only_when_nothing_else_is_left(tmp_path: Path) -> None:
    """In a crowd of all colours there are no other names than those in view and near misses."""
    rng = np.random.default_rng(0)
    *clear, last = zip(Kind, (*Colour, Colour.RED, Colour.RED), strict=True)
    table = standing(*((kind, colour, 1.0) for kind, colour in clear), (*last, 0.2))
    crowd = feed(write(tmp_path / "crowd", [[row(rng, 0) | {s.OBJECTS: table}]]))
    assert not np.isnan(crowd.asked(rng, WHOLE, 200, 12).visible).any()


def test_boxes_are_those_of_the_picture_that_a_network_sees(tmp_path: Path) -> None:
    """A white patch in a 4:3 image, cut at the top by the crop: its box is where the white is in the fitted picture."""
    shape = (60, 80, 3)
    pixels = np.zeros(shape, np.uint8)
    pixels[5:35, 20:40] = 255  # rows 10..50 are in the crop
    table = standing((Kind.CUP, Colour.RED, 0.9), (Kind.BALL, Colour.BLUE, 1.0))
    table[0, 2:6] = (30, 20, 10, 15)
    table[1, 2:6] = (60, 5, 4, 4)  # wholly above the crop
    box = np.array([20 / 80, 5 / 60, 40 / 80, 35 / 60], np.float32)
    frame = row(np.random.default_rng(0), 0, shape) | {
        s.IMAGE_FRONT: pixels,
        s.OBJECTS: table,
        s.GROUNDING_BOX: box,
        s.GROUNDING_VISIBLE: 0.9,
        s.ACTION_CHUNK: np.zeros((4, 3), np.float32),
    }
    seen = feed(write(tmp_path / "tall", [[frame]], shape=shape), size=(64, 64))
    asked = seen.asked(np.random.default_rng(0), WHOLE, 1, len(NAMES))
    cup, ball = (asked.targets[0].index(Target(*name)) for name in ((Kind.CUP, Colour.RED), (Kind.BALL, Colour.BLUE)))
    frames = seen.windows(np.random.default_rng(0), WHOLE, 1, 1).frames
    np.testing.assert_array_equal(frames.pixels[0, 0], asked.pixels[0])
    rows, columns = np.nonzero(asked.pixels[0, ..., 0] > 128)
    white = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64
    np.testing.assert_allclose(asked.box[0, cup], white, atol=1.5 / 64)
    np.testing.assert_allclose(frames.box[0, 0], white, atol=1.5 / 64)
    assert asked.visible[0, cup] == pytest.approx(0.9 * 25 / 30)
    assert frames.visible[0, 0] == pytest.approx(0.9 * 25 / 30)
    assert asked.visible[0, ball] == 0
    np.testing.assert_array_equal(asked.scene.ranges[0], frame[s.RANGES])


def test_ranges_of_a_wider_image_than_the_picture_are_unknown(tmp_path: Path) -> None:
    wide = drives(tmp_path / "wide", (2,), shape=(16, 40, 3))
    assert np.isnan(feed(wide).asked(np.random.default_rng(0), WHOLE, 1, 1).scene.ranges).all()


def test_an_image_packed_otherwise_is_read_all_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [row(rng, place) | {s.IMAGE_FRONT: np.full(SHAPE, 40 * place, np.uint8)} for place in range(6)]
    dataset = write(tmp_path / "drives", [rows])
    plain = feed(dataset, cache_bytes=0)
    drawn = [plain.windows(np.random.default_rng(seed), WHOLE, 8, 4) for seed in range(3)]
    jpegs = [bytes(jpeg) for jpeg in dataset.episode(0).jpegs]
    content = rewrite(dataset, 0, lambda table: table, compression="GZIP", write_statistics=False).read_bytes()
    assert not any(jpeg in content for jpeg in jpegs)
    packed = feed(dataset, cache_bytes=0)
    for seed, windows in enumerate(drawn):
        same(windows, packed.windows(np.random.default_rng(seed), WHOLE, 8, 4))


@pytest.mark.parametrize("drawn_before", [False, True])
def test_a_damaged_image_is_named_by_episode_and_frame(tmp_path: Path, drawn_before: bool) -> None:
    dataset = drives(tmp_path / "drives", (4,))
    broken = feed(dataset, cache_bytes=0)
    if drawn_before:
        broken.windows(np.random.default_rng(0), WHOLE, 1, 4, 1.0)
    path = dataset.episode(0).path
    content = path.read_bytes()
    place = content.find(bytes(dataset.episode(0).jpegs[2]))
    path.write_bytes(content[:place] + bytes(40) + content[place + 40 :])
    with pytest.raises(DatasetError, match=r"episode 0 .*frame 2 is damaged"):
        broken.windows(np.random.default_rng(0), WHOLE, 1, 4, 1.0)


@pytest.mark.parametrize("drawn_before", [False, True])
def test_a_file_that_is_gone_is_named(tmp_path: Path, drawn_before: bool) -> None:
    dataset = drives(tmp_path / "drives", (4,))
    broken = feed(dataset, cache_bytes=0)
    if drawn_before:
        broken.windows(np.random.default_rng(0), WHOLE, 1, 4, 1.0)
    os.remove(dataset.episode(0).path)
    with pytest.raises(DatasetError, match=r"episode 0 .*the file is missing"):
        broken.windows(np.random.default_rng(0), WHOLE, 1, 4, 1.0)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        (s.STATE, float("nan"), "nan where a finite number"),
        (s.ACTION, float("inf"), "inf where a finite number"),
        (s.ACTION_CHUNK, float("-inf"), "-inf where a number or NaN"),
        (s.STATUS, 4, "4 where one of -1..3"),
    ],
)
def test_a_number_that_cannot_be_learnt_from_is_named(tmp_path: Path, name: str, value: float, what: str) -> None:
    dataset = drives(tmp_path / "drives", (3, 5, 4))
    rewrite(dataset, 1, with_value(name, 2, value))
    with pytest.raises(DatasetError, match=rf"{dataset.root}, episode 1, frame 2: {name} holds {what}.*data validate"):
        feed(dataset)
    assert Feed([(dataset, [0, 2])], SIZE).frames == 7


def test_contracts_that_differ_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    faster = drives(tmp_path / "faster", (2,), contract=ActionContract(horizon=4, frame_rate_hz=10.0))
    with pytest.raises(ContractMismatchError, match=rf"frame_rate_hz: {dataset.root} has 5.0, {faster.root} has 10.0"):
        feed(dataset, faster)


def test_a_survey_cannot_teach_driving_nor_an_unlabelled_drive_pointing(tmp_path: Path, dataset: Dataset) -> None:
    rng = np.random.default_rng(0)
    nobody = {s.ACTION_CHUNK: np.full((4, 3), np.nan, np.float32)}
    survey = write(tmp_path / "survey", [[row(rng, place) | nobody for place in range(3)]])
    mixed = feed(dataset, survey)
    with pytest.raises(DatasetError, match=f"{survey.root} cannot teach driving"):
        mixed.windows(rng, WHOLE, 2, 2)
    assert len(mixed.asked(rng, WHOLE, 2, 3).targets) == 2
    unnamed = {s.OBJECTS: np.full((8, 8), -1.0, np.float32)}
    by_hand = write(tmp_path / "by-hand", [[row(rng, place) | unnamed for place in range(3)]])
    mixed = feed(dataset, by_hand)
    with pytest.raises(DatasetError, match=f"{by_hand.root} cannot teach pointing"):
        mixed.asked(rng, WHOLE, 2, 3)
    assert len(mixed.windows(rng, WHOLE, 2, 2).instructions) == 2


def test_frames_of_unknown_objects_are_not_asked_about(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    unnamed = {s.OBJECTS: np.full((8, 8), -1.0, np.float32), s.IMAGE_FRONT: np.zeros(SHAPE, np.uint8)}
    rows = [row(rng, place) | (unnamed if place % 2 else {}) for place in range(10)]
    asked = feed(write(tmp_path / "half", [rows])).asked(rng, WHOLE, 100, 2)
    assert (asked.pixels.reshape(100, -1).max(axis=1) > 10).all()


def test_a_goal_that_is_none_is_named(tmp_path: Path) -> None:
    dataset = drives(tmp_path / "drives", (2,), extras=GOAL | {"goal_kind": "teapot"})
    with pytest.raises(DatasetError, match=r"episode 0: the goal noted with it is none .*teapot"):
        feed(dataset)


def test_settings_that_make_no_sense_are_refused(dataset: Dataset, fed: Feed) -> None:
    rng = np.random.default_rng(0)
    for more in ({"size": (0, 8)}, {"cache_bytes": -1}, {"threads": 0}):
        with pytest.raises(ConfigError, match=f"{next(iter(more))} needs to be at least"):
            feed(dataset, **more)
    for sources in ([], [(dataset, [])]):
        with pytest.raises(DatasetError, match="no episode to learn from"):
            Feed(sources, SIZE)
    with pytest.raises(ConfigError, match="batch needs to be at least 1, got 0"):
        fed.windows(rng, WHOLE, 0, 1)
    with pytest.raises(ConfigError, match="length needs to be at least 1, got 0"):
        fed.windows(rng, WHOLE, 1, 0)
    with pytest.raises(ConfigError, match=r"at_start_share needs to lie in 0\.\.1, got 2"):
        fed.windows(rng, WHOLE, 1, 1, at_start_share=2)
    with pytest.raises(ConfigError, match="names needs to be at least 1, got 0"):
        fed.asked(rng, WHOLE, 1, 0)
    with pytest.raises(ConfigError, match="56 names to ask for, not 57"):
        fed.asked(rng, WHOLE, 1, 57)
