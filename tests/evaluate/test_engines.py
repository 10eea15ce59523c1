"""An engine against the network it was made from, on the same drives."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, Mode
from mobile_vla.engine.folder import make_engine
from mobile_vla.engine.inputs import FIRST_TAUGHT_SEED, driven_inputs
from mobile_vla.evaluate.engines import TOLERANCE, Driven, paired, scenes, successes
from mobile_vla.evaluate.plan import FIRST_TRAINED_SEED, GROUPS
from mobile_vla.policy.weights import SHIPPED

pytestmark = pytest.mark.timeout(1800)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_change_lies_in_its_interval_and_turns_with_the_sides(pairs: list[tuple[bool, bool]]) -> None:
    exact, engine = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    driven, turned = Driven.of(exact, engine), Driven.of(engine, exact)
    low, high = driven.interval
    assert driven.change == pytest.approx((sum(engine) - sum(exact)) / len(pairs))
    assert -1.0 <= low <= high <= 1.0
    assert turned.change == pytest.approx(-driven.change)
    assert turned.interval == pytest.approx((-high, -low))
    assert (driven.worse() is None) == (driven.change >= -TOLERANCE - 1e-9)


def test_what_is_lost_beyond_the_tolerance_is_worse() -> None:
    exact = [True] * 36 + [False] * 4
    two_lost = [False] * 2 + exact[2:]
    three_lost = [False] * 3 + exact[3:]
    one_won_back = [*three_lost[:-1], True]
    assert Driven.of(exact, exact).worse() is None
    assert Driven.of(exact, two_lost).worse() is None
    assert Driven.of(exact, one_won_back).worse() is None
    said = Driven.of(exact, three_lost).worse()
    assert said == ("drives worse: 33 of 40 succeed, 36 in float32; 3 lost and 0 won, at most 5% net are allowed")
    figures = Driven.of(exact, one_won_back).to_dict()
    assert figures["paired"]["only_first"] == 3
    assert figures["paired"]["only_second"] == 1
    assert figures["change"] == pytest.approx(-0.05)
    assert figures["low"] < figures["change"] < figures["high"]
    assert str(Driven.of(exact, one_won_back)).startswith("34/40 succeed, 36 in float32 (3 lost, 1 won; -5 % [")


def test_other_numbers_of_drives_are_an_error() -> None:
    with pytest.raises(ValueError):
        Driven.of([True], [True, False])


@pytest.mark.parametrize("count", [1, 5, 12])
def test_groups_of_held_out_scenes_take_turns(count: int) -> None:
    planned = scenes(count, 40)
    assert len(planned) == len(set(planned)) == count
    assert {each.group for each in planned} == set(list(GROUPS)[:count])
    assert all(40 <= each.seed < FIRST_TRAINED_SEED for each in planned)


def test_no_drives_show_nothing() -> None:
    with pytest.raises(ConfigError, match="0 drives show nothing"):
        scenes(0)


def test_the_seeds_of_calibration_are_those_of_training() -> None:
    assert FIRST_TAUGHT_SEED == FIRST_TRAINED_SEED


def test_the_same_arithmetic_drives_the_same(checkpoint: Path, tmp_path: Path) -> None:
    make_engine(checkpoint, tmp_path / "engine", "torch", "fp32")
    told: list[tuple[int, int]] = []
    driven = paired(checkpoint, tmp_path / "engine", 2, advance=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert driven.exact == driven.engine
    assert driven.change == 0.0


@pytest.mark.needs("onnxruntime")
@pytest.mark.needs("openvino")
def test_an_export_in_bytes_drives_to_its_targets(tmp_path: Path) -> None:
    make_engine(
        SHIPPED, tmp_path / "engine", "openvino", "int8", calibration=driven_inputs(SHIPPED, 32, FIRST_TAUGHT_SEED)
    )
    routes = [each for each in scenes(20) if each.group == "routes"]
    assert all(each.goal.mode is Mode.GO for each in routes)
    won = successes(tmp_path / "engine", routes)
    assert len(won) == 4
    assert sum(won) >= 3
