"""The page of figures: what is exchanged in it, what is kept, and when a mark counts as reached."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import performance
import performance_page as page
from engine.bench.test_report import report, row

PAGE = Path(performance.__file__).parents[1] / "docs" / "performance.md"
STAMP = {"how": "Measured", "at": "2026", "machine": "M", "commit": "c", "versions": "v", "load": 0.2, "command": "x"}
prose = st.text("abc \n<!-|", max_size=40).filter(lambda text: "begin" not in text)


@given(prose, prose, prose, prose)
def test_a_region_is_exchanged_and_the_prose_is_kept(before: str, old: str, after: str, new: str) -> None:
    old = old.replace("-->", "")
    whole = f"{before}<!-- begin one -->\n{old}<!-- end one -->{after}<!-- begin two -->\n<!-- end two -->"
    made = page.with_regions(whole, {"one": new})
    assert (
        made
        == f"{before}<!-- begin one -->\n{new.rstrip()}\n<!-- end one -->{after}<!-- begin two -->\n<!-- end two -->"
    )
    assert page.with_regions(made, {"one": new}) == made


@pytest.mark.parametrize("text", ["", "<!-- begin one -->\n", 2 * "<!-- begin one -->\n<!-- end one -->\n"])
def test_a_page_without_the_region_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="regions called one, and needs one"):
        page.with_regions(text, {"one": ""})


def test_the_page_has_every_region_once() -> None:
    names = set(re.findall("<!-- begin (.*) -->", PAGE.read_text()))
    assert names == set(page.regions({})) == {"marks", *performance.PARTS}
    page.with_regions(PAGE.read_text(), page.regions({}))


def timed(name: str, p50: float, p99: float, fault: str | None = "", **others: Any) -> dict[str, Any]:
    return {"name": name, "whole": {"p50_ms": p50, "p99_ms": p99}, "fault": fault, **others}


def state(records: dict[str, Any], what: str) -> tuple[str, str]:
    (row,) = [row for row in page.marks(records) if what in row[0]]
    return row[2], row[3]


def test_nothing_measured_reaches_nothing() -> None:
    rows = page.marks({})
    assert len(rows) == 10
    assert {row[3] for row in rows} == {"not measured", "not measured (needs a GPU)"}


@pytest.mark.parametrize(("p50", "p99", "wanted"), [(3.0, 6.0, "reached"), (3.01, 6.0, "missed"), (1.0, 6.1, "missed")])
def test_the_compact_mark_is_of_an_engine_within_its_tolerance(p50: float, p99: float, wanted: str) -> None:
    rows = [timed("torch fp32", 9.0, 9.0, None), timed("fast int8", 0.1, 0.1, "differs"), timed("good bf16", p50, p99)]
    found, judged = state({"compact": {"found": {"rows": rows}}}, "camera frame to command")
    assert "good bf16" in found
    assert wanted in judged


def test_the_engine_that_export_took_is_the_one_that_is_judged() -> None:
    rows = [timed("torch fp32", 9.0, 9.0, None), timed("good bf16", 1.0, 2.0)]
    records = {"compact": {"found": {"rows": rows}}, "export": {"found": {"engine": "torch", "precision": "fp32"}}}
    assert state(records, "camera frame to command") == ("9.00 / 9.00 ms (torch fp32)", "**missed**")


def ratio(side: str, against: str, value: float, threads: int = 1, camera: str = "192x96") -> dict[str, Any]:
    spread = {"ratio": value, "ratio_least": value - 1, "ratio_most": value + 1}
    work = f"camera frame {camera} to command"
    return {"threads": threads, "side": side, "work": work, "against": against, **spread}


def test_peers_are_judged_by_the_worst_ratio_of_the_exported_engine() -> None:
    found = [
        {"threads": 1, "side": "LeRobot's ACT", "work": "select_action", "p50_ms": 58.0},
        ratio("ours, shipped", "OpenVINO, bare, fp32", 0.1),
        ratio("ours, engine", "LeRobot's ACT, select_action, full forward", 16.0),
        ratio("ours, engine", "OpenVINO, bare, fp32", 1.2),
        ratio("ours, engine", "ONNX Runtime, bare, fp32", 0.95),
        ratio("ours, engine", "OpenVINO, bare, fp32", 0.2, threads=2),
        ratio("ours, engine", "OpenVINO, bare, fp32", 0.8, camera="640x480"),
    ]
    records = {"peers": {"found": found}}
    assert state(records, "bare on the same graph; frames of 192x96") == ("0.95 of ONNX Runtime, bare, fp32", "reached")
    assert state(records, "bare on the same graph; frames of 640x480")[1] == "**missed**"
    assert state(records, "LeRobot's ACT")[1] == "reached"


def on_gpu(name: str, engine_ms: float, held: float, **others: Any) -> dict[str, Any]:
    stages, memory = {"engine": {"p50_ms": engine_ms}}, {"device_deciding": held}
    return timed(name, engine_ms + 0.2, engine_ms + 1, stages=stages, memory=memory, engine_share=0.7, **others)


def test_marks_of_a_gpu_follow_from_its_runs() -> None:
    about = {"gpu": "an H200"}
    exact = timed("eager-cuda fp32", 4.0, 5.0, stages={}, memory={"device_deciding": 8e9})
    slower = on_gpu("cudagraph_compiled bf16", 9.0, 9e9)
    hybrid = [exact, slower, on_gpu("cudagraph bf16", 1.0, 3.9e9), on_gpu("cudagraph fp8", 1.0, 2.1e9)]
    runs = {
        page.HYBRID: {"about": about, "rows": hybrid},
        page.EIGHT: {"about": about, "rows": [on_gpu("cudagraph bf16", 8.0, 4e9)]},
        page.CLIP: {"about": about, "rows": [on_gpu("cudagraph bf16", 0.25, 4e8)]},
    }
    judged = {row[0]: row[3] for row in page.marks({"gpu": {"found": runs}})}
    assert judged["full-size hybrid (1.86 B), batch 1, bf16"] == "reached"
    assert judged["full-size hybrid (1.86 B), batch 1, fp8"] == "**missed**"  # too much memory
    assert judged["the same, batch 8, bf16"] == "reached"
    assert judged["the same, bf16 against fp32 eager"] == "reached"
    assert judged["`clip_lstm` (189 M), batch 1"] == "reached"


def test_the_control_loop_is_judged_where_it_is_busy() -> None:
    found = {
        "FIFO, idle: period error": {"p99": 9.0},
        "FIFO, two busy processes: step late by": {"p99": 9.0},
        "FIFO, two busy processes: period error": {"p99": 1.5},
    }
    assert state({"jitter": {"found": found}}, "50 Hz") == ("1.50 ms (FIFO)", "reached")


def test_what_cannot_be_measured_keeps_what_was_found_before() -> None:
    before = {"stamp": STAMP, "found": {"idle: late": {"p50": 1.0, "p99": 2.0, "max": 3.0, "times": 4}}}
    text = page.regions({"jitter": {**before, "why_not": "the machine is busy"}})["jitter"]
    assert "| idle: late | 1.00 | 2.00 | 3.00 | 4 |" in text
    assert "The last run did not measure this again: the machine is busy." in text
    assert "Measured 2026 on M; commit c" in text
    assert page.regions({"gpu": {"why_not": page.NO_GPU}})["gpu"] == "*Not measured: no GPU was at hand.*"


def test_one_command_measures_keeps_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text(PAGE.read_text())
    before = {"peers": {"stamp": STAMP, "found": [ratio("ours, e", "LeRobot's ACT, select_action", 20.0)]}}
    (tmp_path / "page.json").write_text(json.dumps(before))
    monkeypatch.setattr(performance, "PREDICTIONS", {"compact": {"orin-nx-16gb": ("fp16",)}})
    monkeypatch.setattr(
        sys, "argv", ["performance.py", "--only", "predicted", "peers", "--write", str(tmp_path / "page.md")]
    )
    performance.main()
    kept = json.loads((tmp_path / "page.json").read_text())
    assert kept["peers"]["found"] == before["peers"]["found"]
    assert "no environment with LeRobot" in kept["peers"]["why_not"]
    assert [row["kind"] for row in kept["predicted"]["found"]["rows"]] == ["compact"]
    written = (tmp_path / "page.md").read_text()
    assert "Predictions, nothing measured" in written
    assert "20.0x" in written
    assert "## How to read the figures" in written


def test_what_bench_reports_becomes_a_table() -> None:
    found = report(row(), row("openvino bf16", 0.75)).to_dict()
    records = {
        "compact": {"stamp": STAMP, "found": {**found, "plain": found}},
        "gpu": {"stamp": STAMP, "found": {"one": found}},
    }
    texts = page.regions(records)
    for text in (texts["compact"], texts["gpu"]):
        assert "| torch fp32 | 2.00 / 2.00 / 2.00 | 0.00 | 500 | 500 | 1,000 (4,000) |" in text
        assert "memory 12 GB/s, fp32 100 GFLOP/s, bf16 200 GFLOP/s" in text
        assert "load before 0.2: `x`" in text
    assert state(records, "camera frame to command")[0] == "2.00 / 2.00 ms (torch fp32)"  # the other was not compared


def test_the_other_parts_become_tables() -> None:
    peers = [{"threads": 1, "side": "ACT", "about": "a", "work": "w", "p50_ms": 58.5, "p90_ms": 60.0, "p99_ms": 75.0}]
    preprocess = [
        {"camera": "640x480", "size": "192x96", "way": "now", "levels": level, "p50_ms": 0.25, "p99_ms": 0.5}
        for level in (0.75, None)
    ]
    candidate = {"engine": "openvino", "precision": "bf16", "p50_ms": 1.25, "p99_ms": 2.0, "driven": {"text": "40/40"}}
    untimed = {"engine": "torch", "precision": "fp32", "p50_ms": None, "p99_ms": None, "driven": None}
    export = {
        "engine": "openvino", "precision": "bf16",
        "candidates": [{**candidate, "why_not": ""}, {**untimed, "why_not": "slow"}],
    }  # fmt: skip
    parts = {"peers": [*peers, ratio("ours", "ACT, w", 20.0)], "preprocess": preprocess, "export": export}
    texts = page.regions({name: {"stamp": STAMP, "found": found} for name, found in parts.items()})
    assert "| 1 | ACT (a) | w | 58.50 / 60.00 / 75.00 |" in texts["peers"]
    assert "| 1 | ours, camera frame 192x96 to command | ACT, w | 20.00 (19.00 to 21.00) |" in texts["peers"]
    assert "| 640x480 | 192x96 | now | 0.250 / 0.500 | 0.75 |" in texts["preprocess"]
    assert "Taken: **openvino bf16**" in texts["export"]
    assert "| openvino bf16 | 1.25 / 2.00 | 40/40 |  |" in texts["export"]
    assert "| torch fp32 |  |  | slow |" in texts["export"]
