"""The live line: what the robot does now, and what the policy says."""

import math
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text
from typing_extensions import Self

from mobile_vla.core import NS_PER_S
from mobile_vla.runtime import Tick
from mobile_vla.safety import SafetyState

SURE = 0.5
"""The policy sees its target when its visibility is above this."""


def line(tick: Tick, began_ns: int = 0) -> str:
    """Time since ``began_ns``, state, command, speed, age of the frame in ms, and the policy's belief.

    While the robot does not run, the safety layer's sentence says why.
    """
    twist, grounding = tick.twist, tick.grounding
    speed = math.hypot(tick.measured.vx, tick.measured.vy)
    parts = [
        f"{(tick.stamp_ns - began_ns) / NS_PER_S:5.1f} s",
        f"{tick.state.value:8}",
        f"vx {twist.vx:+.2f} vy {twist.vy:+.2f} wz {twist.wz:+.2f}",
        f"speed {speed:.2f} m/s",
        f"frame {tick.frame_age_ns / 1e6:3.0f} ms" if tick.frame_age_ns is not None else "no frame",
    ]
    if grounding is not None:
        seen = grounding.visibility > SURE
        where = f"{grounding.distance_m:.2f} m {math.degrees(grounding.bearing_rad):+3.0f}°" if seen else "out of view"
        parts += [f"target {where}", grounding.status.value]
    if tick.state is not SafetyState.RUNNING:
        parts.append(tick.sentence)
    return "  ".join(parts)


class LiveLine:
    """Shows each tick in place on a terminal, and one line a second elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        in_place = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, refresh_per_second=10, transient=True) if in_place else None
        self._next_ns = 0
        self._began_ns: int | None = None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, tick: Tick) -> None:
        """Tell of one control step; time counts from the first one."""
        if self._began_ns is None:
            self._began_ns = tick.stamp_ns
        words = line(tick, self._began_ns)
        if self._live is not None:
            self._live.update(Text(words, no_wrap=True, overflow="ellipsis"))
        elif tick.stamp_ns >= self._next_ns:
            self._next_ns = tick.stamp_ns + NS_PER_S
            self._console.print(Text(words), soft_wrap=True)
