"""Waits for what will come, with a generous limit: other programs use the machine too."""

import time

LIMIT_S = 20.0


def until(condition, limit_s=LIMIT_S):
    """The first true value that ``condition`` gives."""
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"it did not happen within {limit_s} s")


def next_frame(camera, limit_s=LIMIT_S):
    return until(lambda: camera.read(0.5), limit_s)


def next_frames(camera, count, limit_s=LIMIT_S):
    return [next_frame(camera, limit_s) for _ in range(count)]
