"""One decision as a program: a graph of ATen operations and its weights, free of this package's code.

All shapes are static. What makes a program faster, on whatever device, begins with what is saved here.
"""

import copy
import hashlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn
from torch.export import ExportedProgram

from mobile_vla.checkpoint.atomic import PIECE, replacing, to_the_disk, write_bytes
from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError, UnsafeCheckpointError
from mobile_vla.policy.step import DecisionStep, step_of

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Of weights and arithmetic, without any quantisation."""

_PARTS = re.compile(
    r"[^/]+/(models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+))"
)


def in_precision(network: nn.Module, precision: str) -> DecisionStep:
    """The network's decision in this precision; the network stays as it is, and is copied where it has another.

    ConfigError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}: choose among {', '.join(PRECISIONS)}")
    wanted = PRECISIONS[precision]
    step = step_of(network)
    if any(each.dtype != wanted for each in step.parameters()):
        step = step_of(copy.deepcopy(network)).to(wanted)
    return step.eval()


def export_program(step: DecisionStep, sessions: int = 1) -> ExportedProgram:
    """The decision of ``sessions`` sessions at once.

    It is called as ``program.module()(*inputs)``, with inputs as from ``step.example``, and gives a Decision's fields.
    """
    with torch.no_grad(), warnings.catch_warnings():
        # an LSTM lists its weights anew where they are exchanged for the tracer's; it puts them back
        warnings.filterwarnings("ignore", message=r"(?s)The tensor attributes? .*_flat_weights")
        return torch.export.export(step, tuple(step.example(sessions)), strict=False)


def save_program(path: Path, program: ExportedProgram, about: Mapping[str, Any]) -> None:
    """Write the program, and beside it ``<name>.json``: its SHA-256 and ``about``, plain values of the caller's.

    Each file is whole or not there. CheckpointError for a full or broken disk.
    """
    with replacing(path) as file:
        torch.export.save(program, file)
        to_the_disk(file)
        digest = _digest(file)
    write_bytes(_note(path), json.dumps({"sha256": digest, "about": dict(about)}, indent=1).encode() + b"\n")


def load_program(path: Path) -> tuple[ExportedProgram, dict[str, Any]]:
    """The program and what its note says about it.

    CheckpointError where a file is missing, DamagedCheckpointError where the program is not what was saved, and
    UnsafeCheckpointError for one that asks for more than tensors and operations.
    """
    try:
        said = json.loads(_note(path).read_bytes())
        with path.open("rb") as file:
            digest = _digest(file)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read ({error.strerror}): export the program again"
        ) from error
    except ValueError as error:
        raise DamagedCheckpointError(_note(path), f"it is not valid JSON ({error}); export it again") from error
    if not isinstance(said, dict) or said.get("sha256") != digest:
        raise DamagedCheckpointError(path, f"its bytes are not those that {_note(path).name} names; export it again")
    _require_inert(path)
    try:
        return torch.export.load(path), dict(said["about"])
    except Exception as error:  # torch says in many ways that it cannot read a program
        raise CheckpointError(
            f"{path} cannot be read by torch {torch.__version__} ({str(error).partition(chr(10))[0]}): export it again"
        ) from error


def _require_inert(path: Path) -> None:
    """torch unpickles some parts of a program, and evaluates symbolic sizes: what we save has neither."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                if not _PARTS.fullmatch(name) or names.count(name) > 1:
                    raise UnsafeCheckpointError(path, name, "it has a part that programs of ours do not have")
            for name in names:
                if name.endswith(".pt"):
                    _require_tensors(path, name, archive.read(name))
                if name.endswith(".json"):
                    for key, value in _pairs(json.loads(archive.read(name))):
                        if key in ("as_expr", "expr_str") or (key == "use_pickle" and value):
                            raise UnsafeCheckpointError(path, f"{key} in {name}", "it asks for more than tensors")
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DamagedCheckpointError(path, f"it is no program of torch.export ({error}); export it again") from error


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and their values, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _pairs(each)


def _require_tensors(path: Path, name: str, data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except Exception as error:  # unpickling can fail in any way
        raise UnsafeCheckpointError(path, name, "its example inputs are more than tensors") from error


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()
