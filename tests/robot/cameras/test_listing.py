import os

import pytest

from mobile_vla.robot.cameras import list_cameras
from mobile_vla.robot.cameras.listing import present


@pytest.fixture
def machine(tmp_path):
    """Two USB cameras, each with a second node for metadata, as /sys and /dev show them."""
    sys, dev = tmp_path / "sys", tmp_path / "dev"
    dev.mkdir()
    for number, name, index in [(0, "HD Webcam", 0), (1, "HD Webcam", 1), (2, "Fisheye", 0), (10, "Fisheye", 1)]:
        node = sys / f"video{number}"
        node.mkdir(parents=True)
        (node / "name").write_text(f"{name}\n")
        (node / "index").write_text(f"{index}\n")
        (dev / f"video{number}").touch()
    (sys / "v4l-subdev0").mkdir()
    return sys, dev


def test_cameras_are_listed_by_number_with_their_names(machine):
    found = list_cameras(*machine)
    assert [camera.device.name for camera in found] == ["video0", "video1", "video2", "video10"]
    assert [camera.name for camera in found] == ["HD Webcam", "HD Webcam", "Fisheye", "Fisheye"]
    assert [camera.index for camera in found] == [0, 1, 0, 1]
    assert all(camera.permitted for camera in found)


def test_the_words_name_only_the_nodes_that_give_pictures(machine):
    _, dev = machine
    assert present(*machine) == f"present are {dev / 'video0'} (HD Webcam), {dev / 'video2'} (Fisheye)"


def test_a_node_that_vanished_has_no_permission(machine):
    os.remove(machine[1] / "video2")
    assert [camera.permitted for camera in list_cameras(*machine)] == [True, True, False, True]


def test_a_machine_without_cameras_lists_none(tmp_path):
    assert list_cameras(tmp_path / "none", tmp_path) == ()
    assert "none is present" in present(tmp_path / "none", tmp_path)


def test_a_node_without_attributes_is_still_listed(tmp_path):
    (tmp_path / "video7").mkdir()
    (camera,) = list_cameras(tmp_path, tmp_path / "dev")
    assert (camera.name, camera.index) == ("unnamed", 0)


def test_this_machine_can_be_asked():
    assert isinstance(list_cameras(), tuple)
