"""What an instruction means, once understood: the vocabulary that words and worlds share."""

from dataclasses import dataclass

from mobile_vla.core.backports import StrEnum


class Kind(StrEnum):
    """Kinds of object that can be named."""

    CUP = "cup"
    BOTTLE = "bottle"
    BALL = "ball"
    BASKET = "basket"
    BOX = "box"
    CONE = "cone"
    CHAIR = "chair"
    PLANT_POT = "plant_pot"


class Colour(StrEnum):
    """Colours that can be named."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    PURPLE = "purple"


class Side(StrEnum):
    """The side of the obstacles that the robot is to pass on, seen from its start."""

    LEFT = "left"
    RIGHT = "right"


class Mode(StrEnum):
    """What kind of motion is asked for."""

    GO = "go"  # drive to a named target, round the obstacles where a side is named, and stop in front of it
    STOP = "stop"
    TURN_LEFT = "turn_left"  # a quarter turn on the spot
    TURN_RIGHT = "turn_right"
    CLOSER = "closer"  # half a metre forward
    BACK = "back"  # half a metre backward


@dataclass(frozen=True, slots=True)
class Target:
    """A named object; ``colour`` is None where the words name none."""

    kind: Kind
    colour: Colour | None = None

    def matches(self, kind: Kind, colour: Colour) -> bool:
        """An object of this kind and colour answers to the name."""
        return kind is self.kind and self.colour in (None, colour)


@dataclass(frozen=True, slots=True)
class Goal:
    """The meaning of an instruction. ``target`` is given exactly when ``mode`` is GO; ``side`` only then."""

    mode: Mode
    target: Target | None = None
    side: Side | None = None

    def __post_init__(self) -> None:
        if (self.target is not None) != (self.mode is Mode.GO):
            raise ValueError(f"a goal of mode {self.mode} with target {self.target}: only GO has a target, and always")
        if self.side is not None and self.mode is not Mode.GO:
            raise ValueError(f"a goal of mode {self.mode} cannot name a side")
