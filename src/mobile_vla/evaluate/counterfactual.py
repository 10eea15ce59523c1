"""Do the words move the robot? The same scene under words that differ in one thing alone.

A driver that does not listen drives both the same way, so each share below is 0 for it, by construction: that is the
baseline. What the expert reaches, where it drove too, is the limit.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mobile_vla.core import Goal, Side
from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.statistics import Share, Spread

Pair = tuple[EpisodeResult, EpisodeResult]


@dataclass(frozen=True, slots=True)
class SideResponse:
    """Left and right exchanged.

    ``both_obeyed``: all obstacles were passed on the named side, in both drives. ``changed``: the sides passed were
    two, either way round. ``undecided``: in one drive or both the obstacles were not passed, or not all on one side.

    Open loop, on the same first frames at rest, chunks followed ahead and averaged: ``lateral_opposed`` and
    ``yaw_opposed``, to the left under "left" and to the right under "right"; ``lateral_ordered`` and ``yaw_ordered``,
    more to the left under "left" than under "right" (a driver whose motion changed at random would reach half);
    ``lateral_m`` and ``yaw_rad``, how much more.
    """

    both_obeyed: Share
    changed: Share
    undecided: Share
    lateral_opposed: Share
    yaw_opposed: Share
    lateral_ordered: Share
    yaw_ordered: Share
    lateral_m: Spread
    yaw_rad: Spread

    @classmethod
    def of(cls, results: Sequence[EpisodeResult]) -> "SideResponse":
        """Over the pairs among results of one driver in the suite "sides"."""
        pairs = [_left_first(pair) for pair in pairs_of(results)]
        sides = [(left.side_passed, right.side_passed) for left, right in pairs]
        motions = [(_opening_motion(left.opening), _opening_motion(right.opening)) for left, right in pairs]
        return cls(
            both_obeyed=Share.of(pair == (Side.LEFT, Side.RIGHT) for pair in sides),
            changed=Share.of(None not in pair and pair[0] is not pair[1] for pair in sides),
            undecided=Share.of(None in pair for pair in sides),
            lateral_opposed=Share.of(left[0] > 0 > right[0] for left, right in motions),
            yaw_opposed=Share.of(left[1] > 0 > right[1] for left, right in motions),
            lateral_ordered=Share.of(left[0] > right[0] for left, right in motions),
            yaw_ordered=Share.of(left[1] > right[1] for left, right in motions),
            lateral_m=Spread.of([left[0] - right[0] for left, right in motions]),
            yaw_rad=Spread.of([left[1] - right[1] for left, right in motions]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: getattr(self, name).to_dict() for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ObjectResponse:
    """The name of one visible object exchanged for another's.

    ``both_right``: both drives ended at the object named. ``changed``: they ended at two different
    ones. ``both_right_by_exchange``: the same as ``both_right`` where the names differ in their colour alone, in their
    kind alone, or in both. ``chance_both_right`` and ``chance_changed``: of a driver that ends at any object by lot.
    """

    both_right: Share
    changed: Share
    both_right_by_exchange: dict[str, Share]
    chance_both_right: float | None
    chance_changed: float | None

    @classmethod
    def of(cls, results: Sequence[EpisodeResult]) -> "ObjectResponse":
        """Over the pairs among results of one driver in the suite "objects"."""
        pairs = pairs_of(results)
        by_exchange: dict[str, list[bool]] = {"colour": [], "kind": [], "both": []}
        for first, second in pairs:
            by_exchange[_exchanged(first.planned.goal, second.planned.goal)].append(_both_right((first, second)))
        lots = [1 / first.object_count for first, _ in pairs]
        return cls(
            both_right=Share.of(map(_both_right, pairs)),
            changed=Share.of(first.end_object != second.end_object for first, second in pairs),
            both_right_by_exchange={name: Share.of(outcomes) for name, outcomes in by_exchange.items()},
            chance_both_right=sum(lot**2 for lot in lots) / len(lots) if lots else None,
            chance_changed=sum(1 - lot for lot in lots) / len(lots) if lots else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "both_right": self.both_right.to_dict(),
            "changed": self.changed.to_dict(),
            "both_right_by_exchange": {name: share.to_dict() for name, share in self.both_right_by_exchange.items()},
            "chance_both_right": self.chance_both_right,
            "chance_changed": self.chance_changed,
        }


def pairs_of(results: Sequence[EpisodeResult]) -> list[Pair]:
    """Two drives of one scene each; a scene that was driven only once is left out."""
    scenes: dict[tuple[str, str, int, str], list[EpisodeResult]] = defaultdict(list)
    for result in results:
        planned = result.planned
        scenes[planned.suite, planned.scenario, planned.seed, result.driver].append(result)
    return [(drives[0], drives[1]) for drives in scenes.values() if len(drives) == 2]


def _opening_motion(opening: Sequence[tuple[float, float]]) -> tuple[float, float]:
    count = max(1, len(opening))
    return sum(lateral_m for lateral_m, _ in opening) / count, sum(yaw_rad for _, yaw_rad in opening) / count


def _left_first(pair: Pair) -> Pair:
    first, second = pair
    return (first, second) if first.planned.goal.side is Side.LEFT else (second, first)


def _both_right(pair: Pair) -> bool:
    return all(result.verdict.right_target for result in pair)


def _exchanged(first: Goal, second: Goal) -> str:
    assert first.target is not None
    assert second.target is not None
    if first.target.kind is second.target.kind:
        return "colour"
    return "kind" if first.target.colour is second.target.colour else "both"
