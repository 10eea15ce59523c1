"""Tests marked ``needs("cuda")`` are left out where there is no GPU, and the summary says so."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    on_gpu = [item for item in items if any("cuda" in mark.args for mark in item.iter_markers("needs"))]
    if not on_gpu:
        return
    import torch

    if torch.cuda.is_available():
        return
    config.hook.pytest_deselected(items=on_gpu)
    items[:] = [item for item in items if item not in on_gpu]
    config.stash[LEFT_OUT] = len(on_gpu)


LEFT_OUT = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    if count := config.stash.get(LEFT_OUT, 0):
        terminalreporter.section("left out: there is no CUDA device")
        terminalreporter.line(f"engine/backends: {count} tests of graphs on a GPU")
