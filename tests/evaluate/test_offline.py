from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mobile_vla.core import (
    ActionChunk,
    CheckpointError,
    ContractMismatchError,
    DatasetError,
    Instruction,
    Observation,
    Step,
)
from mobile_vla.data import Dataset, load_split, make_split, schema
from mobile_vla.evaluate import offline_errors
from mobile_vla.evaluate.baselines import BASELINES
from mobile_vla.evaluate.offline import Baseline, Baselines, Errors, OfflineReport
from mobile_vla.policy.weights import load_policy

from .recordings import CONTRACT, EPISODES, FRAMES, RecallPolicy, make_chunks, recorded, written
from .test_episode import SteadyPolicy


def by_name(report: OfflineReport) -> dict[str, Errors]:
    return {name: baseline.errors for name, baseline in report.baselines}


def test_a_perfect_recall_has_no_error_and_the_baselines_have_theirs(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = recorded(tmp_path / "data", chunks)
    report = offline_errors(RecallPolicy(chunks), dataset, "test")
    assert report.frames == report.episodes * FRAMES > 0
    assert report.episodes == report.of_episodes == len(load_split(dataset).test)
    assert tuple(by_name(report)) == BASELINES
    mine = report.policy
    assert [e.value for e in (*mine.first.mae, *mine.first.rmse, *mine.chunk.mae, *mine.chunk.rmse)] == [0.0] * 12
    assert mine.within.value == 1.0
    constant = by_name(report)["constant"].first
    assert [e.value for e in constant.mae] == pytest.approx([0.05] * 3, abs=0.02)  # mean |uniform(-0.1, 0.1)|
    assert [e.value for e in constant.rmse] == pytest.approx([0.1 / 3**0.5] * 3, abs=0.02)
    for sizes, shares in ((constant.mae, constant.mae_of_range), (constant.rmse, constant.rmse_of_range)):
        assert [e.value for e in shares] == pytest.approx(
            [e.value / (2 * limit) for e, limit in zip(sizes, CONTRACT.limits, strict=True)]
        )
    assert all(e.low <= e.value <= e.high for e in (*constant.mae, *constant.rmse))
    assert all(root.value >= mean.value for root, mean in zip(constant.rmse, constant.mae, strict=True))
    assert report.tolerance == pytest.approx((0.12, 0.12, 0.3))


def test_hold_last_is_the_action_before_and_zero_at_first(tmp_path: Path) -> None:
    chunks = make_chunks(noise=0.0)
    report = offline_errors(RecallPolicy(chunks), recorded(tmp_path / "data", chunks), "test")
    held = by_name(report)["hold_last"]
    assert [e.value for e in held.first.mae] == pytest.approx([0.4 / FRAMES, 0.0, 0.2 / FRAMES], abs=1e-6)
    assert [e.value for e in held.first.rmse] == pytest.approx([0.4 / FRAMES**0.5, 0.0, 0.2 / FRAMES**0.5], abs=1e-6)
    assert held.within.value == pytest.approx(1 - 1 / FRAMES)
    assert by_name(report)["majority"].first.mae[0].value == pytest.approx(0.02, abs=1e-6)  # the cell around 0.42
    assert [e.value for e in by_name(report)["constant"].chunk.mae] == pytest.approx([0.0] * 3, abs=1e-6)


def test_a_constant_offset_is_found_by_axis_and_in_its_unit(tmp_path: Path) -> None:
    chunks = make_chunks(noise=0.01)
    offset = np.array([0.05, -0.02, 0.35], np.float32)  # the last is beyond a tenth of the range
    report = offline_errors(RecallPolicy(chunks + offset), recorded(tmp_path / "data", chunks), "test")
    for figures in (report.policy.first.mae, report.policy.first.rmse, report.policy.chunk.mae):
        assert [e.value for e in figures] == pytest.approx([0.05, 0.02, 0.35], abs=1e-5)
    assert report.policy.within.value == 0.0


def test_differences_are_drawn_in_pairs(tmp_path: Path) -> None:
    """Where every episode is a little better by the same amount, the difference is sure though the errors are not."""
    chunks = make_chunks(noise=0.0)
    chunks[..., 0] += np.linspace(-0.2, 0.2, EPISODES, dtype=np.float32)[:, None, None]
    dataset = recorded(tmp_path / "data", chunks)
    constant = np.mean([chunks[number] for number in load_split(dataset).train], axis=(0, 1))

    class Nearly(RecallPolicy):
        """The truth, missed by nine tenths of what the constant misses it by."""

    missed = chunks + 0.9 * (constant - chunks)
    report = offline_errors(Nearly(missed.astype(np.float32)), dataset, "test")
    less = report.baselines.constant.policy_less_this.first.mae[0]
    theirs = report.baselines.constant.errors.first.mae[0]
    assert less.value == pytest.approx(report.policy.first.mae[0].value - theirs.value)
    assert less.low <= less.value <= less.high < 0
    assert less.high - less.low < 0.2 * (theirs.high - theirs.low)


def test_whose_instruction_is_alike_is_asked(tmp_path: Path) -> None:
    """Two ways to drive, known by their words alone; who hears the words is right, who does not is off."""
    chunks = make_chunks(noise=0.0)
    chunks[::2, ..., 1], chunks[1::2, ..., 1] = 0.3, -0.3
    dataset = recorded(tmp_path / "data", chunks, lambda number: f"pass on the {('left', 'right')[number % 2]}")
    report = offline_errors(SteadyPolicy(0.4, 0.0, 0.2), dataset, "test")
    errors = by_name(report)
    assert errors["nearest_instruction"].first.mae[1].value == pytest.approx(0.0, abs=1e-6)
    assert errors["constant"].first.mae[1].value > 0.2


class SeeingPolicy(SteadyPolicy):
    """Drives forward the faster the brighter the picture is."""

    def __init__(self) -> None:
        super().__init__(0.0, 0.0, 0.0)

    def step(self, observation: Observation, state: Any) -> Step:
        step = super().step(observation, state)
        velocities = np.zeros_like(step.chunk.velocities)
        velocities[:, 0] = observation.frame.pixels.mean() / 100
        return replace(step, chunk=ActionChunk(velocities, step.chunk.stamp_ns, step.chunk.rate_hz))


def test_each_frame_is_seen_in_its_turn_however_long_the_episode(tmp_path: Path) -> None:
    chunks = np.zeros((2, 50, CONTRACT.horizon, 3), np.float32)
    chunks[..., 0] = np.arange(50)[:, None] / 100  # the brightness of the picture is the number of the frame
    report = offline_errors(SeeingPolicy(), written(tmp_path / "data", chunks), "all")
    assert report.policy.first.mae[0].value < 0.005


def test_a_compact_policy_is_stepped_through(tmp_path: Path, checkpoint: Path) -> None:
    dataset = recorded(tmp_path / "data", make_chunks())
    report = offline_errors(load_policy(checkpoint), dataset, "validation", limit=2)
    assert (report.episodes, report.frames) == (2, 2 * FRAMES)
    assert any("drawn by lot" in remark for remark in report.remarks)
    assert any("too narrow" in remark for remark in report.remarks)
    assert report.policy.first.mae[0].value > by_name(report)["constant"].first.mae[0].value


def test_frames_without_a_label_do_not_count_and_later_rows_count_as_far_as_they_are_known(tmp_path: Path) -> None:
    """As recordings by hand: some episodes have no label, some frames none, some chunks end early."""
    chunks = make_chunks(noise=0.0)
    recall = RecallPolicy(chunks + np.float32(0.06))
    labels = chunks.copy()
    labels[::3] = np.nan
    labels[1::3, 0] = np.nan
    labels[1::3, -1, 3:] = np.nan
    report = offline_errors(recall, written(tmp_path / "data", labels), "all")
    assert report.left_out == EPISODES // 3
    assert report.episodes == EPISODES - report.left_out
    assert report.frames == EPISODES // 3 * (FRAMES - 1) + EPISODES // 3 * FRAMES
    assert [e.value for e in report.policy.first.mae] == pytest.approx([0.06] * 3, abs=1e-5)
    assert [e.value for e in report.policy.chunk.rmse] == pytest.approx([0.06] * 3, abs=1e-5)
    assert any(f"Left out: {EPISODES // 3} " in remark for remark in report.remarks)


def test_the_whole_is_judged_without_a_split_by_baselines_from_other_scenes(tmp_path: Path) -> None:
    """Each scene has its own velocity and is recorded twice: nobody may learn it from the twin."""
    chunks = make_chunks(noise=0.0)
    scenes = EPISODES // 2
    chunks[..., 0] = (np.linspace(-0.5, 0.5, scenes).repeat(2)[:, None, None]).astype(np.float32)
    dataset = written(
        tmp_path / "data", chunks, lambda number: f"scene {number // 2} take {number}", lambda number: number // 2
    )
    report = offline_errors(RecallPolicy(chunks), dataset, "all")
    assert (report.split_hash, report.episodes) == (None, EPISODES)
    assert any("others of other scenes" in remark for remark in report.remarks)
    # the mean of all others but the two of one's own scene, which is further off than the mean of all
    values = np.linspace(-0.5, 0.5, scenes)
    expected = np.mean([abs(value - np.delete(values, place).mean()) for place, value in enumerate(values)])
    assert report.baselines.constant.errors.first.mae[0].value == pytest.approx(expected, abs=1e-5)
    assert report.baselines.nearest_instruction.errors.first.mae[0].low > 0.03


def test_the_training_part_is_judged_by_others_too(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = recorded(tmp_path / "data", chunks)
    report = offline_errors(RecallPolicy(chunks), dataset, "train")
    assert report.episodes == len(load_split(dataset).train)
    assert report.split_hash == load_split(dataset).split_hash


def test_the_same_question_has_the_same_answer(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = written(tmp_path / "data", chunks)
    told: list[tuple[int, int]] = []
    first, second = (
        offline_errors(RecallPolicy(chunks), dataset, "all", 12, lambda done, total: told.append((done, total)))
        for _ in range(2)
    )
    assert first == second
    assert told[:13] == [(done, 12) for done in range(13)]


def test_a_result_cannot_be_made_without_all_its_baselines(tmp_path: Path) -> None:
    chunks = make_chunks()
    report = offline_errors(RecallPolicy(chunks), recorded(tmp_path / "data", chunks), "test")
    known: dict[str, Any] = dict(report.baselines)
    assert all(isinstance(baseline, Baseline) for baseline in known.values())
    for left_out in BASELINES:
        with pytest.raises(TypeError, match=left_out):
            Baselines(**{name: baseline for name, baseline in known.items() if name != left_out})
        with pytest.raises(TypeError, match=left_out):
            Baselines(**(known | {left_out: None}))
    values = {name: getattr(report, name) for name in OfflineReport.__dataclass_fields__}
    assert OfflineReport(**values) == report
    with pytest.raises(TypeError, match="baselines"):
        OfflineReport(**{name: value for name, value in values.items() if name != "baselines"})
    for other in (None, {}, known):
        with pytest.raises(TypeError, match="baselines"):
            OfflineReport(**(values | {"baselines": other}))


def test_nothing_to_judge_is_said(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=6)
    policy = RecallPolicy(chunks)
    unlabelled = recorded(tmp_path / "unlabelled", np.full_like(chunks, np.nan))
    for part in ("train", "all"):
        with pytest.raises(DatasetError, match="no frames that an expert or a person labelled"):
            offline_errors(policy, unlabelled, part)
    alone = written(tmp_path / "alone", chunks[:1])
    with pytest.raises(DatasetError, match="no labelled episode of another scene"):
        offline_errors(policy, alone, "all")
    with pytest.raises(DatasetError, match=r"there is no part 'exam'.*test, validation, train, all"):
        offline_errors(policy, alone, "exam")  # type: ignore[arg-type]
    undivided = written(tmp_path / "undivided", chunks)
    with pytest.raises(DatasetError, match=r"mobile-vla data split .*undivided`, or .* --part all"):
        offline_errors(policy, undivided, "test")


def test_an_empty_part_is_said(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=4)
    dataset = written(tmp_path / "data", chunks)
    make_split(dataset, (1.0, 0.0, 0.0))
    with pytest.raises(DatasetError, match=r"the test part of .* has no episodes"):
        offline_errors(RecallPolicy(chunks), dataset)


def test_a_policy_of_another_kind_is_refused(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = recorded(tmp_path / "data", chunks)
    policy = RecallPolicy(chunks)
    policy.contract = replace(CONTRACT, limits=(0.5, 0.5, 1.0))
    with pytest.raises(ContractMismatchError, match=r"limits.*the policy has"):
        offline_errors(policy, dataset)
    policy.contract = replace(CONTRACT, frame_rate_hz=10.0)
    with pytest.raises(ContractMismatchError, match=r"decides on 10 frames a second and .* holds 5"):
        offline_errors(policy, dataset)


def test_a_policy_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    chunks = make_chunks()
    dataset = recorded(tmp_path / "data", chunks)
    with pytest.raises(CheckpointError, match=r"actions at frame 0 of episode \d+ are not finite"):
        offline_errors(SteadyPolicy(float("nan"), 0.0, 0.0), dataset)

    class Short(SteadyPolicy):
        def step(self, observation: Observation, state: Any) -> Step:
            step = super().step(observation, state)
            short = ActionChunk(step.chunk.velocities[:2], step.chunk.stamp_ns, step.chunk.rate_hz)
            return replace(step, chunk=short)

    with pytest.raises(ContractMismatchError, match=r"shape \(2, 3\) where its own contract says \(8, 3\)"):
        offline_errors(Short(0.1, 0.0, 0.0), dataset)

    class Deaf(SteadyPolicy):
        def reset(self, instruction: Instruction) -> None:
            return super().reset(Instruction(" "))

    with pytest.raises(DatasetError, match=r"the instruction of episode \d+ .* is empty"):
        offline_errors(Deaf(0.1, 0.0, 0.0), dataset)


def rewritten(dataset: Dataset, index: int, column: str, values: pa.Array | None) -> Dataset:
    """As another tool might leave it: one column of an episode's file replaced, or dropped, and nobody told."""
    record = dataset.episode(index).record
    path = dataset.root / record.path
    content = pq.read_table(path)
    place = content.column_names.index(column)
    content = content.remove_column(place) if values is None else content.set_column(place, column, values)
    pq.write_table(content, path)
    return dataset


def test_recorded_actions_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=6)
    dataset = written(tmp_path / "data", chunks)
    actions = chunks[2, :, 0].copy()
    actions[3, 1] = np.nan
    held = pq.read_table(dataset.root / dataset.episode(2).record.path).schema.field(schema.ACTION).type
    rewritten(dataset, 2, schema.ACTION, pa.array(actions.tolist(), type=held))
    with pytest.raises(DatasetError, match=r"action at frame 3 of episode 2 .* is not finite .*data validate"):
        offline_errors(RecallPolicy(chunks), dataset, "all")


def test_a_missing_camera_is_named(tmp_path: Path) -> None:
    chunks = make_chunks(episodes=6)
    dataset = rewritten(written(tmp_path / "data", chunks), 1, schema.IMAGE_FRONT, None)
    with pytest.raises(DatasetError, match=r"episode 1 .*observation\.images\.front"):
        offline_errors(RecallPolicy(chunks), dataset, "all")
