"""Checkpoints on disk: a folder with weights, config and a manifest of hashes. Imports without torch."""

from mobile_vla.checkpoint.store import Checkpoint, is_saved, load, save

__all__ = ["Checkpoint", "is_saved", "load", "save"]
