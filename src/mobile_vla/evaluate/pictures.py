"""Pictures of drives and of a whole report, as PNG. Re-made from results alone: scenes follow from their seeds."""

import io
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Circle

from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.report import Report, Summary
from mobile_vla.evaluate.statistics import Share
from mobile_vla.sim.scenarios import draw_scene
from mobile_vla.sim.world import TOP_MARGIN_M, World

COLOURS = {"policy": "#1f6fb2", "blind": "#c77c11", "expert": "#6b7680"}
_WAY, _NAMED = "#d81b60", "#ffffff"
_TOP_WIDTH = 420


def drive_picture(result: EpisodeResult, world: World) -> bytes:
    """From above, with the way that was driven and the named objects ringed, beside the camera's picture at the end."""
    scene = draw_scene(result.planned.scenario, result.planned.seed).scene
    world.load(scene)
    world.set_pose(result.verdict.end)
    tall, wide = 2 * (scene.half_y + TOP_MARGIN_M), 2 * (scene.half_x + TOP_MARGIN_M)
    height = round(_TOP_WIDTH * tall / wide)
    top, seen = world.render_top(height, _TOP_WIDTH), world.render()
    span_y = max(tall, wide * height / _TOP_WIDTH)
    span_x = span_y * _TOP_WIDTH / height
    figure = Figure(figsize=(7.2, 3.0), dpi=90, layout="constrained")
    above, ahead = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    above.imshow(top, extent=(-span_x / 2, span_x / 2, -span_y / 2, span_y / 2))
    above.plot([p[1] for p in result.trajectory], [p[2] for p in result.trajectory], color=_WAY, linewidth=1.6)
    above.plot(scene.start.x, scene.start.y, marker="o", color=_WAY, markersize=5)
    named = scene.matching(result.planned.goal.target) if result.planned.goal.target else ()
    for index in named:
        item = scene.objects[index]
        ring = Circle((item.pose.x, item.pose.y), item.radius_m + 0.12, fill=False, edgecolor=_NAMED, linewidth=2)
        above.add_patch(ring)
    ahead.imshow(seen)
    for axes in (above, ahead):
        axes.set_axis_off()
    return _png(figure)


def overview(report: Report) -> bytes:
    """Success by group and driver with intervals, responses to exchanged words, and how the policy failed."""
    figure = Figure(figsize=(11.0, 4.2), dpi=110, layout="constrained")
    success, response, failed = figure.subplots(1, 3, width_ratios=(1.5, 1.1, 1.1))
    drivers = [driver for driver in report.drivers if driver in COLOURS]
    groups = {group: {d: Summary.of(report.of(d, group)).success for d in drivers} for group in report.groups}
    _bars(success, groups, drivers)
    success.set_title("success")
    responses: dict[str, dict[str, Share]] = {}
    if sides := report.side_responses():
        responses["left and right\nexchanged"] = {driver: sides[driver].both_obeyed for driver in sides}
    if objects := report.object_responses():
        responses["object\nexchanged"] = {driver: objects[driver].both_right for driver in objects}
    _bars(response, responses, drivers)
    response.set_title("obeyed both ways (deaf to words: 0)")
    counts = Summary.of(report.of("policy")).failures
    kinds = sorted(counts, key=lambda kind: counts[kind])
    failed.barh(kinds, [counts[kind] for kind in kinds], color=COLOURS["policy"])
    failed.set_title(f"failures of the policy, of {len(report.of('policy'))}")
    failed.spines[["top", "right"]].set_visible(False)
    if drivers:
        figure.legend(
            *success.get_legend_handles_labels(), loc="outside lower center", ncols=len(drivers), frameon=False
        )
    figure.suptitle("bars: 95 % intervals", fontsize=9)
    return _png(figure)


def _bars(axes: Any, shares: dict[str, dict[str, Share]], drivers: list[str]) -> None:
    width = 0.8 / max(1, len(drivers))
    for place, driver in enumerate(drivers):
        at = [row + (place - (len(drivers) - 1) / 2) * width for row in range(len(shares))]
        known = [
            (x, share) for x, row in zip(at, shares.values(), strict=True) if (share := row.get(driver)) and share.total
        ]
        values = [share.value for _, share in known]
        low = [max(0.0, share.value - share.interval[0]) for _, share in known]
        high = [max(0.0, share.interval[1] - share.value) for _, share in known]
        axes.bar([x for x, _ in known], values, width * 0.92, color=COLOURS[driver], label=driver)
        axes.errorbar(
            [x for x, _ in known], values, yerr=(low, high), fmt="none", ecolor="black", linewidth=1, capsize=2
        )
    axes.set_xticks(range(len(shares)), list(shares))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(0, 1.02)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
