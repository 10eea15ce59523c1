"""Which of many checkpoints stay: the last ones, the best ones, and always one that is whole."""

import shutil
from pathlib import Path

from mobile_vla.checkpoint.manifest import MANIFEST, Manifest, read_manifest
from mobile_vla.checkpoint.store import is_saved
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError

STEP_PREFIX, START_PREFIX = "step-", "start-"
"""Names of the folders that a training keeps to resume from: its steps, and what it began with."""


def step_folder(parent: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies; names sort as steps do."""
    return parent / f"{STEP_PREFIX}{step:08d}"


def saved_steps(parent: Path) -> list[Path]:
    """The folders of steps below ``parent`` whose save ended, oldest first."""
    return [folder for folder in sorted(parent.glob(f"{STEP_PREFIX}*")) if _manifest(folder) is not None]


def newest_whole(parent: Path) -> Path | None:
    """The latest step whose every byte is right; damaged ones are passed over."""
    return next((folder for folder in reversed(saved_steps(parent)) if is_whole(folder)), None)


def is_whole(folder: Path) -> bool:
    """Every byte was read and is right."""
    try:
        return verify(folder).state is State.WHOLE
    except CheckpointError:
        return False


def prune(parent: Path, *, last: int, best: int = 1) -> list[Path]:
    """Delete the steps below ``parent`` but for the ``last`` and the ``best`` ones; returns what was deleted.

    Nothing goes unless one of those that stay has been read and is whole; a folder that is deleted loses its manifest
    first, so a kill in between leaves no half checkpoint that looks like one. Steps whose save did not end go too, but
    not those whose manifest is damaged: they may be worth salvaging.
    """
    if last < 1:
        raise ValueError("at least the last one has to stay")
    steps = saved_steps(parent)
    stay = set(steps[-last:]) | set(_best(steps, best))
    gone = [folder for folder in steps if folder not in stay]
    if not any(is_whole(folder) for folder in reversed(steps) if folder in stay):
        return []
    unfinished = [folder for folder in parent.glob(f"{STEP_PREFIX}*") if folder.is_dir() and not is_saved(folder)]
    for folder in (*gone, *unfinished):
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return gone


def _best(steps: list[Path], count: int) -> list[Path]:
    manifests = [(folder, _manifest(folder)) for folder in steps]
    judged = [(folder, one.metric) for folder, one in manifests if one is not None and one.metric is not None]
    if not judged:
        return []
    name = judged[-1][1].name
    same = [(folder, metric) for folder, metric in judged if metric.name == name]
    same.sort(key=lambda item: item[1].value if item[1].better == "lower" else -item[1].value)
    return [folder for folder, _ in same[:count]]


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except CheckpointError:
        return None
