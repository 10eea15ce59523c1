import time

import pytest


@pytest.fixture
def until():
    """Waits for a condition, ten seconds at most; returns its last value."""

    def wait(condition, limit_s=10.0):
        end_s = time.monotonic() + limit_s
        while not (value := condition()) and time.monotonic() < end_s:
            time.sleep(0.005)
        return value

    return wait
