"""The action contract: what the numbers of an action mean. It travels inside every data set and checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from mobile_vla.core.errors import ContractMismatchError
from mobile_vla.core.motion import AXES


@dataclass(frozen=True)
class ActionContract:
    """Names, units, signs, limits, rates and normalisation of the actions that a data set holds or a policy gives.

    Normalised actions are ``velocity / limits``, so 1.0 is the fastest the base may go along that axis.
    """

    axes: tuple[str, ...] = AXES
    units: tuple[str, ...] = ("m/s", "m/s", "rad/s")
    signs: tuple[str, ...] = ("forward positive", "left positive", "counter-clockwise positive")
    frame: str = "base_link"
    limits: tuple[float, ...] = (0.6, 0.6, 1.5)
    rate_hz: float = 10.0
    horizon: int = 8
    frame_rate_hz: float = 5.0
    normalisation: str = "limits"

    def __post_init__(self) -> None:
        lengths = {len(self.axes), len(self.units), len(self.signs), len(self.limits)}
        if len(lengths) != 1:
            raise ContractMismatchError("an action contract needs as many units, signs and limits as axes")
        if not all(math.isfinite(limit) and limit > 0 for limit in self.limits):
            raise ContractMismatchError(f"action limits must be positive and finite, got {self.limits}")
        if self.rate_hz <= 0 or self.frame_rate_hz <= 0 or self.horizon < 1:
            raise ContractMismatchError("an action contract needs positive rates and a horizon of at least 1")

    @property
    def limits_array(self) -> NDArray[np.float32]:
        """Shape (3,), float32, in the units of the axes."""
        return np.array(self.limits, dtype=np.float32)

    @property
    def rows_per_frame(self) -> int:
        """Action rows that pass between two camera frames."""
        return max(1, round(self.rate_hz / self.frame_rate_hz))

    def normalise(self, velocities: NDArray[np.floating]) -> NDArray[np.float32]:
        """Velocities (..., 3) in physical units to shares of the limits."""
        return (np.asarray(velocities, dtype=np.float32) / self.limits_array).astype(np.float32)

    def denormalise(self, shares: NDArray[np.floating]) -> NDArray[np.float32]:
        """Shares of the limits (..., 3) to physical units, clipped to the limits."""
        return (np.clip(np.asarray(shares, dtype=np.float32), -1.0, 1.0) * self.limits_array).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Back from ``to_dict``; ContractMismatchError naming ``source`` when a key is missing or unknown."""
        known = set(cls.__dataclass_fields__)
        if set(values) != known:
            missing, unknown = sorted(known - set(values)), sorted(set(values) - known)
            raise ContractMismatchError(
                f"the action contract in {source} lacks {missing or 'nothing'} and has unknown {unknown or 'nothing'}; "
                "it was written by another version of mobile-vla"
            )
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)

    def require_same(self, other: "ActionContract", ours: str, theirs: str) -> None:
        """ContractMismatchError naming both sides and every field in which they differ."""
        mine, yours = self.to_dict(), other.to_dict()
        differing = [key for key in mine if mine[key] != yours[key]]
        if differing:
            details = "; ".join(f"{key}: {ours} has {mine[key]}, {theirs} has {yours[key]}" for key in differing)
            raise ContractMismatchError(
                f"the action contracts of {ours} and {theirs} differ ({details}); "
                "use a checkpoint, data set and robot made for the same contract, or convert one of them"
            )
