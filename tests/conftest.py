"""Tests run side by side, one process a core: each computes on one thread, and so does what it starts.

Where torch or the simulator is not installed, as on a robot, the tests that need it are not collected (see absent.py).
"""

import os

from hypothesis import settings

import absent

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_ignore_collect(collection_path):
    return True if absent.lacks(collection_path) else None


def pytest_collection_modifyitems(config, items):
    needed = {item: {mark.args[0] for mark in item.iter_markers("needs")} for item in items}
    if left_out := [item for item in items if needed[item] & absent.ABSENT]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter):
    if lines := absent.sentences():  # here, as pytest prints no header when it is quiet
        terminalreporter.section("not collected: an optional part is not installed")
        for line in lines:
            terminalreporter.line(line)
