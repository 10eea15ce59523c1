"""Does an engine drive as well as the network it was made from? The same scenes, driven by both."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_vla.core import ConfigError
from mobile_vla.evaluate.fleet import Job, drive_all
from mobile_vla.evaluate.plan import GROUPS, PlannedEpisode, plan_episodes
from mobile_vla.evaluate.statistics import Paired, Share
from mobile_vla.language import Grammar

TOLERANCE = 0.05
"""Share of the drives that an engine may lose, those that it wins taken off, and still be offered."""

_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Driven:
    """Success of both on the same drives. In ``paired`` the first is float32 in PyTorch, the second the engine."""

    exact: Share
    engine: Share
    paired: Paired

    @classmethod
    def of(cls, exact: Sequence[bool], engine: Sequence[bool]) -> "Driven":
        """From successes on the same drives, in the same order; ValueError where they are not as many."""
        return cls(Share.of(exact), Share.of(engine), Paired.of(zip(exact, engine, strict=True)))

    @property
    def change(self) -> float:
        """Share of the drives that the engine wins, less those that it loses."""
        return (self.paired.only_second - self.paired.only_first) / self.exact.total

    @property
    def interval(self) -> tuple[float, float]:
        """Of ``change``, 95 %, for paired shares by Bonett and Price (2012); within -1..1."""
        room = self.exact.total + 2
        lost, won = (self.paired.only_first + 1) / room, (self.paired.only_second + 1) / room
        half = _Z_95 * math.sqrt((lost + won - (won - lost) ** 2) / room)
        return max(-1.0, won - lost - half), min(1.0, won - lost + half)

    def worse(self, tolerance: float = TOLERANCE) -> str | None:
        """A clause, where the engine loses more than the tolerance; else None."""
        if self.change >= -tolerance - 1e-9:
            return None
        return (
            f"drives worse: {self.engine.count} of {self.engine.total} succeed, {self.exact.count} in float32; "
            f"{self.paired.only_first} lost and {self.paired.only_second} won, at most {tolerance:.0%} net are allowed"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        low, high = self.interval
        parts = {"exact": self.exact.to_dict(), "engine": self.engine.to_dict(), "paired": self.paired.to_dict()}
        return {**parts, "change": self.change, "low": low, "high": high}

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.engine.count}/{self.engine.total} succeed, {self.exact.count} in float32 "
            f"({self.paired.only_first} lost, {self.paired.only_second} won; {100 * self.change:+.0f} % "
            f"[{100 * low:+.0f}, {100 * high:+.0f}])"
        )


def scenes(episodes: int, first_seed: int = 0) -> list[PlannedEpisode]:
    """``episodes`` held-out drives in which the groups of scenarios take turns. ConfigError for fewer than one."""
    if episodes < 1:
        raise ConfigError(f"{episodes} drives show nothing: ask for at least 1")
    grammar, rounds = Grammar.load(), -(-episodes // len(GROUPS))
    by_group = [plan_episodes(group, rounds, grammar, first_seed) for group in GROUPS]
    return [episode for turn in zip(*by_group, strict=True) for episode in turn][:episodes]


def successes(
    folder: Path,
    planned: Sequence[PlannedEpisode],
    processes: int = 1,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[bool]:
    """Of a checkpoint or an engine, one for each drive. ``advance`` is told how many of how many are done.

    Errors as ``fleet.drive_all``.
    """
    won = []
    for result in drive_all([Job(each, "policy") for each in planned], folder, processes):
        won.append(result.success)
        advance(len(won), len(planned))
    return won


def paired(
    checkpoint: Path,
    engine: Path,
    episodes: int = 40,
    processes: int = 1,
    first_seed: int = 0,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Driven:
    """Drive the same ``episodes`` by the checkpoint in PyTorch and by the engine in its folder."""
    planned = scenes(episodes, first_seed)
    total = 2 * episodes
    exact = successes(checkpoint, planned, processes, lambda done, _: advance(done, total))
    return Driven.of(exact, successes(engine, planned, processes, lambda done, _: advance(episodes + done, total)))
