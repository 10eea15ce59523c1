"""The manifest of our checkpoint folders: which files they consist of, and what every byte of them must hash to.

It is written last, so a folder without one is a save that did not end; and it carries a hash of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dacite

from mobile_vla.checkpoint.formats.safetensors_file import FileRecord
from mobile_vla.core import CheckpointError, DamagedCheckpointError

MANIFEST = "manifest.json"
ENGINE, CHECKPOINT = "engine.json", "checkpoint"
"""What an engine's folder has in a manifest's place, and the folder within that holds its checkpoint."""
MAX_BYTES = 256 * 2**20

_FORMAT, _SELF = 2, "manifest_sha256"


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure by which checkpoints of one kind are compared."""

    name: str
    value: float
    better: Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """``saved_at`` is UTC in ISO 8601; ``files`` maps the names of files beside the manifest to what they hold.

    ``weights``, ``config`` and ``training`` say which of the files is which; ``training`` (the optimizer's state) may
    be missing. ``made_from`` holds the hashes of the action contract, of data and split, and the git commit.
    ``missing`` and ``unproven`` name tensors of a salvaged checkpoint that were not recovered or that nothing proves.
    """

    policy: str
    saved_at: str
    weights: str
    config: str
    training: str | None
    step: int | None
    metric: Metric | None
    made_from: Mapping[str, Any]
    files: Mapping[str, FileRecord]
    missing: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Nothing is missing and everything is proven, as in every checkpoint that was not salvaged."""
        return not self.missing and not self.unproven

    @property
    def identity(self) -> str:
        """SHA-256 over names, types, shapes and bytes of the weights: the same for the same weights saved again."""
        tensors = self.files[self.weights].tensors or {}
        return _digest([[name, each.dtype, each.shape, each.sha256] for name, each in sorted(tensors.items())])

    def to_json(self) -> bytes:
        """With the hash of itself."""
        values = {"format": _FORMAT, **asdict(self)}
        return json.dumps({**values, _SELF: _digest(values)}, indent=1, ensure_ascii=False).encode() + b"\n"


def read_manifest(folder: Path) -> Manifest:
    """CheckpointError where there is none; DamagedCheckpointError where it is not as it was written."""
    path = folder / MANIFEST
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        if (folder / ENGINE).exists():
            raise CheckpointError(engine_instead(folder)) from error
        raise CheckpointError(f"no checkpoint at {folder}: {MANIFEST} cannot be read ({error.strerror})") from error
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(folder, f"{MANIFEST} is not valid JSON ({error})") from error
    if not isinstance(values, dict) or not {"format", "files"} & set(values):
        raise DamagedCheckpointError(folder, f"{MANIFEST} is no manifest of a checkpoint")
    if values.pop("format", 1) != _FORMAT:
        raise CheckpointError(
            f"{folder} was saved by another version of mobile-vla: its {MANIFEST} is not of format "
            f"{_FORMAT}; take its weights over: mobile-vla checkpoint salvage {folder} --out DIR"
        )
    values.pop(_SELF, None)
    try:
        manifest = dacite.from_dict(Manifest, values, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise DamagedCheckpointError(folder, f"{MANIFEST} does not fit: {error}") from error
    if manifest.to_json() != data:  # its own hash among the rest
        raise DamagedCheckpointError(folder, f"{MANIFEST} was changed after it was written")
    named = {manifest.weights, manifest.config} | ({manifest.training} if manifest.training else set())
    if named != set(manifest.files) or any(Path(name).name != name for name in named):
        raise DamagedCheckpointError(folder, f"{MANIFEST} lists other files than it names")
    return manifest


def engine_instead(folder: Path) -> str:
    """A sentence for an engine's folder where a checkpoint is needed."""
    return f"{folder} is an engine: give the checkpoint that it was made from, {folder / CHECKPOINT}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
