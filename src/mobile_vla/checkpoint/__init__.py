"""Checkpoints on disk: a folder with weights, config and a manifest of hashes. Imports without torch."""

from mobile_vla.checkpoint.store import Checkpoint, load, save

__all__ = ["Checkpoint", "load", "save"]
