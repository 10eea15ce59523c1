"""Results kept line by line as they come, so that an evaluation that was cut off goes on where it was."""

import json
from enum import Enum
from pathlib import Path

import dacite

from mobile_vla.core import ConfigError
from mobile_vla.evaluate.episode import EpisodeResult
from mobile_vla.evaluate.plan import PlannedEpisode

_FINGERPRINT = "fingerprint"


class Journal:
    """Results of one checkpoint under one state of the code, known by their ``fingerprint``.

    A last line that was cut off is dropped. ConfigError where the file holds results of something else.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        self._results: dict[tuple[PlannedEpisode, str], EpisodeResult] = {}
        whole = _whole_lines(path)
        if not whole:
            path.write_text(json.dumps({_FINGERPRINT: fingerprint}) + "\n", encoding="utf-8")
            return
        if json.loads(whole[0]).get(_FINGERPRINT) != fingerprint:
            raise ConfigError(
                f"{path} holds an evaluation of another checkpoint, or by other code: "
                "choose another folder, or delete that file"
            )
        path.write_text("".join(line + "\n" for line in whole), encoding="utf-8")
        for line in whole[1:]:
            result = _result(line)
            self._results[result.planned, result.driver] = result

    def __contains__(self, key: tuple[PlannedEpisode, str]) -> bool:
        """This episode was driven by this driver."""
        return key in self._results

    def __getitem__(self, key: tuple[PlannedEpisode, str]) -> EpisodeResult:
        """The result of an episode and its driver."""
        return self._results[key]

    def add(self, result: EpisodeResult) -> None:
        """Keep a result."""
        self._results[result.planned, result.driver] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")


def _whole_lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def _result(line: str) -> EpisodeResult:
    return dacite.from_dict(EpisodeResult, json.loads(line), dacite.Config(cast=[Enum, tuple]))
