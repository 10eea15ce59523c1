import copy
import shutil
from pathlib import Path

import pytest

from peer_lerobot_data import MAPPING

HERE = Path(__file__).parent


@pytest.fixture
def answers():
    """The mapping of LeRobot's fixture, to be changed at will."""
    return copy.deepcopy(MAPPING)


@pytest.fixture
def lerobot(tmp_path):
    """A copy of what LeRobot wrote, to be damaged at will, by the type of its camera."""

    def copied(dtype):
        return Path(shutil.copytree(HERE / f"lerobot_{dtype}", tmp_path / f"theirs_{dtype}", dirs_exist_ok=True))

    return copied
