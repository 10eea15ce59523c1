"""One step of a full-size policy as a program: a graph of ATen operations and its weights, free of this package's code.

The words are read beforehand, once an instruction, and laid into room for a fixed number of pieces (``fixed_words``).
All shapes are static. What makes a program faster, on whatever device, begins with what is saved here.
"""

import copy
import hashlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from mobile_vla.checkpoint.atomic import PIECE, replacing, to_the_disk, write_bytes
from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError, UnsafeCheckpointError
from mobile_vla.policy.compact import MOTION_SIZE
from mobile_vla.policy.encoders.tower import Words
from mobile_vla.policy.vla import VlaNetwork

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MOST_WORDS = 64
"""Pieces of an instruction that a program has room for, unless told otherwise: what the policies read by default."""

_PARTS = re.compile(
    r"[^/]+/(models/model\.json|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+))"
)


class Decision(NamedTuple):
    """What a program gives for N sessions, all float32 but the history.

    ``chunk`` (N, horizon, 3) in shares of the limits, ``status`` logits (N, 4), ``visibility`` logits (N, cells + 1)
    and ``box`` (N, 5) as in ``policy.pointer.Pointed``, ``history`` for the next step.
    """

    chunk: Tensor
    status: Tensor
    visibility: Tensor
    box: Tensor
    history: Tensor


class OneStep(nn.Module):
    """What is exported; run directly, it is what a program has to equal."""

    def __init__(self, network: VlaNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, words: tuple[Words, ...], motion: Tensor, history: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N, H, W, 3), words as from ``fixed_words``, (N, MOTION_SIZE), history of N sessions: a Decision."""
        network = self.network
        asked = network.ask(network.see(pixels), words)
        decided = network.decide(asked.lead[:, None], asked.beside[:, None], motion[:, None], history)
        chunk = network.head.chunk(decided.context[:, 0]).float()
        return chunk, decided.status[:, 0].float(), asked.pointed.logits, asked.pointed.box, decided.history


def in_precision(network: VlaNetwork, precision: str) -> VlaNetwork:
    """The network with weights of this precision, in evaluation mode; itself where it has them, else a copy.

    ConfigError for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}: choose among {', '.join(PRECISIONS)}")
    wanted = PRECISIONS[precision]
    if any(each.dtype != wanted for each in network.parameters()):
        network = copy.deepcopy(network).to(wanted)
    return network.eval()


def fixed_words(network: VlaNetwork, texts: Sequence[str], most: int = MOST_WORDS) -> tuple[Words, ...]:
    """Texts as read by each tower, padded with zeros to the room of ``most`` pieces; padding changes no answer.

    InstructionError for a text of more pieces.
    """
    towers = [network.towers[name] for name in network.config.towers]
    device = next(network.head.parameters()).device
    tokens = tuple(tuple(part.to(device) for part in each) for each in network.tokenise(texts))
    with torch.no_grad():
        read = network.read(tokens)
    return tuple(tower.widen(words, most) for tower, words in zip(towers, read, strict=True))  # type: ignore[operator]


def example_inputs(
    network: VlaNetwork, sessions: int = 1, most: int = MOST_WORDS
) -> tuple[Tensor, tuple[Words, ...], Tensor, Tensor]:
    """Inputs of ``OneStep`` in the shapes and types that a program of this network takes."""
    device = next(network.head.parameters()).device
    pixels = torch.zeros(sessions, *network.config.size, 3, dtype=torch.uint8, device=device)
    motion = torch.zeros(sessions, MOTION_SIZE, device=device)
    history = network.head.initial(sessions).detach().clone()
    return pixels, fixed_words(network, ["stop"] * sessions, most), motion, history


def export_program(
    network: VlaNetwork, precision: str = "fp32", sessions: int = 1, most: int = MOST_WORDS
) -> ExportedProgram:
    """A step of ``sessions`` sessions whose instructions have at most ``most`` pieces.

    It is called as ``program.module()(*inputs)``, with inputs as from ``example_inputs`` of the network
    ``in_precision``, and gives the fields of a Decision. ConfigError for an unknown precision.
    """
    network = in_precision(network, precision)
    inputs = example_inputs(network, sessions, most)
    with torch.no_grad(), warnings.catch_warnings():
        # an LSTM lists its weights anew where they are exchanged for the tracer's; it puts them back
        warnings.filterwarnings("ignore", message=r"(?s)The tensor attributes? .*_flat_weights")
        return torch.export.export(OneStep(network).eval(), inputs, strict=False)


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
