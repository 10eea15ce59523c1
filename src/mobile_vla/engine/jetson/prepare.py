"""A folder to be copied to a Jetson: the graph, PyTorch's answers to real frames, the checkpoint, what builds it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobile_vla import __version__
from mobile_vla.checkpoint.atomic import PARTIAL, write_bytes
from mobile_vla.checkpoint.manifest import CHECKPOINT, read_manifest
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.core.provenance import git_commit
from mobile_vla.engine.fingerprint import INSTRUCTIONS
from mobile_vla.engine.folder import bring_checkpoint, count_parameters, exchange, require_checkpoint, require_room
from mobile_vla.engine.jetson.build_engine.check import INPUT, OUTPUT, WHICH
from mobile_vla.engine.jetson.build_engine.finish import DRAFT, record
from mobile_vla.engine.jetson.graph import batches, write_typed_graph
from mobile_vla.engine.jetson.plain import PRECISIONS, plain_inputs, plain_step
from mobile_vla.engine.onnx_ import GRAPH, OUTPUTS, arrays, input_names
from mobile_vla.policy.step import DecisionStep, Inputs, step_of
from mobile_vla.policy.weights import load_network

BUILDER, REFERENCES = "build_engine", "references.npz"
FRAMES = 50
"""Decisions to check on that are enough, and whose pictures are few megabytes."""
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "fp32": {"chunk_worst": 0.002, "chunk_p99": 0.0005, "status_equal": 0.99},
    "fp16": {"chunk_worst": 0.02, "chunk_p99": 0.005, "status_equal": 0.98},
    "int8": {"chunk_worst": 0.15, "chunk_p99": 0.06, "status_equal": 0.95},
}
"""What an engine may differ from PyTorch in float32, as ``build_engine.check.compare`` counts; else it is not used."""


def prepare_for_jetson(
    checkpoint: Path,
    out: Path,
    frames: Sequence[Inputs],
    precision: str = "fp16",
    sessions: int = 1,
    calibration: Sequence[Inputs] = (),
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Make ``out``, whole or as it was before; on the Jetson, ``python3 -m build_engine`` in it makes an engine of it.

    ``frames``: real decisions of one session each, to check the engine on; ``calibration``: others, for int8 alone.
    ConfigError for an unknown precision, for no frames, for ``sessions`` below 1, and where ``out`` holds anything but
    such a folder; errors of ``load_network``.
    """
    require_possible(checkpoint, out, precision)
    if sessions < 1 or not frames:
        raise ConfigError("an engine needs at least one session, and at least one frame to be checked on")
    partial = out.with_name(f".{out.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        bring_checkpoint(checkpoint, partial / CHECKPOINT)
        known = read_manifest(checkpoint)
        step = step_of(load_network(partial / CHECKPOINT))
        write_typed_graph(step, partial, precision, sessions, calibration)
        kept: dict[str, Any] = references(step, frames, sessions)
        np.savez_compressed(partial / REFERENCES, **kept)
        _bring_builder(partial / BUILDER)
        manifest = {
            "format": 1,
            "engine": "tensorrt",
            "precision": precision,
            "sessions": sessions,
            "policy": known.policy,
            "identity": known.identity,
            "parameters": count_parameters(step),
            "machine": {},
            "files": {},
            "made": {
                "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "git_commit": git_commit(),
                "mobile_vla": __version__,
            },
            "shorten": "",
            "notes": dict(notes or {}),
        }
        _draft(partial, manifest, TOLERANCES[precision])
        exchange(partial, out)
    except OSError as error:
        raise CheckpointError(f"the folder cannot be written to {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_possible(checkpoint: Path, out: Path, precision: str) -> None:
    """The ConfigErrors of ``prepare_for_jetson`` that can be told before anything is done."""
    if precision not in PRECISIONS:
        raise ConfigError(f"TensorRT is given no precision {precision!r}: choose among {', '.join(PRECISIONS)}")
    require_checkpoint(checkpoint)
    if not is_prepared(out):
        require_room(out)


def is_prepared(folder: Path) -> bool:
    """It was made by ``prepare_for_jetson``."""
    return (folder / DRAFT).exists()


def references(step: DecisionStep, frames: Sequence[Inputs], sessions: int = 1) -> dict[str, NDArray[Any]]:
    """Batches of real inputs and what PyTorch in float32 makes of them, as ``build_engine.check.References`` reads it.

    An input that several batches share, an instruction for one, is kept once.
    """
    step = plain_step(step, "fp32")
    names = input_names(step)
    given = [plain_inputs(each) for each in batches(frames, sessions)]
    kept: dict[str, NDArray[Any]] = {}
    for name, values in _by_name([arrays(each, names) for each in given]).items():
        distinct, which = _distinct(values)
        kept[INPUT + name], kept[WHICH + name] = distinct, which
    answers = [_decide(step, each) for each in given]
    for name, values in _by_name(answers).items():
        kept[OUTPUT + name] = np.stack(values)
    return kept


@torch.inference_mode()
def _decide(step: DecisionStep, inputs: Inputs) -> dict[str, NDArray[Any]]:
    return {name: each.numpy() for name, each in zip(OUTPUTS, step(*inputs), strict=True)}


def _by_name(rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, list[NDArray[Any]]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _distinct(values: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Each array once, and for each of ``values`` its place among them."""
    places: dict[bytes, int] = {}
    which = [places.setdefault(each.tobytes(), len(places)) for each in values]
    firsts = [which.index(place) for place in range(len(places))]
    return np.stack([values[first] for first in firsts]), np.array(which, dtype=np.int64)


def _draft(folder: Path, manifest: Mapping[str, Any], tolerances: Mapping[str, float]) -> None:
    names = [each for each in sorted(folder.rglob("*")) if each.is_file() and each.parent.name != CHECKPOINT]
    draft = {
        "format": 1,
        "graph": GRAPH,
        "references": REFERENCES,
        "tolerances": dict(tolerances),
        "instructions": sorted(INSTRUCTIONS),
        "files": {each.relative_to(folder).as_posix(): record(each) for each in names},
        "manifest": manifest,
    }
    write_bytes(folder / DRAFT, json.dumps(draft, indent=1, ensure_ascii=False).encode() + b"\n")


def _bring_builder(to: Path) -> None:
    to.mkdir()
    for each in sorted(Path(__file__).with_name(BUILDER).glob("*.py")):
        shutil.copyfile(each, to / each.name)
