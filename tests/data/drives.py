"""Sound drives to plant faults in: a textured wall that goes by as the base turns, words that fit the motion."""

from typing import Any

import numpy as np

from mobile_vla.core import ActionContract
from mobile_vla.data import EpisodeWriter
from mobile_vla.data import schema as s

SHAPE = (48, 96, 3)
CONTRACT = ActionContract()
PERIOD_NS = 200_000_000
RGB = {s.Colour.RED: (220, 30, 30), s.Colour.BLUE: (30, 40, 220)}
WORDS = {
    "go to the red cup": (0.3, 0.0, 0.0),
    "pass the box on the left and go to the red cup": (0.3, 0.2, 0.0),
    "상자 오른쪽으로 돌아 파란 공까지 가": (0.3, -0.2, 0.0),
    "turn left": (0.0, 0.0, 0.8),
    "turn right": (0.0, 0.0, -0.8),
    "come closer": (0.2, 0.0, 0.0),
}
"""Instructions, and the velocity with which they begin; what is sideways goes back in the second half."""


def drive(seed: int = 0, words: str = "go to the red cup", length: int = 12, tint: float = 0.0) -> list[dict[str, Any]]:
    """Frames of an episode; ``tint`` is added to red and taken from blue."""
    rng = np.random.default_rng([7, seed])
    wall = np.repeat(np.repeat(rng.integers(40, 210, (12, 200, 3)), 4, axis=0), 4, axis=1).astype(np.int64)
    wall += np.rint(np.array([tint, 0, -tint])).astype(np.int64)
    forward, lateral, yaw = WORDS[words]
    frames = []
    for place in range(length):
        velocity = np.array([forward, lateral if place < length // 2 else -lateral, yaw], np.float32)
        frames.append(
            {
                s.IMAGE_FRONT: np.clip(wall[:, 5 * place : 5 * place + SHAPE[1]], 0, 255).astype(np.uint8),
                s.STATE: velocity,
                s.ACTION: velocity,
                s.CAPTURE_NS: 10**18 + place * PERIOD_NS,
                s.SEQUENCE: 6 * place,
            }
        )
    return frames


def mark(frames: list[dict[str, Any]], colour: s.Colour, pixels: tuple[int, int, int] | None = None) -> None:
    """Put a box of ``colour`` (or of other ``pixels``) into each picture, and its label beside it."""
    for frame in frames:
        picture = frame[s.IMAGE_FRONT].copy()
        picture[16:32, 40:60] = RGB[colour] if pixels is None else pixels
        labels = np.full((s.MAX_OBJECTS, len(s.OBJECT_FIELDS)), -1, np.float32)
        labels[0] = (s.KINDS.index(s.Kind.CUP), s.COLOURS.index(colour), 50, 24, 10, 8, 1.0, 1.5)
        frame |= {s.IMAGE_FRONT: picture, s.OBJECTS: labels}


def write(root, episodes, session=None):
    """``episodes``: (words, frames) or (words, frames, extras). Gives the folder."""
    with EpisodeWriter(root, CONTRACT, SHAPE, session or {}) as writer:
        for place, (words, frames, *extras) in enumerate(episodes, writer.total_episodes):
            noted = extras[0] if extras else {s.EXTRA_SCENE_SEED: place}
            with writer.episode(words, noted) as episode:
                for frame in frames:
                    episode.add(frame)
    return root


def sound(count, length=12):
    """Different episodes, all kinds of words in turn."""
    kinds = list(WORDS)
    return [(kinds[place % len(kinds)], drive(place, kinds[place % len(kinds)], length)) for place in range(count)]
