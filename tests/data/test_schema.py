import numpy as np
import pytest

from mobile_vla.core import ActionContract, Status
from mobile_vla.data import schema as s


def test_every_name_is_used_once_and_fits_lerobot(contract):
    names = [feature.name for feature in s.all_features(contract, (96, 192, 3))]
    assert len(names) == len(set(names))
    assert not [name for name in names if "/" in name]


def test_chunk_follows_the_horizon():
    features = {f.name: f for f in s.all_features(ActionContract(horizon=5), (8, 8, 3))}
    assert features[s.ACTION_CHUNK].shape == (15,)
    assert features[s.ACTION_CHUNK].names[3] == "linear_x_1"


@pytest.mark.parametrize("feature", s.all_features(ActionContract(), (96, 192, 3)), ids=lambda f: f.name)
def test_names_are_as_many_as_numbers(feature):
    if feature.names and not feature.is_image:
        assert len(feature.names) == feature.width
    assert feature.to_info()["shape"] == list(feature.shape)


def test_numbers_of_the_labels_are_stable():
    assert s.STATUSES.index(Status.ARRIVED) == 2
    assert [str(kind) for kind in s.KINDS[:3]] == ["cup", "bottle", "ball"]
    assert [str(colour) for colour in s.COLOURS[:2]] == ["red", "orange"]


def test_timestamps_are_frame_index_over_fps():
    assert np.allclose(s.timestamps(4, 5.0), [0, 0.2, 0.4, 0.6])
    assert s.timestamps(4, 5.0).dtype == np.float32
