"""The map of a drive: the room from above, the way that was driven, and where it should have led."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Circle

from mobile_vla.core import Goal
from mobile_vla.monitor.fonts import font_file
from mobile_vla.monitor.overhead import Overhead
from mobile_vla.sim.judge import STOP_WITHIN_M
from mobile_vla.sim.scene import ROBOT_RADIUS_M, Pose, Scene


def draw_chart(
    path: Path, background: Overhead, scene: Scene, goal: Goal, trail: Sequence[tuple[float, Pose]], title: str
) -> None:
    """Write a PNG. ``trail``: seconds and true poses. ``title`` is left out where no font can draw it."""
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(background.pixels, extent=background.extent_m)
    points = np.array([(pose.x, pose.y) for _, pose in trail])
    way = LineCollection(list(np.stack([points[:-1], points[1:]], axis=1)), cmap="plasma", linewidths=3)
    way.set_array(np.array([seconds for seconds, _ in trail[1:]]))
    axes.add_collection(way)
    figure.colorbar(way, ax=axes, label="time, s", shrink=0.7)
    axes.plot(scene.start.x, scene.start.y, "o", color="white", markeredgecolor="black", markersize=9, label="start")
    end, size = trail[-1][1], ROBOT_RADIUS_M
    hull = Circle((end.x, end.y), size, facecolor="white", edgecolor="black", label="robot at the end")
    axes.add_patch(hull)
    nose_x, nose_y = end.x + size * math.cos(end.yaw), end.y + size * math.sin(end.yaw)
    axes.plot([end.x, nose_x], [end.y, nose_y], color="black", linewidth=2)
    for index in scene.matching(goal.target) if goal.target else ():
        item = scene.objects[index]
        ring = Circle((item.pose.x, item.pose.y), item.radius_m + STOP_WITHIN_M, fill=False, linestyle="--")
        ring.set(edgecolor="lime", linewidth=2, label=f"{STOP_WITHIN_M} m round the target")
        axes.add_patch(ring)
    axes.set(xlabel="x, m", ylabel="y, m")
    marks = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=3, frameon=False)
    font = font_file(title)
    if font is not None:
        axes.set_title(title, fontproperties=FontProperties(fname=str(font), size=13), wrap=True)
    figure.savefig(path, dpi=110)
