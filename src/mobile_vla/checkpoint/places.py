"""Where checkpoints lie: folders are walked, and the files of each folder put together to checkpoints."""

import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.checkpoint.about import EVALUATION, SALVAGE_REPORT, json_of
from mobile_vla.checkpoint.formats.kinds import identify, unfinished
from mobile_vla.checkpoint.formats.shards import INDEX_SUFFIX, numbered_sets
from mobile_vla.checkpoint.manifest import MANIFEST
from mobile_vla.checkpoint.store import CONFIG, WEIGHTS
from mobile_vla.core import CheckpointError

_SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", "site-packages", "dist-packages"}
_ONE_FILE = re.compile(r".+\.(pth|pt|ckpt|bin|safetensors)(\.tar)?", re.IGNORECASE)
_LOOKS_LIKE_ONE = re.compile(r"\.(pth|pt|ckpt|bin|safetensors)\b|\.incomplete$", re.IGNORECASE)
_OURS = re.compile(r"(weights|training)(-\d+)?\.safetensors|config(-\d+)?\.json")
_OUR_WEIGHTS = re.compile(r"weights(-\d+)?\.safetensors")
_PULL = re.compile(r"\..+\.pull")
_OUR_NOTES = {MANIFEST, SALVAGE_REPORT, EVALUATION}
_MODEL_BIN = re.compile(r"(pytorch_model|adapter_model|diffusion_pytorch_model|consolidated|model)\b.*\.bin")
_NO_MODEL = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state(_\d+)?)\.(pt|pth|bin)|"
    r"(optimizer_state|rng_state)\.safetensors|policy_(pre|post)processor.*\.safetensors"
)
"""What Hugging Face's trainer and LeRobot save beside a model."""


@dataclass(frozen=True, slots=True)
class Place:
    """One checkpoint, or what is left of one: ``path`` is what to verify, ``files`` what it consists of.

    ``ours``: a checkpoint folder of mobile-vla. ``remark`` says why it is unfinished, or cannot be looked into; then
    there are no files.
    """

    path: Path
    files: tuple[Path, ...]
    ours: bool = False
    remark: str = ""


def places(roots: Sequence[Path], most_folders: int | None = None) -> Iterator[Place]:
    """Every checkpoint below ``roots``, which may be files; each real folder is looked into once.

    Links to folders are followed after all else, and never upwards. ``most_folders``: stop after so many.
    """
    above = {folder for root in roots for folder in (root.resolve(), *root.resolve().parents)}
    seen: set[tuple[int, int]] = set()
    waiting, links = list(reversed(roots)), deque[Path]()
    while waiting or links:
        here = waiting.pop() if waiting else links.popleft()
        try:
            if here.is_file():
                yield Place(here, (here,))
                continue
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            yield Place(here, (), remark=f"it cannot be looked into: {error.strerror}")
            continue
        if _PULL.fullmatch(here.name):
            yield Place(here, (), remark="an unfinished pull: the same command again goes on with it")
            continue
        folders = {entry.name: entry for entry in entries if _is_folder(entry)}
        yield from _grouped(here, {entry.name: Path(entry.path) for entry in entries if entry.name not in folders})
        below = [entry for name, entry in folders.items() if name not in _SKIPPED]
        waiting += [Path(entry.path) for entry in reversed(below) if not entry.is_symlink()]
        links += [Path(e.path) for e in below if e.is_symlink() and Path(e.path).resolve() not in above]
        if most_folders is not None and len(seen) >= most_folders:
            return


def _grouped(folder: Path, files: Mapping[str, Path]) -> Iterator[Place]:
    """The checkpoints among the files of one folder."""
    left = dict(files)
    if _is_ours(folder, files):
        own = [left.pop(name) for name in files if name in _OUR_NOTES or _OURS.fullmatch(name)]
        yield Place(folder, tuple(own), ours=True)
    elif SALVAGE_REPORT in files and WEIGHTS in files:
        yield Place(left.pop(WEIGHTS), (files[WEIGHTS], left.pop(SALVAGE_REPORT)))
    for shards in _sets_of_shards(folder, files):
        yield shards
        for path in shards.files:
            left.pop(path.name, None)
    trained = any(name.endswith(("config.json", "trainer_state.json", "training_step.json")) for name in files)
    for name, path in left.items():
        if name.startswith("._") or (trained and _NO_MODEL.fullmatch(name)):
            continue
        if remark := unfinished(path):
            if _LOOKS_LIKE_ONE.search(name):
                yield Place(path, (path,), remark=remark)
        elif _ONE_FILE.fullmatch(name) and _may_be_one(path):
            yield Place(path, (path,))


def _is_ours(folder: Path, files: Mapping[str, Path]) -> bool:
    """By weights with a manifest or a config of ours, or by a manifest of ours that has lost its weights."""
    weights = any(_OUR_WEIGHTS.fullmatch(name) for name in files)
    if MANIFEST in files:
        return weights or {"policy", "files", "weights"} <= set(json_of(folder / MANIFEST))
    return weights and {"policy", "contract"} <= set(json_of(folder / CONFIG))


def _sets_of_shards(folder: Path, files: Mapping[str, Path]) -> Iterator[Place]:
    """By their index, or by their numbers where one set in the folder has none."""
    indices = [path for name, path in files.items() if name.endswith(INDEX_SUFFIX)]
    numbered = numbered_sets(folder) if any("-of-" in name for name in files) else []
    for index in indices:
        shards = [path for one in numbered if f"{one.suffix}." in index.name for path in one.files.values()]
        yield Place(index, (index, *shards))
    if not indices and len(numbered) == 1:
        yield Place(folder, tuple(numbered[0].files.values()))


def _may_be_one(path: Path) -> bool:
    """A .bin with a name of its own is looked into first: many programs call their files so."""
    if path.suffix.lower() != ".bin" or _MODEL_BIN.fullmatch(path.name):
        return True
    try:
        return identify(path).format is not None
    except CheckpointError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Links to nowhere are none, and are told as files that cannot be read."""
    try:
        return entry.is_dir()
    except OSError:
        return False
