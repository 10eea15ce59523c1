"""Go through a data set once and say what is in it and what is wrong with it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_vla.core import DatasetError
from mobile_vla.data.inspection import episodes
from mobile_vla.data.inspection.balance import balance, of_balance
from mobile_vla.data.inspection.channels import of_channels
from mobile_vla.data.inspection.duplicates import of_duplicates, of_scenes, parts_of
from mobile_vla.data.inspection.findings import Finding, Grade, Thresholds
from mobile_vla.data.inspection.pictures import look_at
from mobile_vla.data.inspection.trace import Seen, trace_of
from mobile_vla.data.inspection.words import of_sides, of_words
from mobile_vla.data.reader import Dataset, Episode, find_damage
from mobile_vla.data.split import Split, load_split
from mobile_vla.data.store import SPLIT_PATH, House, read_journal

GRADES = tuple(Grade)


@dataclass(frozen=True, slots=True)
class Report:
    """``findings``: the worst first. ``balance``: see there. ``remarks``: of a check, how much there was to go by.

    ``seconds`` of driving, ``wall_s`` of looking.
    """

    root: Path
    episodes: int
    frames: int
    seconds: float
    findings: tuple[Finding, ...]
    balance: dict[str, Any]
    remarks: dict[str, str]
    wall_s: float

    @property
    def sound(self) -> bool:
        """No finding is an error."""
        return all(finding.grade is not Grade.ERROR for finding in self.findings)

    def count(self, grade: Grade) -> int:
        """Findings of this grade."""
        return sum(finding.grade is grade for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "root": str(self.root),
            "sound": self.sound,
            "episodes": self.episodes,
            "frames": self.frames,
            "seconds": self.seconds,
            "findings": [finding.to_dict() for finding in self.findings],
            "balance": self.balance,
            "remarks": self.remarks,
            "frames_per_s": self.frames / self.wall_s if self.wall_s > 0 else None,
        }


def inspect(
    root: str | Path, limits: Thresholds | None = None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Report:
    """Look at every frame once; nothing is written, and memory holds one episode's files and 64 pictures.

    ``progress`` is told after each episode how many are done, of how many. DatasetError for a folder that is no data
    set; a damaged episode is a finding.
    """
    begun = time.monotonic()
    root, limits = Path(root), limits or Thresholds()
    house = House.read(root)
    records, _ = read_journal(root)
    dataset = Dataset(root, house, records, list(find_damage(root, records, thoroughly=False)))
    looking = _Looking(dataset, limits)
    if not records:
        looking.add(Finding(Grade.ERROR, "empty", "it holds no episode", "record some, or import them"))
    for damage in dataset.damaged:
        looking.add(_damaged(damage.what, damage.episode_index))
    for done, episode in enumerate(dataset, 1):
        looking.at(episode)
        progress(done, len(dataset))
    looking.at_the_whole()
    findings = sorted(looking.findings, key=lambda each: (GRADES.index(each.grade), each.check))
    return Report(
        root=root,
        episodes=len(records),
        frames=sum(record.length for record in records),
        seconds=sum(record.length for record in records) / dataset.contract.frame_rate_hz,
        findings=tuple(findings),
        balance=looking.balance,
        remarks=looking.remarks,
        wall_s=time.monotonic() - begun,
    )


class _Looking:
    """One inspection: what was found, and what has to be kept for the end."""

    def __init__(self, dataset: Dataset, limits: Thresholds) -> None:
        self.dataset, self.limits, self.contract = dataset, limits, dataset.contract
        self.findings: list[Finding] = []
        self.traces: list[Seen] = []
        self.balance: dict[str, Any] = {}
        self.remarks: dict[str, str] = {}

    def add(self, *findings: Finding) -> None:
        self.findings += findings

    def at(self, episode: Episode) -> None:
        """The checks of one episode, which leave its trace."""
        limits = self.limits
        try:
            trace = trace_of(episode, self.contract, limits.zero_share)
            changes, pictures = look_at(episode, trace.reading.colour)
        except DatasetError as error:
            self.add(_damaged(str(error), episode.record.episode_index))
            return
        self.traces.append(Seen(trace.record, trace.reading, trace.survey, trace.motion, pictures))
        self.add(*episodes.of_numbers(episode, self.contract, trace.survey), *episodes.of_sight(episode, trace))
        if not trace.survey:
            self.add(*episodes.of_time(episode, self.contract, limits))
            self.add(*episodes.of_frozen(episode, changes, self.contract, limits))

    def at_the_whole(self) -> None:
        """The checks that need all episodes."""
        traces, limits = self.traces, self.limits
        self.balance = balance(traces, self.contract)
        self.add(*of_balance(traces, self.contract, self.balance, limits))
        self.add(*of_words(traces))
        sides, self.remarks = of_sides(traces)
        channels, self.remarks["channels"] = of_channels(traces)
        self.add(*sides, *channels)
        split = self._split()
        parts = parts_of(split)
        self.remarks["split"] = f"by {SPLIT_PATH}" if split else "none, so duplicates are looked for in the whole"
        if surveys := sum(trace.survey for trace in traces):
            self.remarks["survey"] = f"{surveys} episodes are poses without time or motion: not checked for these"
        self.add(*of_scenes(traces, parts), *of_duplicates(traces, parts, limits))

    def _split(self) -> Split | None:
        if not (self.dataset.root / SPLIT_PATH).is_file():
            return None
        try:
            return load_split(self.dataset)
        except DatasetError as error:
            self.add(Finding(Grade.ERROR, "split", str(error), "divide again: mobile-vla data split --again"))
            return None


def _damaged(what: str, episode: int) -> Finding:
    remedy = "restore the file from a copy; mobile-vla data validate lists all damage"
    return Finding(Grade.ERROR, "damage", what, remedy, episode)
