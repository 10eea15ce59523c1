"""Save and load a checkpoint folder: ``weights.safetensors``, ``config.json`` and ``manifest.json``.

The manifest holds size and SHA-256 of the others, so that a cut or changed file is found before anything drives on it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from mobile_vla.core import ActionContract, CheckpointError

WEIGHTS, CONFIG, MANIFEST = "weights.safetensors", "config.json", "manifest.json"
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds: ``policy`` names the kind, ``network`` its sizes, ``origin`` what it was made from."""

    policy: str
    network: Mapping[str, Any]
    contract: ActionContract
    origin: Mapping[str, Any]
    tensors: Tensors


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder`` file by file, each whole or not at all, the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "policy": checkpoint.policy,
        "network": dict(checkpoint.network),
        "contract": checkpoint.contract.to_dict(),
        "origin": dict(checkpoint.origin),
    }
    payloads = {
        WEIGHTS: save_safetensors({name: np.ascontiguousarray(value) for name, value in checkpoint.tensors.items()}),
        CONFIG: json.dumps(config, indent=2, ensure_ascii=False).encode() + b"\n",
    }
    manifest = {name: {"bytes": len(data), "sha256": _digest(data)} for name, data in payloads.items()}
    payloads[MANIFEST] = json.dumps({"files": manifest}, indent=2).encode() + b"\n"
    for name, data in payloads.items():
        _write(folder / name, data)


def is_saved(folder: Path) -> bool:
    """A save into ``folder`` was finished; says nothing of damage since."""
    return (folder / MANIFEST).exists()


def load(folder: Path) -> Checkpoint:
    """Read and verify ``folder``. CheckpointError says what is missing, damaged or unknown."""
    manifest = _json(folder, MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {WEIGHTS, CONFIG}:
        raise CheckpointError(f"{folder / MANIFEST} does not list {WEIGHTS} and {CONFIG}; {_ADVICE}")
    for name, known in files.items():
        data = _read(folder, name)
        if len(data) != known["bytes"] or _digest(data) != known["sha256"]:
            raise CheckpointError(
                f"{folder / name} is damaged: it has {len(data)} bytes where {known['bytes']} were saved, "
                f"or other content than was saved; {_ADVICE}"
            )
    config = _json(folder, CONFIG)
    try:
        tensors = load_safetensors(_read(folder, WEIGHTS))
        contract = ActionContract.from_dict(config["contract"], str(folder))
        return Checkpoint(config["policy"], config["network"], contract, config["origin"], tensors)
    except (SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is no checkpoint of mobile-vla ({error}); {_ADVICE}") from error


_ADVICE = "copy it again from where it was made, or train it again (docs/training.md)"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"no checkpoint at {folder}: {name} cannot be read ({error.strerror}); {_ADVICE}"
        ) from error


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        values = json.loads(_read(folder, name))
    except ValueError as error:
        raise CheckpointError(f"{folder / name} is not valid JSON ({error}); {_ADVICE}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{folder / name} does not hold an object; {_ADVICE}")
    return values


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
