"""What was measured, as one JSON: every figure with its interval, and the baselines that were driven beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mobile_vla.evaluate.counterfactual import ObjectResponse, SideResponse
from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.nearest import NEIGHBOURS, SAME, SIMILARITY
from mobile_vla.evaluate.offline import OfflineReport
from mobile_vla.evaluate.plan import GROUPS
from mobile_vla.evaluate.provenance import Provenance
from mobile_vla.evaluate.statistics import Paired, Share, Spread
from mobile_vla.language import LANGUAGES, SPLITS
from mobile_vla.sim.judge import Failure
from mobile_vla.sim.scenarios import SCENARIOS

NOTES = {
    "policy": "the checkpoint under test, through the loop, chunk queue and supervisor that drive a robot",
    "blind": "the same policy told of an object drawn by lot from those in the scene, judged by the true goal: success "
    "by chance of the name. Manoeuvres name no object: there it is the policy in other words, and no baseline",
    "expert": "drives from the true state by the goal, through the same chain: about the most that is possible",
    "seeds": "all scenes have seeds below those of training",
    "intervals": "95 %: Wilson's for shares; for errors on recorded data, a bootstrap over episodes",
    "spl": "success weighted by the expert's path over the driven one, at most 1; the expert's metres count more near "
    "solid things, so the figure flatters a little",
    "stop": "the loop begins with the supervisor at rest, which brakes a base that rolls at the start whatever the "
    "policy says: these episodes measure staying there and saying so",
    "latency": "simulated time stands still while the policy thinks",
    "recorded data": "open loop: the policy is stepped through recorded episodes, and its actions are compared with "
    "those that were shown; this finds errors of units, axes and signs, and says little about driving. No baseline "
    "looks at a picture: the mean (constant), the most frequent cell (majority), the action executed at the frame "
    f"before (hold last), and the median chunk at the same frame of the episodes under the same words, or, "
    f"where they are fewer than {SAME}, of the {NEIGHBOURS} whose words are most like these (nearest instruction) by "
    f"{SIMILARITY}",
    "sides": "left and right exchanged, same scene; a driver deaf to words scores 0",
    "objects": "one visible object's name exchanged for another's, same scene; a driver deaf to words scores 0",
}
"""What the words in a report mean, and its limits."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Episodes of one driver. Each share is over the episodes that it applies to: ``side_obeyed`` where a side was
    named; ``right_target`` (it ended at the named object), ``seen`` (it was in view at some time) and ``spl``
    where the named object is there. Path, duration and stopping distance are of the successful ones.
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
    errors: int

    @classmethod
    def of(cls, results: Sequence[EpisodeResult]) -> "Summary":
        """Over these episodes."""
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
            errors=sum(result.error is not None for result in results),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        shares = ("success", "touched", "ended", "side_obeyed", "right_target", "seen")
        spreads = ("spl", "path_m", "duration_s", "stop_distance_m")
        figures = {name: getattr(self, name).to_dict() for name in (*shares, *spreads)}
        return figures | {"failures": self.failures, "errors": self.errors}


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation and where it comes from; ``results`` in the order of the plan, each episode by each driver."""

    provenance: Provenance
    results: tuple[EpisodeResult, ...]
    offline: OfflineReport | None = None

    @property
    def drivers(self) -> tuple[str, ...]:
        """Who drove, the policy first."""
        return tuple(dict.fromkeys(result.driver for result in self.results))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of scenarios that were driven as suites of their own."""
        driven = {result.planned.suite for result in self.results}
        return tuple(group for group in GROUPS if group in driven)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios in these groups."""
        driven = {result.planned.scenario for result in self.results if result.planned.suite in GROUPS}
        return tuple(scenario for scenario in SCENARIOS if scenario in driven)

    def of(self, driver: str, suite: str | None = None) -> list[EpisodeResult]:
        """Episodes of one driver in one suite; in all groups of scenarios where none is named."""
        suites = GROUPS if suite is None else (suite,)
        return [r for r in self.results if r.driver == driver and r.planned.suite in suites]

    def in_scenario(self, driver: str, scenario: str) -> list[EpisodeResult]:
        """Episodes of one driver in one scenario of the groups."""
        return [result for result in self.of(driver) if result.planned.scenario == scenario]

    def in_words(self, driver: str) -> dict[str, list[EpisodeResult]]:
        """Episodes of the suite "words" by phrasing and language, such as "train en"; the same scenes in each."""
        results = self.of(driver, "words")
        return {
            f"{phrasing} {language}": [
                r for r in results if (r.planned.phrasing, r.planned.language) == (phrasing, language)
            ]
            for phrasing in SPLITS
            for language in LANGUAGES
            if results
        }

    def compared(self, group: str, other: str) -> Paired:
        """The policy and another driver in the same episodes of a group."""
        others = {result.planned: result.success for result in self.of(other, group)}
        mine = self.of("policy", group)
        return Paired.of((r.success, others[r.planned]) for r in mine if r.planned in others)

    def words_compared(self) -> dict[str, Paired]:
        """The policy's successes in the first way of telling against those in each other one, scene by scene."""
        ways = self.in_words("policy")
        if not ways:
            return {}
        first, *others = ways
        successes = {way: [result.success for result in results] for way, results in ways.items()}
        return {way: Paired.of(zip(successes[first], successes[way], strict=True)) for way in others}

    def side_responses(self) -> dict[str, SideResponse]:
        """By driver."""
        return {driver: SideResponse.of(drives) for driver in self.drivers if (drives := self.of(driver, "sides"))}

    def object_responses(self) -> dict[str, ObjectResponse]:
        """By driver."""
        return {driver: ObjectResponse.of(drives) for driver in self.drivers if (drives := self.of(driver, "objects"))}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        others = [driver for driver in self.drivers if driver != "policy"]
        return {
            "provenance": self.provenance.to_dict(),
            "notes": NOTES,
            "groups": {
                group: {driver: Summary.of(self.of(driver, group)).to_dict() for driver in self.drivers}
                for group in self.groups
            },
            "together": {driver: Summary.of(self.of(driver)).to_dict() for driver in self.drivers},
            "scenarios": {
                scenario: {driver: Summary.of(self.in_scenario(driver, scenario)).to_dict() for driver in self.drivers}
                for scenario in self.scenarios
            },
            "compared": {
                group: {driver: self.compared(group, driver).to_dict() for driver in others} for group in self.groups
            },
            "words": {way: Summary.of(results).to_dict() for way, results in self.in_words("policy").items()},
            "words_compared": {way: paired.to_dict() for way, paired in self.words_compared().items()},
            "sides": {driver: response.to_dict() for driver, response in self.side_responses().items()},
            "objects": {driver: response.to_dict() for driver, response in self.object_responses().items()},
            "offline": self.offline.to_dict() if self.offline else None,
            "episodes": [result.to_dict() for result in self.results],
        }

    def table(self) -> Table:
        """The main figures, for a terminal."""
        table = Table(title="share [95 % interval] (count)")
        for name in ("", *self.drivers):
            table.add_column(name)
        for group in self.groups:
            table.add_row(group, *(str(Summary.of(self.of(driver, group)).success) for driver in self.drivers))
        if self.groups:
            table.add_row("together", *(str(Summary.of(self.of(driver)).success) for driver in self.drivers))
        for way, results in self.in_words("policy").items():
            table.add_row(f"words: {way}", str(Summary.of(results).success))
        sides, objects = self.side_responses(), self.object_responses()
        if sides:
            table.add_row(
                "left/right exchanged", *(str(sides[d].both_obeyed) if d in sides else "" for d in self.drivers)
            )
        if objects:
            shares = (str(objects[d].both_right) if d in objects else "" for d in self.drivers)
            table.add_row("object exchanged", *shares)
        return table


def write_json(report: Report, path: Path) -> None:
    """The whole report."""
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
