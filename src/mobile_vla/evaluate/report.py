"""What was measured, as one JSON: every figure with its interval, and the baselines driven beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.plan import GROUPS
from mobile_vla.evaluate.provenance import Provenance
from mobile_vla.evaluate.statistics import Share, Spread
from mobile_vla.sim.judge import Failure


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares over a set of episodes of one driver. Parts that apply to no episode have a total of 0.

    ``side_obeyed`` where a side was named; ``right_target`` (the named object is nearest at the end) and SPL where the
    named object is present; ``touched`` and ``seen`` (the target was in view at some time) likewise over those they apply to.
    """

    success: Share
    touched: Share
    ended: Share
    side_obeyed: Share
    right_target: Share
    seen: Share
    spl: Spread
    path_m: Spread
    duration_s: Spread
    stop_distance_m: Spread
    failures: dict[str, int]

    @classmethod
    def of(cls, results: Sequence[EpisodeResult]) -> "Summary":
        """Over these episodes; path, duration and stopping distance over the successful ones."""
        verdicts = [result.verdict for result in results]
        won = [verdict for verdict in verdicts if verdict.success]
        kinds = [verdict.failure for verdict in verdicts]
        return cls(
            success=Share.of(verdict.success for verdict in verdicts),
            touched=Share.of(verdict.touched is not None for verdict in verdicts),
            ended=Share.of(verdict.failure not in (Failure.NOT_ENDED, Failure.TOUCHED) for verdict in verdicts),
            side_obeyed=Share.of(v.route_obeyed for v in verdicts if v.route_obeyed is not None),
            right_target=Share.of(v.right_target for v in verdicts if v.right_target is not None),
            seen=Share.of(r.target_seen for r in results if r.target_seen is not None),
            spl=Spread.of([r.spl for r in results if r.spl is not None]),
            path_m=Spread.of([verdict.path_m for verdict in won]),
            duration_s=Spread.of([verdict.duration_s for verdict in won]),
            stop_distance_m=Spread.of([v.stop_distance_m for v in won if v.stop_distance_m is not None]),
            failures={kind.value: kinds.count(kind) for kind in Failure if kind is not Failure.NONE and kind in kinds},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("success", "touched", "ended", "side_obeyed", "right_target", "seen")
        spreads = ("spl", "path_m", "duration_s", "stop_distance_m")
        return (
            {name: getattr(self, name).to_dict() for name in (*names, *spreads)}
            | {"failures": self.failures}
        )


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation and where it comes from."""

    provenance: Provenance
    results: tuple[EpisodeResult, ...]

    @property
    def drivers(self) -> tuple[str, ...]:
        """Who drove, in the order of the results."""
        return tuple(dict.fromkeys(result.driver for result in self.results))

    def of(self, driver: str, group: str | None = None) -> list[EpisodeResult]:
        """Episodes of one driver, in one group of scenarios or in all."""
        return [r for r in self.results if r.driver == driver and group in (None, r.planned.group)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        groups = [group for group in GROUPS if any(r.planned.group == group for r in self.results)]
        return {
            "provenance": self.provenance.to_dict(),
            "notes": NOTES,
            "groups": {
                group: {driver: Summary.of(self.of(driver, group)).to_dict() for driver in self.drivers}
                for group in groups
            },
            "episodes": [result.to_dict() for result in self.results],
        }

    def table(self) -> Table:
        """Success by group and driver, for a terminal."""
        table = Table(title="Success: share [95 % interval] (count)")
        table.add_column("group")
        for driver in self.drivers:
            table.add_column(driver)
        for group in GROUPS:
            if any(r.planned.group == group for r in self.results):
                table.add_row(group, *(str(Summary.of(self.of(driver, group)).success) for driver in self.drivers))
        return table


NOTES = {
    "policy": "the checkpoint under test",
}


def write_json(report: Report, path: Path) -> None:
    """The whole report."""
    path.write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
