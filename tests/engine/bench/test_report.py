"""The words around a figure: what was timed, on what, and whether it can be believed."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.engine.bench.counting import Count
from mobile_vla.engine.bench.report import Driving, Rates, Report, Row, aligned, words
from mobile_vla.engine.bench.roofline import Device, Floor
from mobile_vla.engine.bench.subject import Footprint, LeftOut
from mobile_vla.engine.bench.timing import latency

ABOUT = {
    "policy": "runs/best", "weights": "ab" * 32, "random": False, "kind": "compact", "parameters": 1_608_386,
    "camera": "640x480", "pictures": "the simulator", "batch": 1, "threads": 1, "times": 500, "warm_up": 30,
    "machine": "Linux, a processor", "gpu": "", "versions": {"torch": "2.13"}, "commit": "f00", "at": "2026-11-23",
    "load": 0.1,
}  # fmt: skip
CPU = Device("a processor", "cpu", 1, 12e9, None, {"fp32": 100e9, "bf16": 200e9}, True, None, None)
COUNT = Count(1_600_000, 277_000_000, 6_400_000, 9_000_000, 60_000)
FLOOR = Floor(0.001, "arithmetic", 0.0005, 0.001)


def row(name: str = "torch fp32", p50_ms: float = 2.0, **others: object) -> Row:
    spent = latency([round(p50_ms * 1e6)] * 5)
    values = {
        "name": name, "device": "cpu", "precision": "fp32", "open_s": 0.1, "first_ms": 9.0, "warm_up": spent,
        "whole": spent, "stages": {"engine": spent}, "fit": spent, "rates": Rates(500.0, 500.0, 1000.0, 4000.0),
        "floor": FLOOR, "whole_share": FLOOR.share(p50_ms * 1e-3), "engine_share": None, "times_eager": None,
        "memory": None, "samples_ms": (p50_ms,) * 5,
    }  # fmt: skip
    return Row(**{**values, **others})  # type: ignore[arg-type]


def report(*rows: Row, **about: object) -> Report:
    return Report({**ABOUT, **about}, {"fp32": COUNT, "bf16": COUNT}, {"cpu": CPU}, rows)


def row_of(said: str) -> str:
    return next(each for each in said.splitlines() if each.startswith("torch fp32 "))


def test_random_weights_and_a_busy_machine_are_named() -> None:
    plain = words(report(row()))
    assert "abababababababab" in plain
    assert "RANDOM" not in plain
    assert "other work" not in plain
    assert "RANDOM WEIGHTS, true sizes" in words(report(row(), random=True, weights=None))
    assert "load before the run 3.0\nother work runs on this machine" in words(report(row(), load=3.0))


def test_shares_stand_beside_the_figures_and_one_above_the_limit_is_doubted() -> None:
    assert "50%" in words(report(row()))
    assert "above the limit" not in words(report(row()))
    assert "torch fp32 came out above the limit, which cannot be" in words(report(row(p50_ms=0.9)))


def test_a_row_without_a_floor_or_an_engine_apart_has_dashes() -> None:
    line = row_of(words(report(row(floor=None, whole_share=None))))
    assert line.split()[-5:] == ["-"] * 5


def test_memory_is_that_of_the_device_where_there_is_one() -> None:
    mebibyte = 2**20
    on_cpu = Footprint(100 * mebibyte, 400 * mebibyte, 300 * mebibyte, None, None)
    on_gpu = replace(on_cpu, device_opening=9000 * mebibyte, device_deciding=8000 * mebibyte)
    said = words(report(row(memory=on_cpu)))
    assert "process 300 MiB, of which 100 before it was opened, at most 400 while opening" in said
    assert row_of(said).endswith("300")
    said = words(report(row(memory=on_gpu)))
    assert row_of(said).endswith("8,000")
    assert "device 8,000 MiB, 9,000 while opening" in said


@pytest.mark.parametrize(
    ("fault", "verdict"), [("", "within its tolerance"), ("drives worse", "OUT OF TOLERANCE: drives worse")]
)
def test_driving_has_a_verdict(fault: str, verdict: str) -> None:
    found = report(row(), row("openvino bf16")).with_driving({"openvino bf16": Driving({"won": 3}, "3/4", fault)})
    assert f"openvino bf16 drives: 3/4; {verdict}" in words(found)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["rows"][1]["driving"]["figures"] == {"won": 3}
    assert values["rows"][0]["driving"] is None
    assert "samples_ms" not in values["rows"][0]


def test_what_was_left_out_says_why() -> None:
    found = replace(
        report(row()), left_out=(LeftOut("cudagraph", "fp8", "no GPU"), LeftOut("tensorrt", "", "no library"))
    )
    assert words(found).endswith("left out: cudagraph fp8 (no GPU)\nleft out: tensorrt (no library)")


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.text("ab1", max_size=9), min_size=n, max_size=n), min_size=1)
    )
)
def test_columns_stand_below_one_another(cells: list[list[str]]) -> None:
    lines = aligned([[f"x{cell}" for cell in line] + ["|"] for line in cells])
    assert len({line.index("|") for line in lines}) == 1
