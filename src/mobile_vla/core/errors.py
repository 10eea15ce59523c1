"""Errors a user can act on: each says what was wrong, with which value, and what to do next."""


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


class CameraError(MobileVLAError):
    """A camera could not be opened or stopped giving frames."""


class ConfigError(MobileVLAError):
    """A configuration has an unknown key or a value of the wrong kind."""


class SafetyLatchedError(MobileVLAError):
    """Motion was asked for while a stop is latched; it needs an explicit re-arm."""
