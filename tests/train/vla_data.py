"""Small data sets that the full-size policies' recipe is tried on, and settings that make it small."""

from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla.core import ActionContract
from mobile_vla.data import Dataset, EpisodeWriter, make_split
from mobile_vla.data import schema as s

CONTRACT = ActionContract(horizon=3)
SHAPE = (32, 64, 3)
GOALS = (("cup", "red", "left"), ("ball", "blue", None), ("basket", "green", "right"))

SMALL = (
    "threads=1",
    "processes=1",
    "names=3",
    "length=3",
    "wordings=2",
    "network.height=96",
    "network.width=192",
    "network.pointer=8",
    "network.head.hidden=16",
    "network.head.layers=1",
    "network.head.window=2",
    "network.head.decoder=[8]",
    *(
        f"{stage}.{key}"
        for stage in ("see", "drive")
        for key in ("steps=3", "batch=4", "warmup=1", "save_every=3", "precision=fp32")
    ),
)
TOWERS = {
    "kosmos_clip": ("network.kosmos=tiny", "network.clip=tiny"),
    "kosmos_lstm": ("network.kosmos=tiny",),
    "clip_lstm": ("network.clip=tiny",),
}


def row(rng: np.random.Generator, place: int, labelled: bool, contract: ActionContract = CONTRACT) -> dict[str, Any]:
    """A frame: of a simulated drive, or, not ``labelled``, of one by hand, where only what was done is known."""
    limits = contract.limits_array
    values = {
        s.IMAGE_FRONT: rng.integers(0, 256, SHAPE, dtype=np.uint8),
        s.STATE: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION_CHUNK: rng.uniform(-limits, limits, (contract.horizon, 3)).astype(np.float32),
        s.CAPTURE_NS: place,
        s.SEQUENCE: place,
    }
    if not labelled:
        values[s.ACTION_CHUNK][1:] = np.nan
        return values
    objects = np.full((s.MAX_OBJECTS, len(s.OBJECT_FIELDS)), -1.0, dtype=np.float32)
    objects[:3] = [[k, k % 6, rng.uniform(8, 56), rng.uniform(8, 24), 4, 3, rng.random(), 1.5] for k in range(3)]
    return values | {
        s.STATUS: int(rng.integers(4)),
        s.GROUNDING_VISIBLE: float(rng.random()),
        s.GROUNDING_BOX: np.sort(rng.random((2, 2)), axis=0).astype(np.float32).ravel(),
        s.GROUNDING_BEARING: float(rng.normal()),
        s.GROUNDING_DISTANCE: float(rng.uniform(0.3, 3.0)),
        s.OBJECTS: objects,
        s.RANGES: rng.uniform(0.1, 5, s.RANGE_COLUMNS).astype(np.float32),
    }


def written(
    root: Path, episodes: int = 8, frames: int = 4, labelled: bool = True, contract: ActionContract = CONTRACT
) -> Path:
    """A data set with a split in which every third episode or so is held out."""
    rng = np.random.default_rng(3)
    with EpisodeWriter(root, contract, SHAPE, {"made": "for a test"}) as writer:
        for number in range(episodes):
            kind, colour, side = GOALS[number % len(GOALS)]
            extras = {"goal_mode": "go", "goal_kind": kind, "goal_colour": colour, "goal_side": side}
            extras["scene_seed"] = number
            with writer.episode(f"go to the {colour} {kind}", extras if labelled else {}) as episode:
                for place in range(frames):
                    episode.add(row(rng, place, labelled, contract))
    make_split(Dataset.open(root), (0.7, 0.3, 0.0))
    return root
