"""Save and load a checkpoint folder: weights, config, perhaps the optimizer's state, and a manifest.

A save is whole or has not happened, wherever it is cut off. New files get names that the folder's manifest does not
name; the new manifest then takes the place of the old in one step; only then do the old files go.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mobile_vla.checkpoint.atomic import PARTIAL, PIECE, require_space, sync_folder, write_bytes
from mobile_vla.checkpoint.formats import safetensors_file
from mobile_vla.checkpoint.formats.safetensors_file import FileRecord, Outgoing, TensorRecord
from mobile_vla.checkpoint.manifest import MANIFEST, Manifest, Metric, read_manifest
from mobile_vla.core import ActionContract, CheckpointError, DamagedCheckpointError

WEIGHTS, CONFIG, TRAINING = "weights.safetensors", "config.json", "training.safetensors"
Tensors = dict[str, NDArray[Any]]
BF16 = np.dtype([("bfloat16", "<u2")])
"""How arrays of bfloat16 come and go: as their bits, for numpy has no such numbers."""

_OURS = tuple(name.partition(".") for name in (WEIGHTS, CONFIG, TRAINING))
_DTYPES = {BF16: "BF16"} | {
    np.dtype(kind): name
    for kind, name in {
        "bool": "BOOL",
        "u1": "U8",
        "i1": "I8",
        "u2": "U16",
        "i2": "I16",
        "f2": "F16",
        "u4": "U32",
        "i4": "I32",
        "f4": "F32",
        "u8": "U64",
        "i8": "I64",
        "f8": "F64",
    }.items()
}
_KINDS = {name: kind for kind, name in _DTYPES.items()}


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds: ``policy`` names the kind, ``network`` its sizes, ``origin`` what it was made from.

    ``training`` is what an optimizer needs to go on, ``step`` and ``metric`` where training stood. ``missing`` and
    ``unproven`` name the tensors that a salvage could not recover, or could not prove.
    """

    policy: str
    network: Mapping[str, Any]
    contract: ActionContract
    origin: Mapping[str, Any]
    tensors: Tensors
    training: Tensors = field(default_factory=dict)
    step: int | None = None
    metric: Metric | None = None
    missing: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder``, or replace what it holds. Each byte is read back from the disk before it counts.

    CheckpointError when the disk is full or broken: what the folder held before is then untouched.
    """
    config = {
        "policy": checkpoint.policy,
        "network": dict(checkpoint.network),
        "contract": checkpoint.contract.to_dict(),
        "origin": dict(checkpoint.origin),
    }
    notes = Notes(checkpoint.step, checkpoint.metric, checkpoint.missing, checkpoint.unproven)
    write(folder, config, _outgoing(checkpoint.tensors), _outgoing(checkpoint.training), notes)


@dataclass(frozen=True, slots=True)
class Notes:
    """What the manifest says of a checkpoint beside its files; the fields are those of ``Checkpoint``."""

    step: int | None = None
    metric: Metric | None = None
    missing: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


def write(
    folder: Path, config: Mapping[str, Any], weights: Sequence[Outgoing], training: Sequence[Outgoing], notes: Notes
) -> None:
    """As ``save``, with tensors that are read piece by piece while they are written."""
    data = json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n"
    parts = {WEIGHTS: weights, TRAINING: training} if training else {WEIGHTS: weights}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        old = _replaced(folder)
        _clear(folder, keep=old)
        tensors = [*weights, *training]
        require_space(folder, sum(each.size for each in tensors) + 1024 * len(tensors) + 2 * len(data))
        names = {name: _free_name(name, old) for name in (*parts, CONFIG)}
        files = {names[part]: safetensors_file.write(folder / names[part], ready) for part, ready in parts.items()}
        files[names[CONFIG]] = FileRecord(len(data), write_bytes(folder / names[CONFIG], data))
        manifest = Manifest(
            policy=config["policy"],
            saved_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            weights=names[WEIGHTS],
            config=names[CONFIG],
            training=names.get(TRAINING),
            step=notes.step,
            metric=notes.metric,
            made_from={
                "contract_sha256": hashlib.sha256(json.dumps(config["contract"], sort_keys=True).encode()).hexdigest(),
                "git_commit": config["origin"].get("git_commit"),
                "data": config["origin"].get("data"),
            },
            files=files,
            missing=notes.missing,
            unproven=notes.unproven,
        )
        write_bytes(folder / MANIFEST, manifest.to_json())
        _clear(folder, keep=set(files))
        sync_folder(folder)
    except OSError as error:
        raise CheckpointError(f"cannot save to {folder}: {error.strerror}; what it held before is untouched") from error


def is_saved(folder: Path) -> bool:
    """A save into ``folder`` was finished; says nothing of damage since."""
    return (folder / MANIFEST).exists()


def load(folder: Path, *, training: bool = False) -> Checkpoint:
    """Read and verify ``folder``; ``training`` asks for the optimizer's state too.

    CheckpointError says what is missing or unknown, DamagedCheckpointError what was changed or cut.
    """
    manifest = read_manifest(folder)
    config = json.loads(_read(folder, manifest, manifest.config))
    tensors = _read_tensors(folder, manifest, manifest.weights)
    state = _read_tensors(folder, manifest, manifest.training) if training and manifest.training else {}
    try:
        return Checkpoint(
            policy=config["policy"],
            network=config["network"],
            contract=ActionContract.from_dict(config["contract"], str(folder)),
            origin=config["origin"],
            tensors=tensors,
            training=state,
            step=manifest.step,
            metric=manifest.metric,
            missing=manifest.missing,
            unproven=manifest.unproven,
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} is no checkpoint of this version of mobile-vla ({error} is missing)"
        ) from error


def _read(folder: Path, manifest: Manifest, name: str) -> bytes:
    with _opened(folder, manifest, name) as file:
        data = file.read()
    _require_hash(folder, manifest, name, hashlib.sha256(data))
    return data


def _read_tensors(folder: Path, manifest: Manifest, name: str) -> Tensors:
    """Each tensor into memory of its own, hashed while it is read: no second copy of the weights is ever held."""
    known, at = manifest.files[name].tensors or {}, manifest.files[name].header_size
    with _opened(folder, manifest, name) as file, ThreadPoolExecutor(1) as beside:
        digest, tensors = hashlib.sha256(file.read(at)), {}
        for each in sorted(known, key=lambda each: (known[each].offset, known[each].size)):
            record = known[each]
            if not _is_sound(record, at, manifest.files[name].size):
                raise DamagedCheckpointError(folder, f"{MANIFEST} places {each} of {name} where it cannot be")
            digest.update(file.read(record.offset - at))
            array = np.empty(record.size, np.uint8)
            _fill(file, array, digest, beside)
            tensors[each] = array.view(_KINDS[record.dtype]).reshape(record.shape)
            at = record.offset + record.size
        digest.update(file.read())
    _require_hash(folder, manifest, name, digest)
    return {each: tensors[each] for each in known}


def _is_sound(record: TensorRecord, at: int, end: int) -> bool:
    """A manifest may carry the right hash and be nonsense, if someone wants it to."""
    if record.dtype not in _KINDS or min(record.shape, default=0) < 0:
        return False
    size = math.prod(record.shape) * _KINDS[record.dtype].itemsize
    return bool(record.size == size and at <= record.offset <= end - size)


def _fill(file: BinaryIO, array: NDArray[np.uint8], digest: Any, beside: Executor) -> None:
    """From the file, piece by piece, each of which is hashed while the next is read."""
    hashing: Future[None] | None = None
    for start in range(0, array.size, PIECE):
        piece = array[start : start + PIECE]
        file.readinto(piece)  # type: ignore[attr-defined]
        if hashing is not None:
            hashing.result()
        hashing = beside.submit(digest.update, piece)
    if hashing is not None:
        hashing.result()


@contextmanager
def _opened(folder: Path, manifest: Manifest, name: str) -> Iterator[BinaryIO]:
    known = manifest.files[name]
    try:
        with (folder / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != known.size:
                raise DamagedCheckpointError(folder, f"{name} has {size} bytes where {known.size} were saved")
            yield file
    except OSError as error:
        raise DamagedCheckpointError(folder, f"{name} cannot be read ({error.strerror})") from error


def _require_hash(folder: Path, manifest: Manifest, name: str, digest: Any) -> None:
    if digest.hexdigest() != manifest.files[name].sha256:
        raise DamagedCheckpointError(folder, f"{name} holds other bytes than were saved")


def _outgoing(tensors: Tensors) -> list[Outgoing]:
    ready = []
    for name, value in tensors.items():
        array = np.asarray(value, order="C")
        if array.dtype not in _DTYPES:
            raise CheckpointError(f"{name} is of dtype {array.dtype}, which a checkpoint cannot hold")
        pieces = partial(_whole, array)
        ready.append(Outgoing(name, _DTYPES[array.dtype], array.shape, pieces))
    return ready


def _whole(array: NDArray[Any]) -> list[bytes | memoryview]:
    return [array.reshape(-1).view(np.uint8).data]


def _replaced(folder: Path) -> set[str]:
    """Names of the files that the folder's manifest needs, all files of ours where it cannot be read."""
    try:
        return set(read_manifest(folder).files)
    except CheckpointError:
        return {path.name for path in folder.iterdir() if _is_ours(path.name)} if is_saved(folder) else set()


def _free_name(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.partition(".")
    names = (name, *(f"{stem}-{number}{dot}{suffix}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove what saves that were cut off have left behind."""
    for path in folder.iterdir():
        if path.name not in keep and (_is_ours(path.name) or path.name.endswith(PARTIAL)):
            path.unlink(missing_ok=True)


def _is_ours(name: str) -> bool:
    for stem, dot, suffix in _OURS:
        middle = name.removeprefix(stem).removesuffix(dot + suffix)
        if name == stem + middle + dot + suffix and (not middle or (middle[1:].isdigit() and middle[0] == "-")):
            return True
    return False
