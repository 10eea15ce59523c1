"""Comparison and timing, apart from any engine."""

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobile_vla.engine.jetson.build_engine.check import References, compare, exceeded, timed
from mobile_vla.engine.jetson.build_engine.cuda import BuildError

COUNT = 4


def kept(path: Path) -> Path:
    random = np.random.default_rng(0)
    np.savez(
        path,
        **{
            "input.pixels": random.integers(0, 256, (COUNT, 1, 2, 2, 3), np.uint8),
            "which.pixels": np.arange(COUNT),
            "input.words_0": random.standard_normal((2, 1, 5)).astype(np.float32),
            "which.words_0": np.array([0, 1, 1, 0]),
            "output.chunk": random.uniform(-1, 1, (COUNT, 1, 8, 3)).astype(np.float32),
            "output.status": random.standard_normal((COUNT, 1, 4)).astype(np.float32),
            "output.belief": random.standard_normal((COUNT, 1, 7)).astype(np.float32),
            "output.next_history": random.standard_normal((COUNT, 1, 6)).astype(np.float32),
        },
    )
    return path


class Parrot:
    """Says the references themselves, in order, with something added to one output."""

    def __init__(self, references: References, name: str = "chunk", added: float = 0.0) -> None:
        self._rows = [{each: values[place] for each, values in references.outputs.items()} for place in range(COUNT)]
        self._name, self._added, self.asked = name, added, list[Mapping[str, NDArray[Any]]]()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        row = self._rows[len(self.asked) % COUNT]
        self.asked.append(inputs)
        return {name: each + self._added if name == self._name else each for name, each in row.items()}


@pytest.fixture
def references(tmp_path: Path) -> References:
    return References(kept(tmp_path / "references.npz"))


def test_the_references_agree_with_themselves(references: References) -> None:
    parrot = Parrot(references)
    found = compare(parrot, references)
    assert found == {
        "chunk_worst": 0.0,
        "chunk_p99": 0.0,
        "chunk_cosine": pytest.approx(1.0),
        "status_equal": 1.0,
        "bearing_p99_rad": 0.0,
        "history_worst": 0.0,
    }
    assert np.array_equal(parrot.asked[1]["words_0"], parrot.asked[2]["words_0"])
    assert not np.array_equal(parrot.asked[0]["words_0"], parrot.asked[1]["words_0"])


@given(added=st.floats(0.001, 2.0))
def test_a_difference_is_found_where_it_is(tmp_path_factory: pytest.TempPathFactory, added: float) -> None:
    references = References(kept(tmp_path_factory.mktemp("kept") / "references.npz"))
    for name, found_as in (("chunk", "chunk_worst"), ("belief", "bearing_p99_rad"), ("next_history", "history_worst")):
        found = compare(Parrot(references, name, added), references)
        assert found.pop(found_as) == pytest.approx(added, rel=1e-3)
        if name != "chunk":
            assert found["chunk_worst"] == 0.0


def test_status_counts_decisions_that_say_another_word(references: References) -> None:
    turned = Parrot(references)
    turned._rows[2] = {**turned._rows[2], "status": -turned._rows[2]["status"]}
    assert compare(turned, references)["status_equal"] == 0.75


def test_answers_of_nothing_are_named(references: References) -> None:
    with pytest.raises(BuildError, match=r"the engine's belief is not finite: .* export it in fp32"):
        compare(Parrot(references, "belief", float("nan")), references)
    short = Parrot(references)
    short._rows = [{**row, "chunk": row["chunk"][:, :7]} for row in short._rows]
    with pytest.raises(BuildError, match=r"the engine's chunk is \(4, 1, 7, 3\), not \(4, 1, 8, 3\)"):
        compare(short, references)


def test_tolerances_have_a_side(references: References) -> None:
    found = {"chunk_worst": 0.02, "status_equal": 0.98}
    assert exceeded(found, {"chunk_worst": 0.02, "status_equal": 0.98}) == []
    assert exceeded(found, {"chunk_worst": 0.01, "status_equal": 0.99}) == [
        "chunk_worst is 0.02, allowed is at most 0.01",
        "status_equal is 0.98, allowed is at least 0.99",
    ]
    assert exceeded({"chunk_worst": float("nan")}, {"chunk_worst": 0.1})


def test_times_are_of_so_many_decisions_and_without_collections(references: References) -> None:
    collecting = []

    class Slow(Parrot):
        def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            collecting.append(gc.isenabled())
            return super().run(inputs)

    slow = Slow(references)
    found = timed(slow, references, 3, 20)
    assert len(slow.asked) == 23
    assert not any(collecting)
    assert gc.isenabled()
    steady = found["steady"]
    assert (found["warm_up"]["times"], steady["times"]) == (3, 20)
    assert 0 < steady["p50_ms"] <= steady["p90_ms"] <= steady["p99_ms"] <= steady["max_ms"]
    assert steady["jitter_ms"] == pytest.approx(steady["p99_ms"] - steady["p50_ms"])
    assert timed(slow, references, 0, 1)["warm_up"] is None
    json.dumps(found)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot be read"):
        References(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(BuildError, match="cannot be read"):
        References(tmp_path / "text.npz")
    np.savez(tmp_path / "empty.npz", **{"input.pixels": np.zeros(3)})
    with pytest.raises(BuildError, match="holds no references"):
        References(tmp_path / "empty.npz")
    np.savez(tmp_path / "object.npz", **{"output.chunk": np.array([{}], dtype=object)})
    with pytest.raises(BuildError, match="cannot be read"):
        References(tmp_path / "object.npz")
