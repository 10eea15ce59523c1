"""Policies: from a frame and words to velocities; the one path from pixels to the network, and checkpoints of it."""
