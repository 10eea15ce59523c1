"""The measured parts of docs/performance.md, made of what ``performance.py`` wrote down. Nothing is measured here."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
"""Of one part: ``stamp`` (when, where, which commit) and ``found``; or ``why_not`` it was never measured."""

EXACT = "torch fp32"
NO_GPU = "no GPU was at hand"
HYBRID, EIGHT, CLIP = "kosmos_clip, one robot", "kosmos_clip, eight robots", "clip_lstm, one robot"
"""Runs of the part "gpu"."""


def with_regions(page: str, texts: Mapping[str, str]) -> str:
    """The page with what stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` exchanged, and no more.

    ValueError where a region is not there exactly once.
    """
    for name, text in texts.items():
        pattern = re.compile(rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
        parts = pattern.findall(page)
        if len(parts) != 1:
            raise ValueError(f"the page has {len(parts)} regions called {name}, and needs one")
        page = pattern.sub(lambda found, text=text: f"{found[1]}{text.rstrip()}\n{found[2]}", page)
    return page


def regions(records: Mapping[str, Record]) -> dict[str, str]:
    """All of them, by name."""
    made = {name: _stamped(records.get(name, {}), write) for name, write in _WRITERS.items()}
    return {"marks": "\n".join(table(("what", "mark", "found", "state"), marks(records))), **made}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _stamped(record: Record, write: Callable[[Any], Iterator[str]]) -> str:
    if "found" not in record:
        return f"*Not measured: {record['why_not']}.*" if "why_not" in record else "*Not measured yet.*"
    stamp = record["stamp"]
    lines = [*write(record["found"]), ""]
    lines.append(f"{stamp['how']} {stamp['at']} on {stamp['machine']}; commit {stamp['commit']}; {stamp['versions']}; "
                 f"load before {stamp['load']:.1f}: `{stamp['command']}`.")  # fmt: skip
    if "why_not" in record:
        lines.append(f"The last run did not measure this again: {record['why_not']}.")
    return "\n".join(lines)


# the marks


def marks(records: Mapping[str, Record]) -> list[tuple[str, str, str, str]]:
    """A row for each mark of the issue: what, the mark, what was found, and whether it holds."""
    return [*_compact_marks(records), *_peer_marks(records), *_gpu_marks(records), _jitter_mark(records)]


def _found(records: Mapping[str, Record], part: str) -> Any:
    return records.get(part, {}).get("found")


def _state(holds: bool | None, otherwise: str = "not measured") -> str:
    return otherwise if holds is None else "reached" if holds else "**missed**"


def offered(records: Mapping[str, Record]) -> str | None:
    """The engine that ``mobile-vla export`` took, else the fastest whose actions are within its tolerance."""
    if export := _found(records, "export"):
        return f"{export['engine']} {export['precision']}"
    bench = _found(records, "compact")
    if not bench:
        return None
    fit = [row for row in bench["rows"] if row["name"] == EXACT or row["fault"] == ""]
    return str(min(fit, key=lambda row: row["whole"]["p50_ms"])["name"])


def _row(bench: Any, name: str | None) -> Any:
    return next((row for row in bench["rows"] if row["name"] == name), None) if bench else None


CAMERAS = {"192x96": "frames of 192x96, as the network sees", "640x480": "frames of 640x480, resized by ours alone"}
"""Of which the marks speak; the table of the peers has more."""


def _compact_marks(records: Mapping[str, Record]) -> Iterator[tuple[str, str, str, str]]:
    what = "compact policy, camera frame to command, one thread"
    row = _row(_found(records, "compact"), offered(records))
    if row is None:
        yield what, "p50 ≤ 3 ms, p99 ≤ 6 ms", "", "not measured"
        return
    p50, p99 = row["whole"]["p50_ms"], row["whole"]["p99_ms"]
    yield what, "p50 ≤ 3 ms, p99 ≤ 6 ms", f"{p50:.2f} / {p99:.2f} ms ({row['name']})", _state(p50 <= 3 and p99 <= 6)


def _peer_marks(records: Mapping[str, Record]) -> Iterator[tuple[str, str, str, str]]:
    found = _found(records, "peers") or []
    ours = [row for row in found if "ratio" in row and row["threads"] == 1 and row["side"] == _exported_side(found)]
    bare = [row for row in ours if ", bare" in row["against"]]
    act = [row for row in ours if "select_action" in row["against"]]
    for camera, what in CAMERAS.items():
        seen = [row for row in bare if f" {camera} " in row["work"]]
        what = f"the same against the best of ONNX Runtime and OpenVINO, bare on the same graph; {what}"
        if not seen:
            yield what, "≥ 0.9 of their speed", "", "not measured"
            continue
        least = min(seen, key=lambda row: (row["ratio"], row["against"]))
        said = f"{least['ratio']:.2f} of {least['against']}"
        yield what, "≥ 0.9 of their speed", said, _state(least["ratio"] >= 0.9)
    what = "the same against LeRobot's ACT, `select_action` with a full forward"
    if not act:
        yield what, "≥ 15x lower latency", "", "not measured"
    else:
        least = min(act, key=lambda row: row["ratio"])
        said = f"{least['ratio']:.1f}x ({least['ratio_least']:.1f} to {least['ratio_most']:.1f}; {least['work']})"
        yield what, "≥ 15x lower latency", said, _state(least["ratio"] >= 15)


def _exported_side(found: Sequence[Any]) -> str | None:
    """The last of our own sides: the shipped checkpoint comes first, the exported engine after it."""
    sides = [row["side"] for row in found if "ratio" in row]
    return sides[-1] if sides else None


def _gpu_marks(records: Mapping[str, Record]) -> Iterator[tuple[str, str, str, str]]:
    runs = _found(records, "gpu") or {}
    device = next((run["about"]["gpu"] for run in runs.values()), "")
    on = f" ({device})" if device else ""
    hybrid, eight, clip = (runs.get(name) for name in (HYBRID, EIGHT, CLIP))
    exact, half, byte = _row(hybrid, "eager-cuda fp32"), _captured(hybrid, "bf16"), _captured(hybrid, "fp8")
    waits = "not measured (needs a GPU)"
    limits = {"bf16": "", "fp8": ""} | {
        row["precision"]: f"predicted: at most {1 / row['floor_s']:,.0f}/s"
        for row in (_found(records, "predicted") or {"rows": ()})["rows"]
        if row["kind"] == "kosmos_clip" and "H200" in row["device"]
    }
    name = "full-size hybrid (1.86 B), batch 1"
    rate = _rate(half)
    share = half["engine_share"] if half else None
    yield (
        f"{name}, bf16", "≥ 60 % of its roofline; on an H200 ≥ 715/s",
        f"{rate:,.0f}/s, {share:.0%}{on}" if rate and share else limits["bf16"],
        _state(share >= 0.6 if share else None, waits),
    )  # fmt: skip
    rate, held = _rate(byte), _held(byte)
    yield (
        f"{name}, fp8", "≥ 800/s on an H200, < 2 GB for weights and workspace",
        f"{rate:,.0f}/s, {held / 1e9:.2f} GB{on}" if rate and held else limits["fp8"],
        _state(rate >= 800 and held < 2e9 if rate and held else None, waits),
    )  # fmt: skip
    row = _captured(eight, "bf16")
    rate = 8 * (_rate(row) or 0.0)
    yield (
        "the same, batch 8, bf16", "≥ 766 frames/s on an H200", f"{rate:,.0f} frames/s{on}" if row else "",
        _state(rate >= 766 if row else None, waits),
    )  # fmt: skip
    faster = exact["whole"]["p50_ms"] / half["whole"]["p50_ms"] if exact and half else None
    before, after = _held(exact), _held(half)
    less = 1 - after / before if before and after else None
    yield (
        "the same, bf16 against fp32 eager", "≥ 1.9x faster, ≥ 49.8 % less memory",
        f"{faster:.2f}x, {less:.1%} less{on}" if faster and less else "",
        _state(faster >= 1.9 and less >= 0.498 if faster and less else None, waits),
    )  # fmt: skip
    rate = _rate(_captured(clip, "bf16"))
    yield (
        "`clip_lstm` (189 M), batch 1", "≥ 3,000/s on an H200", f"{rate:,.0f}/s{on}" if rate else "",
        _state(rate >= 3000 if rate else None, waits),
    )  # fmt: skip


def _captured(bench: Any, precision: str) -> Any:
    """The faster of the engines that run a decision as one CUDA graph."""
    rows = [row for row in bench["rows"] if row["name"].startswith("cudagraph")] if bench else []
    fit = [row for row in rows if row["name"].endswith(f" {precision}")]
    return min(fit, key=lambda row: row["stages"]["engine"]["p50_ms"], default=None)


def _rate(row: Any) -> float | None:
    """Decisions a second of the engine alone: what stands around it is the CPU's."""
    return 1e3 / row["stages"]["engine"]["p50_ms"] if row else None


def _held(row: Any) -> int | None:
    return row["memory"]["device_deciding"] if row and row["memory"] else None


def _jitter_mark(records: Mapping[str, Record]) -> tuple[str, str, str, str]:
    found = _found(records, "jitter")
    what, mark = "control at 50 Hz beside two busy processes, 2 cores", "p99 of the period error < 2 ms"
    busy = {name: row for name, row in (found or {}).items() if "busy" in name and "period error" in name}
    if not busy:
        return what, mark, "", "not measured"
    name, row = next(iter(busy.items()))
    return what, mark, f"{row['p99']:.2f} ms ({name.partition(',')[0]})", _state(row["p99"] < 2.0)


# the parts


def _bench(found: Any) -> Iterator[str]:
    about = found["about"]
    weights = "random weights of the true sizes" if about["random"] else f"weights {about['weights'][:16]}"
    threads = f"{about['threads']} thread{'s' if about['threads'] > 1 else ''}"
    yield (
        f"{about['kind']}, {about['parameters']:,} parameters, {weights}; camera {about['camera']}, {threads}, batch "
        f"{about['batch']}, {about['times']} times each, in turn."
    )
    for device in found["limits"].values():
        rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in device["matrix_flops_per_s"].items())
        cache = f", cache {device['cache_bytes_per_s'] / 1e9:,.0f} GB/s" if device["cache_bytes_per_s"] else ""
        yield f"Limits of {device['name']}: memory {device['copy_bytes_per_s'] / 1e9:,.0f} GB/s{cache}, {rates}."
    count = next(iter(found["counts"].values()))
    yield f"A call computes {count['flops'] / 1e9:,.3f} GFLOP."
    yield ""
    head = (
        "camera frame to command", "p50 / p90 / p99, ms", "jitter, ms", "inferences/s", "frames/s",
        "actions/s (rows given)", "engine alone, ms", "floor, ms", "of the limit: whole / engine", "x fp32 eager",
        "memory, MiB", "actions against fp32",
    )  # fmt: skip
    yield from table(head, [_bench_row(row) for row in found["rows"]])


def _bench_row(row: Any) -> tuple[str, ...]:
    whole, rates, engine, memory = row["whole"], row["rates"], row["stages"].get("engine"), row["memory"]
    return (
        row["name"],
        " / ".join(f"{whole[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")),
        f"{whole['jitter_ms']:.2f}",
        *(f"{rates[name]:,.0f}" for name in ("inferences", "frames")),
        f"{rates['actions']:,.0f} ({rates['rows_given']:,.0f})",
        f"{engine['p50_ms']:.2f}" if engine else "",
        f"{1e3 * row['floor']['seconds']:.3f}" if row["floor"] else "",
        " / ".join(f"{share:.0%}" for share in (row["whole_share"], row["engine_share"]) if share is not None),
        f"{row['times_eager']:.2f}" if row["times_eager"] else "",
        _memory(memory),
        _differs(row),
    )


def _memory(memory: Any) -> str:
    if memory is None:
        return ""
    if memory["device_deciding"] is not None:
        return f"{memory['device_deciding'] / 2**20:,.0f} on the device"
    return f"{memory['deciding'] / 2**20:,.0f} ({(memory['deciding'] - memory['before']) / 2**20:+,.0f})"


def _differs(row: Any) -> str:
    found = row["agreement"]
    if found is None:
        return ""
    worst = " ".join(f"{value:.2g}" for value in found["chunk"]["worst"])
    verdict = f"; **{row['fault']}**" if row["fault"] else ""
    return f"cosine {found['cosine']:.5f}; at worst {worst} ({', '.join(found['units'])}){verdict}"


def _compact(found: Any) -> Iterator[str]:
    yield from _bench(found)
    yield ""
    yield "Where the time goes, p50 / p99 in ms:"
    yield ""
    for row in [*found["rows"], *found["plain"]["rows"]]:
        spent = ", ".join(f"{name} {each['p50_ms']:.2f} / {each['p99_ms']:.2f}" for name, each in row["stages"].items())
        fit = row["fit"]
        yield f"- {row['name']}: {spent} (fit alone {fit['p50_ms']:.2f} / {fit['p99_ms']:.2f})"
    yield ""
    yield "![How long each call took](images/performance_latency.png)"
    yield "![The roofline of this processor](images/performance_roofline.png)"


def _export(found: Any) -> Iterator[str]:
    yield f"Taken: **{found['engine']} {found['precision']}**."
    yield ""
    rows = []
    for each in found["candidates"]:
        times = f"{each['p50_ms']:.2f} / {each['p99_ms']:.2f}" if each["p50_ms"] is not None else ""
        driven = each["driven"]["text"] if each["driven"] else ""
        rows.append((f"{each['engine']} {each['precision']}", times, driven, each["why_not"]))
    yield from table(("candidate", "p50 / p99, ms", "drives", "why not"), rows)


def _peers(found: Any) -> Iterator[str]:
    timed, compared = ([row for row in found if key in row] for key in ("p50_ms", "ratio"))
    yield from table(
        ("threads", "who", "what", "p50 / p90 / p99, ms"),
        [
            (str(row["threads"]), f"{row['side']} ({row['about']})", row["work"],
             " / ".join(f"{row[name]:.2f}" for name in ("p50_ms", "p90_ms", "p99_ms")))
            for row in timed
        ],
    )  # fmt: skip
    yield ""
    yield from table(
        ("threads", "ours", "against", "takes so many times as long as ours (over the rounds)"),
        [
            (str(row["threads"]), f"{row['side']}, {row['work']}", row["against"],
             f"{row['ratio']:.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})")
            for row in compared
        ],
    )  # fmt: skip


def _jitter(found: Any) -> Iterator[str]:
    rows = [
        (name, *(f"{row[key]:.2f}" for key in ("p50", "p99", "max")), str(row["times"])) for name, row in found.items()
    ]
    yield from table(("control step at 50 Hz", "p50, ms", "p99, ms", "max, ms", "steps"), rows)


def _preprocess(found: Any) -> Iterator[str]:
    rows = [
        (row["camera"], row["size"], row["way"], " / ".join(f"{row[name]:.3f}" for name in ("p50_ms", "p99_ms")),
         "" if row["levels"] is None else f"{row['levels']:.2f}")
        for row in found
    ]  # fmt: skip
    yield from table(("camera", "to", "way", "p50 / p99, ms", "grey levels off, at most"), rows)


def _gpu(found: Any) -> Iterator[str]:
    for name, run in found.items():
        yield f"**{name}**, on {run['about']['gpu']}"
        yield ""
        yield from _bench(run)
        yield ""


def _predicted(found: Any) -> Iterator[str]:
    yield "**Predictions, nothing measured**: floors from published figures. Nobody reaches a floor quite."
    yield ""
    rows = [
        (row["kind"], row["device"], row["precision"], f"{row['flops'] / 1e9:,.2f}", f"{row['bytes'] / 2**20:,.0f}",
         f"{1e3 * row['floor_s']:.2f}", f"{1 / row['floor_s']:,.0f}", row["bound_by"])
        for row in found["rows"]
    ]  # fmt: skip
    head = ("policy", "device", "precision", "GFLOP", "MiB read", "floor, ms", "at most a second", "bound by")
    yield from table(head, rows)
    yield ""
    for name, source in found["sources"].items():
        yield f"- {name}: {source}"


_WRITERS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "compact": _compact,
    "export": _export,
    "preprocess": _preprocess,
    "peers": _peers,
    "jitter": _jitter,
    "gpu": _gpu,
    "predicted": _predicted,
}
