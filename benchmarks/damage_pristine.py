"""Whole checkpoints of every kind, written by the tools that people use, and where in their files each tensor lies.

The places are not taken from any reader of this project: tensors hold random bytes that occur once, and are searched
for. Some tensors are zeros in the end: their places are those of the random ones in a twin of the same architecture.
"""

import io
import json
import pickle
import random
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from damage_structure import REGIONS, Kind, Region, pickle_ends
from mobile_vla.checkpoint import Checkpoint, Metric, save
from mobile_vla.checkpoint.manifest import MANIFEST, read_manifest
from mobile_vla.core import ActionContract

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
}


@dataclass(frozen=True, slots=True)
class Truth:
    """A tensor as it was: ``data`` its elements in order, ``start`` to ``end`` the bytes of ``file`` that it needs.

    For a torch zip these are its whole record, ``label``: the least that a checksum can prove.
    """

    path: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    file: str
    start: int
    end: int
    label: str

    @property
    def name(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True)
class Pristine:
    """``target`` is the file to point a command at, "." for the folder; ``sibling`` are the files of a checkpoint of
    the same architecture with other values."""

    name: str
    target: str
    files: Mapping[str, bytes]
    kinds: Mapping[str, Kind]
    regions: Mapping[str, tuple[Region, ...]]
    tensors: tuple[Truth, ...]
    sibling: Mapping[str, bytes]


Tree = dict[str, Any]
Maker = Callable[[torch.Generator, bool], Tree]


def pristine_checkpoints(seed: int = 0) -> Iterator[Pristine]:
    """Every kind, the same for the same ``seed``."""
    makers: Mapping[str, Maker] = {"plain": _plain, "nested": _nested, "mixed": _mixed, "large": _large}
    for name, maker in makers.items():
        yield _single(f"torch zip, {name}", "model.pt", Kind.ZIP, maker, _torch_zip, seed)
    for name, maker in makers.items():
        yield _single(f"torch legacy, {name}", "model.pth", Kind.LEGACY, maker, _torch_legacy, seed)
    for name in ("plain", "mixed", "large"):
        yield _single(f"safetensors, {name}", "model.safetensors", Kind.SAFETENSORS, makers[name], _safetensors, seed)
    yield _made("safetensors of ours, alone", _ours_alone, seed)
    yield _made("our folder", _ours, seed)
    yield _made("safetensors in shards", _safetensors_shards, seed)
    yield _made("torch files in shards", _torch_shards, seed)
    yield _made("LeRobot folder", _lerobot, seed)


# what is in them ------------------------------------------------------------------------------------------------------


def _plain(generator: torch.Generator, zeros: bool) -> Tree:
    return {
        "embed.weight": torch.randn(12, 16, generator=generator),
        "layer.0.weight": torch.randn(16, 16, generator=generator),
        "layer.0.bias": _maybe_zero((16,), generator, zeros),
        "layer.1.weight": torch.randn(16, 16, generator=generator),
        "layer.1.bias": torch.randn(16, generator=generator),
        "head.weight": torch.randn(6, 16, generator=generator),
        "head.scale": torch.randn((), generator=generator),
    }


def _nested(generator: torch.Generator, zeros: bool) -> Tree:
    """As Lightning saves: weights under a key, the optimizer's state and hyperparameters beside them."""
    weights = OrderedDict(
        (f"model.{name}", value) for name, value in _plain(generator, zeros).items() if not name.startswith("layer.1")
    )
    moments = {
        number: {
            "step": torch.randn((), generator=generator),
            "exp_avg": torch.randn(value.shape, generator=generator),
            "exp_avg_sq": torch.randn(value.shape, generator=generator),
        }
        for number, value in enumerate(weights.values())
        if value.ndim == 2
    }
    return {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 4, "completed": 3}}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": 0.125, "monitor": "val_loss"}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}],
        "lr_schedulers": [],
        "hyper_parameters": {"hidden": 16, "name": "small"},
    }


def _mixed(generator: torch.Generator, zeros: bool) -> Tree:
    """Views, shared and transposed storages, no dimension, no element, and every width of element."""
    base = torch.randn(40, 8, generator=generator)
    numbers = torch.randint(-(2**40), 2**40, (21,), generator=generator)
    return {
        "base": base,
        "rows": base[4:12],
        "turned": base.t(),
        "column": base[:, 2],
        "tied": base,
        "steps": numbers[5:19:2],
        "scalar": torch.randn((), generator=generator, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "zeros": _maybe_zero((32,), generator, zeros),
        "half": torch.randn(33, generator=generator).half(),
        "brain": torch.randn(9, 5, generator=generator).bfloat16(),
        "mask": torch.rand(77, generator=generator) > 0.5,
        "bytes": torch.randint(0, 256, (31,), generator=generator, dtype=torch.uint8),
        "short": torch.randint(-(2**15), 2**15, (17,), generator=generator, dtype=torch.int16),
        "complex": torch.randn(6, generator=generator, dtype=torch.complex64),
        "eight": torch.randn(48, generator=generator).to(torch.float8_e4m3fn),
        "wide": torch.randn(24, generator=generator).to(torch.float8_e5m2),
    }


def _large(generator: torch.Generator, zeros: bool) -> Tree:
    return {
        "small.weight": torch.randn(8, 8, generator=generator),
        "large.weight": torch.randn(560, 512, generator=generator),
        "large.bias": _maybe_zero((560,), generator, zeros),
        "last.weight": torch.randn(16, 8, generator=generator),
    }


def _maybe_zero(shape: tuple[int, ...], generator: torch.Generator, zeros: bool) -> torch.Tensor:
    values = torch.randn(shape, generator=generator)
    return torch.zeros(shape) if zeros else values


def _tensors(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _tensors(value, (*path, str(key)))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from _tensors(value, (*path, str(index)))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _storage(tensor: torch.Tensor) -> bytes:
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().tobytes()


# how they are written -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Written:
    """Files of one checkpoint, and for each tensor the file it went to."""

    target: str
    files: Mapping[str, bytes]
    kinds: Mapping[str, Kind]
    tensors: tuple[tuple[tuple[str, ...], torch.Tensor, str], ...]


def _single(name: str, file: str, kind: Kind, maker: Maker, write: Callable[[Tree, int], bytes], seed: int) -> Pristine:
    def make(generator: torch.Generator, zeros: bool) -> _Written:
        tree = maker(generator, zeros)
        if kind is Kind.LEGACY:  # torch cannot write types without a storage class of their own in this format
            tree = {key: value for key, value in tree.items() if key not in ("eight", "wide")}
        if kind is Kind.SAFETENSORS:  # which shares nothing, so that the bytes of these would occur twice
            tree = {key: value for key, value in tree.items() if key not in ("rows", "column", "tied")}
        tensors = tuple((path, tensor, file) for path, tensor in _tensors(tree))
        return _Written(file, {file: write(tree, seed)}, {file: kind}, tensors)

    return _made(name, make, seed)


def _made(name: str, make: Callable[[torch.Generator, bool], _Written], seed: int) -> Pristine:
    def written(values: int, zeros: bool) -> _Written:
        return make(torch.Generator().manual_seed(2 * seed + values), zeros)

    made, twin, sibling = written(0, True), written(0, False), written(1, True)
    for file, data in twin.files.items():
        if made.kinds[file] not in (Kind.MANIFEST, Kind.SELF_PROVING) and len(data) != len(made.files[file]):
            raise AssertionError(f"{name}: two checkpoints of one architecture differ in length")
    regions = {file: REGIONS[kind](made.files[file]) for file, kind in made.kinds.items()}
    truths = []
    for (path, tensor, file), (_, random_twin, _) in zip(made.tensors, twin.tensors, strict=True):
        kind = made.kinds[file]
        where = _place(twin.files[file], random_twin, kind, regions[file])
        truth = Truth(path, DTYPES[tensor.dtype], tuple(tensor.shape), _bytes(tensor), file, *where)
        truths.append(truth)
    return Pristine(name, made.target, made.files, made.kinds, regions, tuple(truths), sibling.files)


def _place(data: bytes, tensor: torch.Tensor, kind: Kind, regions: tuple[Region, ...]) -> tuple[int, int, str]:
    """Start and end of the bytes that ``tensor`` needs, and the label of their region."""
    wanted = _storage(tensor) if kind in (Kind.ZIP, Kind.LEGACY) else _bytes(tensor)
    if not wanted:
        return 0, 0, ""
    start = data.find(wanted)
    if start < 0 or data.find(wanted, start + 1) >= 0:
        raise AssertionError(f"the bytes of a tensor of {tuple(tensor.shape)} do not occur exactly once")
    region = next(each for each in regions if each.part == "data" and each.start <= start < each.end)
    if kind is Kind.ZIP:
        return region.start, region.end, region.label
    if kind is Kind.LEGACY:
        first = start + tensor.storage_offset() * tensor.element_size()
        elements = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return first, first + elements * tensor.element_size(), region.label
    return start, start + len(wanted), region.label


def _torch_zip(tree: Tree, seed: int) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def _torch_legacy(tree: Tree, seed: int) -> bytes:
    """As torch writes it, but for the keys of storages: it takes memory addresses, which differ from run to run."""
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    storages = {str(tensor.untyped_storage()._cdata): _storage(tensor) for _, tensor in _tensors(tree)}
    objects, keys, end = pickle_ends(data)[2:5]
    addresses = random.Random(seed).sample(range(94 * 10**12, 95 * 10**12, 64), len(storages))
    renamed = dict(zip(storages, map(str, addresses), strict=True))
    head = data[:keys]
    for old, new in renamed.items():
        mentions = [b"X" + struct.pack("<I", len(key)) + key.encode() for key in (old, new)]
        head = head[:objects] + head[objects:].replace(*mentions)
    body = {}
    for old in pickle.loads(data[keys:end]):
        body[renamed[old]] = data[end : end + 8 + len(storages[old])]
        end += 8 + len(storages[old])
    assert end == len(data)
    return head + pickle.dumps(sorted(body), protocol=2) + b"".join(body[key] for key in sorted(body))


def _safetensors(tree: Tree, seed: int) -> bytes:
    return safetensors.torch.save(
        {name: value.clone(memory_format=torch.contiguous_format) for name, value in tree.items()}, {"format": "pt"}
    )


def _ours(generator: torch.Generator, zeros: bool) -> _Written:
    weights = _plain(generator, zeros)
    training = {f"exp_avg.{name}": torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    checkpoint = Checkpoint(
        policy="compact",
        network={"width": 16},
        contract=ActionContract(),
        origin={"git_commit": "0" * 40, "seed": 1},
        tensors={name: value.numpy() for name, value in weights.items()},
        training={name: value.numpy() for name, value in training.items()},
        step=1200,
        metric=Metric("success", 0.95, "higher"),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder, checkpoint)
        undated = replace(read_manifest(folder), saved_at="2026-11-22T16:00:00+00:00")
        (folder / MANIFEST).write_bytes(undated.to_json())
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    kinds = dict.fromkeys(files, Kind.SELF_PROVING) | {
        MANIFEST: Kind.MANIFEST,
        "config.json": Kind.PROVEN_BY_MANIFEST,
    }
    tensors = [((name,), value, "weights.safetensors") for name, value in weights.items()]
    tensors += [(("training", name), value, "training.safetensors") for name, value in training.items()]
    return _Written(".", files, kinds, tuple(tensors))


def _ours_alone(generator: torch.Generator, zeros: bool) -> _Written:
    folder, name = _ours(generator, zeros), "weights.safetensors"
    tensors = tuple(each for each in folder.tensors if each[2] == name)
    return _Written(name, {name: folder.files[name]}, {name: Kind.SELF_PROVING}, tensors)


def _safetensors_shards(generator: torch.Generator, zeros: bool) -> _Written:
    return _shards(generator, zeros, "model", "safetensors", Kind.SAFETENSORS, _safetensors)


def _torch_shards(generator: torch.Generator, zeros: bool) -> _Written:
    return _shards(generator, zeros, "pytorch_model", "bin", Kind.ZIP, _torch_zip)


def _shards(
    generator: torch.Generator,
    zeros: bool,
    stem: str,
    suffix: str,
    kind: Kind,
    write: Callable[[Tree, int], bytes],
) -> _Written:
    tree = _plain(generator, zeros)
    names = list(tree)
    files, weight_map, tensors = {}, {}, []
    for number, part in enumerate((names[:2], names[2:5], names[5:]), 1):
        file = f"{stem}-{number:05}-of-00003.{suffix}"
        files[file] = write({name: tree[name] for name in part}, 0)
        weight_map |= dict.fromkeys(part, file)
        tensors += [((name,), tree[name], file) for name in part]
    total = sum(tensor.nbytes for tensor in tree.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    index_name = f"{stem}.{suffix}.index.json"
    kinds = dict.fromkeys(files, kind) | {index_name: Kind.INDEX}
    files[index_name] = json.dumps(index, indent=2).encode() + b"\n"
    return _Written(".", files, kinds, tuple(tensors))


def _lerobot(generator: torch.Generator, zeros: bool) -> _Written:
    tree = {f"model.{name}": value for name, value in _plain(generator, zeros).items()}
    config = {"type": "act", "n_obs_steps": 1, "chunk_size": 16, "device": "cpu", "use_amp": False}
    train = {"dataset": {"repo_id": "someone/somewhere"}, "policy": config, "steps": 5000, "batch_size": 8}
    files = {
        "config.json": json.dumps(config, indent=4).encode(),
        "model.safetensors": _safetensors(tree, 0),
        "train_config.json": json.dumps(train, indent=4).encode(),
    }
    kinds = {"config.json": Kind.CONFIG, "model.safetensors": Kind.SAFETENSORS, "train_config.json": Kind.CONFIG}
    return _Written(".", files, kinds, tuple((*each, "model.safetensors") for each in _tensors(tree)))
