"""Checkpoints on disk: found, verified, salvaged, safe to open. Imports without torch."""

from mobile_vla.checkpoint.manifest import Metric
from mobile_vla.checkpoint.store import Checkpoint, is_saved, load, save

__all__ = ["Checkpoint", "Metric", "is_saved", "load", "save"]
