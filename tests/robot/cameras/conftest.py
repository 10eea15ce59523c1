import pytest

from mobile_vla.core import MonotonicClock


@pytest.fixture
def clock():
    return MonotonicClock()


@pytest.fixture
def opened():
    """Opens a camera and closes it after the test."""
    cameras = []

    def open_it(camera):
        cameras.append(camera)
        camera.open()
        return camera

    yield open_it
    for camera in cameras:
        camera.close()
