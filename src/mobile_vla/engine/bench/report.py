"""What a bench found out: plain values, a table for a terminal, and two pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mobile_vla.engine.agreement import Agreement
from mobile_vla.engine.bench.counting import Count
from mobile_vla.engine.bench.pictures import Point, latency_picture, roofline_picture
from mobile_vla.engine.bench.roofline import Device, Floor
from mobile_vla.engine.bench.subject import Footprint, LeftOut
from mobile_vla.engine.bench.timing import Latency
from mobile_vla.engine.bench.way import ENGINE

LATENCIES, ROOFLINE = "latency.png", "roofline_{kind}.png"
BUSY = 0.5
"""A load before the run above which the figures are called too low."""


@dataclass(frozen=True)
class Rates:
    """A second. ``inferences``: calls of the network, a batch being one. ``frames``: distinct pictures decided on.

    ``actions``: rows of the chunks that a robot uses before the next picture; ``rows_given`` all that the chunks hold.
    """

    inferences: float
    frames: float
    actions: float
    rows_given: float


@dataclass(frozen=True)
class Driving:
    """On the same scenes as float32 in PyTorch: ``figures`` as plain values, ``said`` in words.

    ``fault`` is a clause where it drives worse than is tolerated, else empty.
    """

    figures: Mapping[str, Any]
    said: str
    fault: str


@dataclass(frozen=True)
class Row:
    """Of one engine in one precision. ``whole``: camera frame to command; ``stages`` by name, ``fit`` a picture alone.

    ``whole_share`` and ``engine_share`` are of the floor: 1 is the limit; None where no floor is known, or where the
    engine was not timed apart. ``times_eager``: how many times faster the whole way is than with PyTorch in float32.
    ``agreement`` and ``driving``: differences to PyTorch in float32, in actions and in the simulator; None where they
    were not looked at.
    """

    name: str
    device: str
    precision: str
    open_s: float
    first_ms: float
    warm_up: Latency
    whole: Latency
    stages: Mapping[str, Latency]
    fit: Latency
    rates: Rates
    floor: Floor | None
    whole_share: float | None
    engine_share: float | None
    times_eager: float | None
    memory: Footprint | None
    agreement: Agreement | None = None
    driving: Driving | None = None
    samples_ms: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Report:
    """``about`` says what was timed, how, on what and when; ``counts`` by precision; ``limits`` by kind of device."""

    about: Mapping[str, Any]
    counts: Mapping[str, Count]
    limits: Mapping[str, Device]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of the samples the percentiles alone.

        Of a row that was compared, ``fault`` is a clause where its actions exceed the tolerance, else empty.
        """
        rows = []
        for row in self.rows:
            values = asdict(replace(row, samples_ms=()))
            del values["samples_ms"]
            values["fault"] = row.agreement.within(row.precision) or "" if row.agreement else None
            rows.append(values)
        return {
            "about": dict(self.about),
            "counts": {name: count.to_dict() for name, count in self.counts.items()},
            "limits": {name: device.to_dict() for name, device in self.limits.items()},
            "rows": rows,
            "left_out": [asdict(each) for each in self.left_out],
        }

    def with_driving(self, found: Mapping[str, Driving]) -> "Report":
        """With what rows of these names did in the simulator."""
        rows = tuple(replace(row, driving=found.get(row.name, row.driving)) for row in self.rows)
        return replace(self, rows=rows)


def words(report: Report) -> str:
    """For a terminal."""
    return "\n".join([*_heading(report), "", *_table(report), "", *_stages(report), *_remarks(report)])


def draw(report: Report, folder: Path) -> list[Path]:
    """A histogram of all latencies and a roofline for each device, below ``folder``; gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / LATENCIES]
    latency_picture({row.name: row.samples_ms for row in report.rows}, files[0])
    for kind, device in report.limits.items():
        if points := list(_points(report, kind)):
            files.append(folder / ROOFLINE.format(kind=kind))
            roofline_picture(device, points, files[-1])
    return files


def _points(report: Report, kind: str) -> Iterator[Point]:
    for row in report.rows:
        if row.device == kind and row.floor is not None:
            count = report.counts[row.precision]
            spent = row.stages.get(ENGINE, row.whole).p50_ms * 1e-3
            yield Point(row.name, count.weight_bytes + count.io_bytes, count.flops, spent, row.precision)


def _heading(report: Report) -> Iterator[str]:
    about = report.about
    weights = "RANDOM WEIGHTS, true sizes" if about["random"] else f"weights {str(about['weights'])[:16]}"
    yield f"{about['kind']}, {about['parameters']:,} parameters, {weights}: {about['policy']}"
    robots = "one robot" if about["batch"] == 1 else f"{about['batch']} robots at once"
    yield (
        f"from a camera frame of {about['camera']} (of {about['pictures']}) through fit, policy, chunk queue and "
        f"safety to a command; {robots}"
    )
    yield (
        f"{about['threads']} CPU thread{'s' if about['threads'] > 1 else ''}; {about['times']} times each, in turn, "
        f"after {about['warm_up']} that warm up"
    )
    yield about["machine"]
    if about["gpu"]:
        yield about["gpu"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    yield f"{versions}; commit {about['commit'] or 'unknown'}; {about['at']}; load before the run {about['load']:.1f}"
    if about["load"] > BUSY:
        yield "other work runs on this machine: it could do better alone"
    for device in report.limits.values():
        rates = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in device.matrix_flops_per_s.items())
        cache = f", cache {device.cache_bytes_per_s / 1e9:,.0f} GB/s" if device.cache_bytes_per_s else ""
        yield (
            f"limits of {device.name}, measured now: memory {device.copy_bytes_per_s / 1e9:,.0f} GB/s{cache}; "
            f"{rates} GFLOP/s"
        )
    count = next(iter(report.counts.values()))
    yield f"a call computes {count.flops / 1e9:,.3f} GFLOP and reads at least " + ", ".join(
        f"{(each.weight_bytes + each.io_bytes) / 2**20:,.1f} MiB in {name}" for name, each in report.counts.items()
    )


def _table(report: Report) -> list[str]:
    head = (
        "camera frame to command", "p50", "p90", "p99", "jitter ms", "inferences/s", "frames/s", "actions/s",
        "(rows given)", "floor ms", "of the limit", "engine alone", "x eager", "MiB",
    )  # fmt: skip
    cells: list[Sequence[str]] = [head]
    for row in report.rows:
        whole, rates = row.whole, row.rates
        times = [f"{each:.2f}" for each in (whole.p50_ms, whole.p90_ms, whole.p99_ms, whole.jitter_ms)]
        figures = [f"{each:,.0f}" for each in (rates.inferences, rates.frames, rates.actions)]
        floor = "-" if row.floor is None else f"{1e3 * row.floor.seconds:.3f}"
        eager = "-" if row.times_eager is None else f"{row.times_eager:.2f}"
        shares = [_share(row.whole_share), _share(row.engine_share)]
        given = f"({rates.rows_given:,.0f})"
        cells.append((row.name, *times, *figures, given, floor, *shares, eager, _mebibytes(row)))
    return aligned(cells)


def _stages(report: Report) -> Iterator[str]:
    yield "of it, p50 / p99 in ms"
    for row in report.rows:
        spent = [f"{name} {each.p50_ms:.2f} / {each.p99_ms:.2f}" for name, each in row.stages.items()]
        yield f"  {row.name}: {', '.join(spent)} (fit alone {row.fit.p50_ms:.2f} / {row.fit.p99_ms:.2f})"
        yield (
            f"    ready in {row.open_s:.1f} s, the first decision took {row.first_ms:.1f} ms, warming up "
            f"{row.warm_up.p50_ms:.2f} / {row.warm_up.p99_ms:.2f}{_memory(row.memory)}"
        )


def _remarks(report: Report) -> Iterator[str]:
    if any(row.agreement or row.driving for row in report.rows):
        yield ""
    for row in report.rows:
        if row.agreement is not None:
            yield f"{row.name}: {_differs(row.agreement)}; {_verdict(row.agreement.within(row.precision))}"
        if row.driving is not None:
            yield f"{row.name} drives: {row.driving.said}; {_verdict(row.driving.fault)}"
    above = [row.name for row in report.rows if max(row.whole_share or 0.0, row.engine_share or 0.0) > 1.0]
    if above:
        yield (
            f"{', '.join(above)} came out above the limit, which cannot be: the limit was measured while other work "
            "ran; run it again on an idle machine"
        )
    for gone in report.left_out:
        yield f"left out: {gone.engine} {gone.precision}".rstrip() + f" ({gone.why})"


def aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table, the first column to the left and all others to the right."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in cells
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _mebibytes(row: Row) -> str:
    if row.memory is None:
        return "-"
    on_device = row.memory.device_deciding
    return f"{(row.memory.deciding if on_device is None else on_device) / 2**20:,.0f}"


def _memory(found: Footprint | None) -> str:
    if found is None:
        return ""
    parts = [f"process {found.deciding / 2**20:,.0f} MiB, of which {found.before / 2**20:,.0f} before it was opened"]
    if found.opening > found.deciding:
        parts.append(f"at most {found.opening / 2**20:,.0f} while opening")
    if found.device_deciding is not None and found.device_opening is not None:
        parts.append(
            f"device {found.device_deciding / 2**20:,.0f} MiB, {found.device_opening / 2**20:,.0f} while opening"
        )
    return f"; {', '.join(parts)}"


def _verdict(fault: str | None) -> str:
    return f"OUT OF TOLERANCE: {fault}" if fault else "within its tolerance"


def _differs(found: Agreement) -> str:
    """Of the chunks, in physical units."""
    worst = ", ".join(f"{value:.2g} {unit}" for value, unit in zip(found.chunk.worst, found.units, strict=True))
    usual = ", ".join(f"{value:.2g} {unit}" for value, unit in zip(found.chunk.p99, found.units, strict=True))
    return (
        f"against float32 in PyTorch over {found.decisions} decisions: cosine {found.cosine:.5f}, at worst "
        f"{found.cosine_worst:.4f}; velocities differ by {usual} (99th percentile), {worst} (worst); same status in "
        f"{found.status_equal:.1%}"
    )
