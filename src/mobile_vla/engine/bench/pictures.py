"""Two pictures of a measurement, as PNG: how long each call took, and how near that is to what the device can do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla.core import ConfigError
from mobile_vla.engine.bench.counting import precision_named
from mobile_vla.engine.bench.roofline import Device

COLOURS = {"fp32": "#0072b2", "bf16": "#d55e00", "fp16": "#009e73", "fp8": "#cc79a7", "int8": "#8a6d00"}
"""By arithmetic; told apart by the colour-blind too (after Okabe and Ito 2008)."""
_MARKERS = {"fp32": "o", "bf16": "s", "fp16": "^", "fp8": "D", "int8": "v"}
_GREY = "#5b6670"


@dataclass(frozen=True)
class Point:
    """One call of a network in an engine: the ``moved_bytes`` that it has to move at least, and what it took.

    ``precision`` is one of ``counting.PRECISIONS``.
    """

    name: str
    moved_bytes: float
    flops: float
    seconds: float
    precision: str


def latency_picture(samples: Mapping[str, Sequence[float]], out: Path) -> None:
    """A histogram for each series of milliseconds, one below the other on one axis, with median and 99th percentile.

    Samples beyond the right edge are counted in words. ConfigError where a series is empty.
    """
    from matplotlib.figure import Figure

    if not samples or not all(len(series) for series in samples.values()):
        raise ConfigError("a series without a sample cannot be drawn: time at least one call of each")
    marks = {name: np.percentile(np.asarray(series, dtype=float), (50, 99)) for name, series in samples.items()}
    edge = 1.25 * max(float(p99) for _, p99 in marks.values())
    bins = np.linspace(0.0, edge, 121).tolist()
    figure = Figure(figsize=(8.0, 0.9 + 1.05 * len(samples)), dpi=110, layout="constrained")
    rows = figure.subplots(len(samples), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, series) in zip(rows, samples.items(), strict=True):
        p50, p99 = (float(value) for value in marks[name])
        axes.hist(series, bins=bins, color=COLOURS["fp32"])
        axes.axvline(p50, color="black", linewidth=1.2)
        axes.axvline(p99, color=COLOURS["bf16"], linewidth=1.2, linestyle="--")
        beyond = sum(value > edge for value in series)
        words = f"p50 {p50:.3g} ms    p99 {p99:.3g} ms    {len(series)} calls"
        words += f", {beyond} beyond the edge (longest {max(series):.3g} ms)" if beyond else ""
        axes.set_title(name, loc="left", fontsize=10, fontweight="bold", pad=3)
        axes.set_title(words, loc="right", fontsize=9, color=_GREY, pad=3)
        axes.set(yticks=[], xlim=(0.0, edge))
        axes.spines[["left", "top", "right"]].set_visible(False)
    rows[-1].set_xlabel("time of one call, ms (line: median, dashed: 99th percentile)")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr,call-arg]
    figure.savefig(out)


def roofline_picture(device: Device, points: Sequence[Point], out: Path) -> None:
    """What the device can do at each intensity (FLOP a byte), log-log, and where each point stands below it.

    A point's share is of the roof above it: of its precision, and of the cache where one is known and it fits there.
    ConfigError for a precision that the device has no rate for.
    """
    from matplotlib.figure import Figure

    for point in points:
        _roof(device, point)
    tall = max(5.2, 0.5 * len(points) + 1.0)
    figure = Figure(figsize=(9.0, tall), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    intensities = [point.flops / point.moved_bytes for point in points]
    rates = [point.flops / point.seconds for point in points]
    top = max(device.matrix_flops_per_s.values())
    ridges = [rate / width for rate in device.matrix_flops_per_s.values() for _, width in _bandwidths(device)]
    left, right = min([*intensities, *ridges]) / 3, max(3 * max([*intensities, *ridges]), 4 * _ridge(device))
    bottom = min([*rates, *(width * left for _, width in _bandwidths(device))]) / 1.5
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, 2.2 * top))
    for _, width in _bandwidths(device):
        axes.plot([left, top / width], [left * width, top], color=_GREY, linewidth=1.4, zorder=1)
    widest = max(width for _, width in _bandwidths(device))
    for name, rate in device.matrix_flops_per_s.items():
        axes.plot([rate / widest, right], [rate, rate], color=COLOURS[name], linewidth=1.6, zorder=1)
    said = (
        f"measured, {device.threads} thread{'s' if device.threads > 1 else ''}" if device.kind == "cpu" else "measured"
    )
    axes.set_title(f"{device.name}: {said if device.measured else 'published figures, a prediction'}", fontsize=11)
    axes.set(xlabel="intensity, FLOP a byte that has to be moved", ylabel="FLOP/s")
    axes.grid(which="major", color="#e3e6e8", linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    _name_points(axes, device, points, 0.45 / tall)
    figure.draw_without_rendering()  # the slopes' angle is known only when everything has its place
    _name_roofs(axes, device, left)
    figure.savefig(out)


def _name_points(axes: Any, device: Device, points: Sequence[Point], apart: float) -> None:
    """Names stand in a column beside the picture, near the height of their points, and none covers another.

    ``apart``: the least distance between two, as a share of the picture's height.
    """
    below = 1.0
    ordered = sorted(points, key=lambda point: point.flops / point.seconds, reverse=True)
    for left, point in zip(range(len(ordered) - 1, -1, -1), ordered, strict=True):
        kind = precision_named(point.precision).arithmetic
        at = point.flops / point.moved_bytes, point.flops / point.seconds
        axes.plot(*at, marker=_MARKERS[kind], color=COLOURS[kind], markersize=8, markeredgecolor="white", zorder=3)
        own = float(axes.transAxes.inverted().transform(axes.transData.transform(at))[1])
        height = min(max(own, left * apart), below)  # room for those that follow
        below = height - apart
        axes.annotate(
            f"{point.name}\n{point.seconds * 1e3:.3g} ms, {100 * at[1] / _roof(device, point):.0f} % of the limit",
            at, xytext=(1.03, height), textcoords="axes fraction", fontsize=9, color=COLOURS[kind], va="center",
            arrowprops={"arrowstyle": "-", "color": COLOURS[kind], "linewidth": 0.6, "relpos": (0.0, 0.5)},
        )  # fmt: skip


def _name_roofs(axes: Any, device: Device, left: float) -> None:
    (x, y), (further, higher) = axes.transData.transform([(1.0, 1.0), (10.0, 10.0)])
    angle = math.degrees(math.atan2(higher - y, further - x))
    for name, width in _bandwidths(device):
        axes.annotate(
            f"{name} {_si(width, 'B/s')}", (left, left * width), xytext=(14, 20), textcoords="offset points",
            color=_GREY, fontsize=9, rotation=angle, rotation_mode="anchor", va="baseline",
        )  # fmt: skip
    named: dict[str, list[str]] = {}
    for name, rate in device.matrix_flops_per_s.items():
        named.setdefault(_si(rate, "FLOP/s"), []).append(name)
    for said, names in named.items():
        rate = device.matrix_flops_per_s[names[0]]
        words = f"{', '.join(names)} {said}"
        axes.text(_ridge(device), rate * 1.05, words, color=COLOURS[names[-1]], fontsize=9, va="bottom")


def _ridge(device: Device) -> float:
    """The intensity from which on the memory limits nothing."""
    return 1.15 * max(device.matrix_flops_per_s.values()) / device.copy_bytes_per_s


def _bandwidths(device: Device) -> list[tuple[str, float]]:
    known = [("memory", device.copy_bytes_per_s)]
    if device.cache_bytes_per_s is not None:
        known.append(("cache", device.cache_bytes_per_s))
    return known


def _roof(device: Device, point: Point) -> float:
    """FLOP/s that the device could do at this point's intensity."""
    arithmetic = precision_named(point.precision).arithmetic
    if arithmetic not in device.matrix_flops_per_s:
        raise ConfigError(f"{device.name} has no matrix rate for {arithmetic}: measure it with this precision")
    width = device.copy_bytes_per_s
    if device.cache_bytes is not None and device.cache_bytes_per_s is not None:
        width = max(width, device.cache_bytes_per_s) if point.moved_bytes <= device.cache_bytes else width
    return min(device.matrix_flops_per_s[arithmetic], width * point.flops / point.moved_bytes)


def _si(value: float, unit: str) -> str:
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if value >= 10.0**power:
            return f"{value / 10.0**power:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
