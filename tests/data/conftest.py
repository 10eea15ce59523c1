from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_vla.core import ActionContract
from mobile_vla.data import EpisodeWriter
from mobile_vla.data import schema as s

SHAPE = (16, 32, 3)
Record = Callable[..., Path]


def frame(seed: int, place: int, contract: ActionContract) -> dict[str, Any]:
    """A frame whose every value follows from ``seed`` and ``place``."""
    rng = np.random.default_rng([seed, place])
    limits = contract.limits_array
    pixels = np.broadcast_to(rng.integers(0, 256, 3), SHAPE).astype(np.uint8)
    return {
        s.IMAGE_FRONT: pixels,
        s.STATE: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION: rng.uniform(-limits, limits).astype(np.float32),
        s.ACTION_CHUNK: rng.uniform(-1, 1, (contract.horizon, 3)).astype(np.float32),
        s.STATUS: int(rng.integers(0, 4)),
        s.GROUNDING_VISIBLE: float(rng.random()),
        s.GROUNDING_BOX: rng.random(4).astype(np.float32),
        s.GROUNDING_BEARING: float(rng.normal()),
        s.GROUNDING_DISTANCE: float(rng.random()),
        s.OBJECTS: rng.random((s.MAX_OBJECTS, len(s.OBJECT_FIELDS))).astype(np.float32),
        s.RANGES: rng.random(s.RANGE_COLUMNS).astype(np.float32),
        s.CAPTURE_NS: 1_700_000_000_000_000_000 + place * 200_000_000,
        s.SEQUENCE: place,
    }


@pytest.fixture
def contract() -> ActionContract:
    return ActionContract(horizon=4)


@pytest.fixture
def make_frame(contract: ActionContract) -> Callable[[int, int], dict[str, Any]]:
    return lambda seed, place: frame(seed, place, contract)


@pytest.fixture
def record(tmp_path: Path, contract: ActionContract) -> Record:
    """Records episodes of the given lengths, seeded by ``first_seed`` and up, and gives their folder."""

    def make(name: str, lengths: list[int], first_seed: int = 0, words: str = "go to the red cup") -> Path:
        root = tmp_path / name
        with EpisodeWriter(root, contract, SHAPE, {"seed": first_seed}) as writer:
            for seed, length in enumerate(lengths, first_seed):
                with writer.episode(words, {s.EXTRA_SCENE_SEED: seed}) as episode:
                    for place in range(length):
                        episode.add(frame(seed, place, contract))
        return root

    return make
