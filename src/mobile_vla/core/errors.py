"""Errors a user can act on: each says what was wrong, with which value, and what to do next."""

from pathlib import Path


class MobileVLAError(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one sentence."""


class ContractMismatchError(MobileVLAError):
    """Two parts that must share one action contract do not."""


class InstructionError(MobileVLAError):
    """An instruction is empty, too long, or names something the robot does not know."""


class DatasetError(MobileVLAError):
    """A data set is missing, damaged, or not in the layout it claims."""


class CheckpointError(MobileVLAError):
    """A checkpoint is missing, damaged, or made for something else."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is cut off, changed, or not what it claims; ``path`` is the one, ``damage`` what is wrong."""

    def __init__(self, path: Path, damage: str) -> None:
        super().__init__(f"{path} is damaged: {damage}")
        self.path, self.damage = path, damage


class UnsafeCheckpointError(CheckpointError):
    """A file asks for what no tensor needs: to import, to call, to build. Nothing of it was carried out.

    ``culprit`` is the opcode ("REDUCE"), the global ("os.system") or the trick ("two entries named ...").
    """

    def __init__(self, path: Path | str, culprit: str, reason: str) -> None:
        super().__init__(f"{path} is not opened: {reason} ({culprit})")
        self.culprit = culprit


class CameraError(MobileVLAError):
    """A camera could not be opened or stopped giving frames."""


class BaseError(MobileVLAError):
    """A base could not be opened, does not answer, or is gone; it has to be opened again."""


class ConfigError(MobileVLAError):
    """A configuration has an unknown key or a value of the wrong kind."""


class TrainingError(MobileVLAError):
    """A training cannot go on: its numbers are not finite any more, or another of its processes ended."""


class SafetyLatchedError(MobileVLAError):
    """Motion was asked for while a stop is latched; it needs an explicit re-arm."""
