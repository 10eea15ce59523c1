"""Who drove at each frame, as one word beside an episode: the columns of a data set stay as they are.

``EXTRA_FRAMES_BY`` holds runs of frames, e.g. "policy 0-41, operator 42-58, nobody 59-63". ``nobody``: the operator had
let go, and the robot stood until somebody took it again.
"""

from collections.abc import Sequence

from mobile_vla.core import DatasetError
from mobile_vla.core.backports import StrEnum

EXTRA_FRAMES_BY = "frames_by"


class Driver(StrEnum):
    """Who drove at a frame."""

    POLICY = "policy"
    OPERATOR = "operator"
    NOBODY = "nobody"


def frames_by(drivers: Sequence[Driver]) -> str:
    """The word for one driver a frame."""
    runs: list[tuple[Driver, int, int]] = []
    for place, driver in enumerate(drivers):
        if runs and runs[-1][0] is driver:
            runs[-1] = (driver, runs[-1][1], place)
        else:
            runs.append((driver, place, place))
    return ", ".join(f"{driver.value} {first}-{last}" for driver, first, last in runs)


def drivers_of(text: str, length: int) -> list[Driver]:
    """Back from ``frames_by``: one driver for each of ``length`` frames; DatasetError for anything else."""
    drivers: list[Driver] = []
    try:
        for run in text.split(", ") if text else []:
            word, span = run.split(" ")
            first, last = map(int, span.split("-"))
            if first != len(drivers) or not first <= last < length:
                raise ValueError(f"the run {run!r} does not follow")
            drivers += [Driver(word)] * (last - first + 1)
        if len(drivers) != length:
            raise ValueError(f"it tells of {len(drivers)} frames")
    except ValueError as error:
        raise DatasetError(f"{EXTRA_FRAMES_BY} {text!r} does not fit {length} frames: {error}") from error
    return drivers


def driver_of_episode(drivers: Sequence[Driver]) -> str:
    """One word for the whole: "operator", "policy", or "policy corrected by operator"."""
    if set(drivers) == {Driver.POLICY}:
        return "policy"
    return "policy corrected by operator" if Driver.POLICY in drivers else "operator"
