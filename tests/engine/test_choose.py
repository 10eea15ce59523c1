"""The fastest that agrees and drives as well is taken, and what was passed over is told."""

from pathlib import Path

import pytest

from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.engine import agreement
from mobile_vla.engine import choose as choosing
from mobile_vla.engine.choose import Choice, Drive, Verdict, Wish, choose
from mobile_vla.engine.folder import is_engine, make_engine, open_engine, read_engine
from mobile_vla.policy.step import Inputs
from mobile_vla.policy.weights import SHIPPED

pytestmark = [pytest.mark.timeout(1800), pytest.mark.needs("mujoco")]

TWO = [("torch", "fp32"), ("torch", "bf16")]
AS_WELL = Verdict("40/40", "", {"change": 0.0})
WORSE = Verdict("20/40", "drives worse: 20 of 40", {"change": -0.5})


@pytest.fixture
def wish(real: list[Inputs], tmp_path: Path) -> Wish:
    return Wish(SHIPPED, tmp_path / "mine", (), real[::10])


def chosen(wish: Wish, drive: Drive | None = None, wanted: list[tuple[str, str]] | None = None) -> Choice:
    said: list[str] = []
    choice = choose(wish, drive, wanted or TWO, said.append)
    assert [text for text in said if text.startswith("making")] == [f"making {e} {p}" for e, p in wanted or TWO]
    assert is_engine(wish.out)
    manifest = read_engine(wish.out)
    assert (manifest.engine, manifest.precision) == (choice.taken.engine, choice.taken.precision)
    assert [each["engine"] for each in manifest.notes["export"]["candidates"]] == [row.engine for row in choice.rows]
    assert [each.name for each in wish.out.parent.iterdir()] == [wish.out.name]  # nothing else is left
    return choice


def test_the_fastest_is_taken_and_the_other_is_slower(wish: Wish) -> None:
    choice = chosen(wish)
    assert choice.taken is choice.rows[0]
    assert choice.rows[0].p50_ms is not None
    assert choice.rows[1].p50_ms is not None
    assert choice.rows[0].p50_ms <= choice.rows[1].p50_ms
    assert choice.rows[1].why_not == "slower"
    assert open_engine(wish.out).contract.horizon == 8


def test_one_that_drives_worse_is_listed_and_not_taken(wish: Wish) -> None:
    driven: list[str] = []

    def drive(folder: Path) -> Verdict:
        driven.append(read_engine(folder).precision)
        return WORSE if len(driven) == 1 else AS_WELL

    choice = chosen(wish, drive)
    assert [row.precision for row in choice.rows] == driven
    assert choice.rows[0].why_not == "drives worse: 20 of 40"
    assert choice.taken.precision == driven[1]
    assert choice.taken.driven == AS_WELL
    assert choice.to_dict()["candidates"][0]["driven"]["text"] == "20/40"


def test_slower_ones_than_what_is_taken_need_not_drive(wish: Wish) -> None:
    driven: list[Path] = []
    choice = chosen(wish, lambda folder: driven.append(folder) or AS_WELL)  # type: ignore[func-returns-value]
    assert len(driven) == 1
    assert choice.rows[1].driven is None


def test_one_that_does_not_agree_is_neither_timed_nor_driven(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    none = agreement.Tolerance(0.0, 0.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr(agreement, "TOLERANCES", {**agreement.TOLERANCES, "bf16": none})
    choice = chosen(wish, lambda folder: AS_WELL)
    assert choice.taken.precision == "fp32"
    assert choice.rows[1].p50_ms is None
    assert choice.rows[1].why_not.startswith("does not agree: actions differ by")


def test_a_single_wish_is_granted_with_its_faults_named(wish: Wish, monkeypatch: pytest.MonkeyPatch) -> None:
    none = agreement.Tolerance(0.0, 0.0, 1.0, 0.0, 0.0)
    monkeypatch.setattr(agreement, "TOLERANCES", {**agreement.TOLERANCES, "bf16": none})
    choice = chosen(wish, lambda folder: WORSE, [("torch", "bf16")])
    assert choice.taken.why_not.startswith("does not agree: ")
    assert choice.taken.why_not.endswith("; drives worse: 20 of 40")
    assert choice.taken.p50_ms is not None


def test_if_none_is_fit_nothing_is_made(wish: Wish) -> None:
    with pytest.raises(CheckpointError, match=r"no engine decides as the network does: torch \w+: drives worse"):
        choose(wish, lambda folder: WORSE, TWO)
    assert list(wish.out.parent.iterdir()) == []


def test_an_engine_gives_way_and_anything_else_does_not(wish: Wish) -> None:
    make_engine(SHIPPED, wish.out, "torch", "fp32", notes={"old": True})
    chosen(wish, wanted=[("torch", "bf16")])
    assert "old" not in read_engine(wish.out).notes
    other = wish.out.parent / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("1")
    with pytest.raises(ConfigError, match=r"thesis holds something that is no engine: choose another folder"):
        choose(Wish(SHIPPED, other, (), wish.compared), wanted=TWO)
    assert (other / "chapter.txt").read_text() == "1"


def test_what_is_not_installed_or_not_to_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        if name == "openvino":
            raise ConfigError("the engine openvino needs openvino, which is not installed here")
        return choosing_backend(name)

    choosing_backend = choosing.backend
    monkeypatch.setattr(choosing, "backend", missing)
    tried, absent = choosing._candidates(None)
    assert ("torch", "fp32") in [(row.engine, row.precision) for row in tried]
    assert "openvino" not in [row.engine for row in tried]
    assert "not installed here" in next(row.why_not for row in absent if row.engine == "openvino")


def test_a_wish_that_cannot_be_granted_is_refused(wish: Wish) -> None:
    with pytest.raises(ConfigError, match="has no precision 'int8'"):
        choose(wish, wanted=[("torch", "int8")])
    assert not wish.out.exists()
