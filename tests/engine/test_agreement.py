"""The measure itself, and all engines of the CPU by it, on what the shipped policy really met."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.conftest import FRAMES
from engine.cpu import Graph, opened
from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.engine.agreement import TOLERANCES, Agreement, Answers, agreement, answers
from mobile_vla.engine.backends import backend
from mobile_vla.policy.step import Inputs

pytestmark = pytest.mark.timeout(1800)  # graphs are made and compiled once, however busy the machine

CONTRACT = ActionContract()
ENGINES = [
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("compile", "fp32"),
    ("compile", "bf16"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
]


def some_answers(count: int = 20, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)
    parts = rng.uniform(-0.8, 0.8, (count, 8, 3)), rng.normal(size=(count, 4)), rng.uniform(0.6, 1, (count, 7))
    return Answers(*(part.astype(np.float32) for part in parts))


def found(wanted: Answers, other: Answers) -> Agreement:
    return agreement(wanted, other, CONTRACT)


def test_the_same_answers_agree_in_every_precision() -> None:
    same = found(some_answers(), some_answers())
    assert (same.decisions, same.moving, same.seen) == (20, 20, 20)
    assert same.cosine == pytest.approx(1.0)
    assert same.chunk.worst == (0.0, 0.0, 0.0)
    assert same.status_equal == 1.0
    assert [same.within(precision) for precision in TOLERANCES] == [None] * len(TOLERANCES)


@given(
    st.integers(0, 19), st.integers(0, 7), st.integers(0, 2), st.floats(0.001, 0.15), st.integers(0, 3), st.booleans()
)
def test_a_difference_is_found_where_it_is_in_its_unit(
    decision: int, row: int, axis: int, share: float, seed: int, up: bool
) -> None:
    wanted = some_answers(seed=seed)
    chunk = wanted.chunk.copy()
    chunk[decision, row, axis] += share if up else -share
    seen = found(wanted, wanted._replace(chunk=chunk))
    physical = share * CONTRACT.limits[axis]
    assert seen.chunk.worst[axis] == pytest.approx(physical, rel=1e-3)
    assert sum(seen.chunk.worst) == seen.chunk.worst[axis]
    assert seen.first.worst[axis] == (seen.chunk.worst[axis] if row < CONTRACT.rows_per_frame else 0.0)
    assert seen.share_worst == pytest.approx(share, rel=1e-3)
    said = seen.within("int8")
    assert (said is not None and "at worst" in said) == (seen.share_worst > TOLERANCES["int8"].worst)
    assert "at worst" in str(seen.within("fp32"))


def test_each_kind_of_difference_is_named() -> None:
    wanted = some_answers()
    status, belief = wanted.status.copy(), wanted.belief.copy()
    status[:5] = -status[:5]
    belief[:, 5] += 1.0
    belief[:, 6] -= 0.5
    said = found(wanted, Answers(wanted.chunk, status, belief)).within("int8")
    assert said is not None
    assert "the bearing differs by 0.5 rad" in said
    assert "the distance differs by 1 m" in said
    assert "the status differs in" in said
    assert "actions" not in said


def test_beliefs_of_what_is_not_seen_do_not_count_and_numbers_that_are_none_do() -> None:
    wanted = some_answers()
    unseen = wanted.belief.copy()
    unseen[:, 0] = 0.1
    off = unseen.copy()
    off[:, 5:] += 3.0
    blind = found(wanted._replace(belief=unseen), wanted._replace(belief=off))
    assert (blind.seen, blind.distance_m, blind.within("fp32")) == (0, 0.0, None)
    broken = wanted.chunk.copy()
    broken[3, 0, 0] = np.nan
    assert found(wanted, wanted._replace(chunk=broken)).within("int8")


def test_still_chunks_have_no_direction() -> None:
    wanted = some_answers()
    still = wanted._replace(chunk=wanted.chunk * 1e-3)
    turned = found(still, still._replace(chunk=-still.chunk))
    assert (turned.moving, turned.cosine, turned.cosine_worst) == (0, 1.0, 1.0)


def test_a_precision_without_a_tolerance_is_refused() -> None:
    same = found(some_answers(), some_answers())
    with pytest.raises(ConfigError, match="no tolerance is stated for 'fp7': choose among fp32, bf16"):
        same.within("fp7")
    assert replace(same, share_p99=1.0).to_dict()["share_p99"] == 1.0


@pytest.mark.needs("mujoco")
@pytest.mark.needs("onnxruntime")
@pytest.mark.needs("openvino")
@pytest.mark.parametrize(("engine", "precision"), ENGINES)
def test_every_engine_of_the_cpu_agrees_on_real_frames(
    engine: str, precision: str, real: list[Inputs], exact: Answers, graph: Graph, tmp_path: Path
) -> None:
    reason = backend(engine).unusable(precision)
    if reason:  # where a processor has no bfloat16, that is what has to be said
        assert "bfloat16" in reason
        return
    runs = opened(engine, precision, graph, tmp_path)
    seen = agreement(exact, answers(runs, real), CONTRACT)
    runs.close()
    assert seen.decisions == FRAMES
    assert seen.moving > FRAMES / 2
    assert seen.seen > FRAMES / 4
    assert seen.within(precision) is None, seen
    assert seen.cosine > (0.999 if precision == "int8" else 0.9999)


@pytest.mark.needs("mujoco")
@pytest.mark.needs("onnxruntime")
@pytest.mark.needs("openvino")
@pytest.mark.parametrize(("engine", "precision"), [each for each in ENGINES if each[0] in ("onnxruntime", "openvino")])
def test_four_at_once_are_decided_as_one_by_one(
    engine: str, precision: str, real: list[Inputs], graph: Graph, tmp_path: Path
) -> None:
    if backend(engine).unusable(precision):
        return
    some = real[::5][:30]  # the last batch is not full
    together = opened(engine, precision, graph, tmp_path / "four", sessions=4)
    alone = opened(engine, precision, graph, tmp_path / "one")
    seen = agreement(answers(alone, some), answers(together, some), CONTRACT)
    assert seen.within("fp32" if precision == "fp32" else "bf16") is None, seen
