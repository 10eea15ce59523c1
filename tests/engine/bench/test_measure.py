"""A whole run over a small policy, and what is refused before one."""

import json
import math
from pathlib import Path

import pytest
import torch

from engine.small import SLIM, checkpoint, network
from mobile_vla.core import ConfigError
from mobile_vla.engine.agreement import Agreement
from mobile_vla.engine.bench import measure as bench_module
from mobile_vla.engine.bench.measure import BenchConfig, Target, bench, subjects
from mobile_vla.engine.bench.report import Report, draw, words
from mobile_vla.engine.bench.subject import Choice
from mobile_vla.engine.folder import count_parameters, make_engine
from mobile_vla.policy.step import Inputs, step_of
from mobile_vla.policy.weights import SHIPPED

CONFIG = BenchConfig(camera=(64, 48), batch=2, times=100)


def decisions(count: int) -> list[Inputs]:
    """Made up: what they are compared over does not matter here."""
    step, generator = step_of(network()), torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        example = step.example()
        pixels = torch.randint(0, 256, example.pixels.shape, dtype=torch.uint8, generator=generator)
        found.append(example._replace(pixels=pixels))
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two engines, two robots at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "_LIMIT_S", 0.2)
        folder = tmp_path_factory.mktemp("bench")
        target = Target(checkpoint(folder / "slim"))
        made = subjects(target, Choice((("torch", "bf16"),)), CONFIG, folder / "scratch", tuple, lambda text: None)
        said: list[str] = []
        found = bench(target, made, CONFIG, compared=decisions(6), tell=said.append)
        assert any("timing torch fp32, torch bf16" in each for each in said)
        return found


def test_float32_in_pytorch_is_among_what_is_compared(report: Report) -> None:
    assert [row.name for row in report.rows] == ["torch fp32", "torch bf16"]
    eager, other = report.rows
    assert eager.times_eager == 1.0
    assert other.times_eager == pytest.approx(eager.whole.p50_ms / other.whole.p50_ms)


def test_three_figures_follow_from_the_mean_time(report: Report) -> None:
    for row in report.rows:
        assert row.whole.times == CONFIG.times == len(row.samples_ms)
        assert row.rates.inferences == pytest.approx(1e3 / row.whole.mean_ms)
        assert row.rates.frames == pytest.approx(2 * row.rates.inferences)
        assert row.rates.actions == pytest.approx(2 * row.rates.frames)  # 10 Hz of rows, 5 Hz of frames
        assert row.rates.rows_given == pytest.approx(8 * row.rates.frames)
        assert row.whole.p50_ms <= row.whole.p90_ms <= row.whole.p99_ms


def test_shares_are_of_a_floor_that_was_counted(report: Report) -> None:
    step = step_of(network())
    for row in report.rows:
        count, floor = report.counts[row.precision], row.floor
        assert floor is not None
        assert row.whole_share is not None
        assert row.engine_share is not None
        assert count.parameters == count_parameters(step)
        assert count.weight_bytes == pytest.approx(
            count_parameters(step) * {"fp32": 4, "bf16": 2}[row.precision], rel=1e-3
        )
        assert row.whole_share == pytest.approx(floor.seconds * 1e3 / row.whole.p50_ms)
        assert 0 < row.whole_share < row.engine_share
        assert math.isclose(floor.arithmetic_s, count.flops / report.limits["cpu"].matrix_flops_per_s[row.precision])


def test_others_than_float32_say_how_their_actions_differ(report: Report) -> None:
    eager, other = report.rows
    assert eager.agreement is None
    assert isinstance(other.agreement, Agreement)
    assert other.agreement.decisions == 6
    assert 0 < other.agreement.share_worst < 0.1


def test_the_memory_is_each_ones_own(report: Report) -> None:
    for row in report.rows:
        assert row.memory is not None
        assert row.memory.opening > row.memory.before > 0
        assert row.open_s > 0
        assert row.first_ms > 0


def test_the_report_says_how_it_came_about(report: Report) -> None:
    about, text = report.about, words(report)
    assert about["parameters"] == sum(each.numel() for each in network().parameters())
    for part in (
        "64x48", "2 robots at once", "1 CPU thread", "100 times each", "torch ", about["machine"],
        about["at"], "load before", "of the limit", "torch bf16", f"{about['parameters']:,} parameters", "cosine",
        "GFLOP",
    ):  # fmt: skip
        assert part in text
    assert "RANDOM" not in text


@pytest.mark.needs("matplotlib")
def test_the_report_is_plain_values_and_pictures(report: Report, tmp_path: Path) -> None:
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["rows"][1]["whole"]["p99_ms"] == report.rows[1].whole.p99_ms
    assert values["limits"]["cpu"]["measured"] is True
    files = draw(report, tmp_path / "out")
    assert [file.name for file in files] == ["latency.png", "roofline_cpu.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"camera": (0, 480)}, "no camera gives pictures of 0x480"),
        ({"camera": (640, 100_000)}, "no camera gives pictures of 640x100000"),
        ({"times": 99}, "99 times make no p99: choose at least 100"),
        ({"batch": 0}, "a batch of 0 decides nothing"),
        ({"threads": 10_000}, r"10000 threads on \d+ logical cores: choose 1 to \d+"),
    ],
)
def test_what_measures_nothing_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        BenchConfig(**values)  # type: ignore[arg-type]


def test_a_checkpoint_alone_is_timed_as_it_drives(tmp_path: Path) -> None:
    made = subjects(Target(SHIPPED), Choice(()), BenchConfig(), tmp_path, tuple, lambda text: None)
    assert [(each.name, each.folder) for each in made] == [("checkpoint fp32", str(SHIPPED))]


def test_an_engine_is_timed_beside_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    make_engine(checkpoint(tmp_path / "slim", SLIM), folder, "torch", "bf16", 2)
    target = Target(folder)
    made = subjects(target, Choice(()), CONFIG, tmp_path / "scratch", tuple, lambda text: None)
    assert [each.name for each in made] == ["torch fp32", "torch bf16"]
    assert made[1].folder == str(folder)
    with pytest.raises(ConfigError, match=r"decides for 2 robots at once, not for 3: .*--batch 3"):
        subjects(target, Choice(()), BenchConfig(batch=3), tmp_path / "scratch", tuple, lambda text: None)


def test_random_weights_bring_no_float32_that_was_not_asked_for(tmp_path: Path) -> None:
    choice = Choice((("torch", "bf16"),))
    made = subjects(Target(random="clip_lstm"), choice, CONFIG, tmp_path, tuple, lambda text: None)
    assert [(each.name, each.random, each.folder) for each in made] == [("torch bf16", "clip_lstm", "")]
