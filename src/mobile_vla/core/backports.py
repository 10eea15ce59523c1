"""What Python 3.10 lacks: a robot runs ROS 2 Humble or JetPack 6, and both come with it."""

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """``enum.StrEnum`` as of 3.11: members are strings and print as their values."""

        __str__ = str.__str__
        __format__ = str.__format__  # type: ignore[assignment]

        @staticmethod
        def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
            return name.lower()


__all__ = ["StrEnum"]
