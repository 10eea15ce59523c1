"""What is found in a data set, how bad it is, and from where on something counts."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from mobile_vla.core import ConfigError
from mobile_vla.core.backports import StrEnum


class Grade(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # the data contradict themselves, or teach what is wrong
    WARNING = "warning"  # probably not meant: look at it
    NOTE = "note"  # to be known; a sound data set can have it


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    ``check`` names the kind, ``what`` is a sentence with the value in it, ``remedy`` says what to do. ``episode`` and
    ``frame`` say where; None for the whole data set or the whole episode. ``value`` is the measure by which it was
    judged, in the unit that ``what`` names.
    """

    grade: Grade
    check: str
    what: str
    remedy: str
    episode: int | None = None
    frame: int | None = None
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; a value that is not finite becomes None, since JSON has none such."""
        finite = self.value is not None and math.isfinite(self.value)
        return asdict(self) | {"grade": str(self.grade), "value": self.value if finite else None}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From where on something is found. ConfigError for a value that makes no sense.

    Shares of an axis are of its limit in the contract; differences of pictures are in levels of 0..255.
    """

    min_seconds: float = 1.0
    max_seconds: float = 300.0
    moving_share: float = 0.1  # the measured speed from which on a picture must change
    frozen_levels: float = 0.25  # the mean difference below which two pictures are almost the same
    min_contrast: float = 2.0  # the contrast below which almost the same means nothing
    frozen_error_s: float = 1.0
    gap_periods: float = 1.5
    gap_warning_periods: float = 2.5
    rate_error: float = 0.15
    zero_share: float = 0.02  # an action below this on every axis stands still
    max_still: float = 0.6
    min_side: float = 0.25  # the smaller of left and right
    min_episodes: int = 20  # before shares mean anything
    min_for_absence: int = 100  # episodes, before a status or an axis that never occurs is worth a note
    duplicate_levels: float = 3.0
    duplicate_share: float = 0.03  # the mean difference of the actions of two episodes that are almost the same

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be a number above 0, got {value}: leave it out for the usual one")
        if self.min_seconds >= self.max_seconds:
            raise ConfigError(
                f"min_seconds {self.min_seconds} must lie below max_seconds {self.max_seconds}: exchange them"
            )
