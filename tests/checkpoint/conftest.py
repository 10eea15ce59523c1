import numpy as np
import pytest

from mobile_vla.checkpoint import Checkpoint, save
from mobile_vla.core import ActionContract


@pytest.fixture
def arrays():
    rng = np.random.default_rng(5)
    return {
        "eye.weight": rng.normal(size=(16, 40)).astype(np.float32),
        "eye.bias": rng.normal(size=16).astype(np.float32),
        "memory.weight": rng.normal(size=(24, 24)).astype(np.float16),
        "steps": np.array(7, np.int64),
    }


@pytest.fixture
def ours(tmp_path, arrays):
    """A folder of our own format, with an optimizer's state."""
    training = {f"exp_avg.{name}": array.astype(np.float32) * 0.5 for name, array in arrays.items()}
    made = Checkpoint("compact", {"words": 96}, ActionContract(), {"seed": 1}, arrays, training, step=40)
    save(tmp_path / "ours", made)
    return tmp_path / "ours"


@pytest.fixture
def flip():
    def flip_bit(path, place):
        data = bytearray(path.read_bytes())
        data[place] ^= 16
        path.write_bytes(data)

    return flip_bit
