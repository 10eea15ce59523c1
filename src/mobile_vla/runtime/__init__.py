"""The loop that drives: camera, policy, chunk queue, safety, base. Imports no torch."""

from mobile_vla.runtime.chunks import ChunkQueue, Plan
from mobile_vla.runtime.loop import DriveConfig, DriveLoop
from mobile_vla.runtime.records import Ending, Outcome, Tick

__all__ = ["ChunkQueue", "DriveConfig", "DriveLoop", "Ending", "Outcome", "Plan", "Tick"]
