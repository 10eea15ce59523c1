"""What can be chosen of a full-size policy. Apart from the networks, so that reading a choice needs no towers."""

from dataclasses import dataclass, field
from typing import ClassVar

from mobile_vla.core import ConfigError
from mobile_vla.policy.heads import HeadConfig


@dataclass(frozen=True)
class VlaConfig:
    """What all of these policies can choose; each adds its towers.

    ``height`` and ``width`` of the picture that the towers see; ``pointer``: width of the keys that words point at;
    ``feature``: width of a frame's feature, 0 for that of the tower that leads.
    """

    height: int = 224
    width: int = 224
    pointer: int = 128
    feature: int = 0
    head: HeadConfig = field(default_factory=HeadConfig)

    towers: ClassVar[tuple[str, ...]] = ()
    """Fields that name a tower's source, in the order in which the towers lead: patches come from the first."""

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.pointer) < 1 or self.feature < 0:
            raise ConfigError("network.height, width and pointer need to be at least 1")

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.height, self.width
