"""From a network to a checkpoint and back, strict in both directions; and a start from any checkpoint."""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode

from mobile_vla import __version__
from mobile_vla.checkpoint import Checkpoint, Metric, load, save
from mobile_vla.checkpoint.layout import Format, Tensor
from mobile_vla.checkpoint.reading import outgoing
from mobile_vla.checkpoint.salvage import REPORT
from mobile_vla.checkpoint.store import BF16, Tensors
from mobile_vla.checkpoint.verify import State, Verdict, verify
from mobile_vla.core import ActionContract, CheckpointError, ConfigError, DamagedCheckpointError, Policy
from mobile_vla.core.provenance import git_commit
from mobile_vla.language import VOCABULARY_HASH
from mobile_vla.policy.kinds import PolicyKind, kind_named, kind_of

SHIPPED = Path(__file__).parent / "shipped"
"""The checkpoint that comes with the package."""

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_INITIAL_SEED = 0
_CHARACTERS = "text.embed.weight"
"""Its rows stand for the characters of one alphabet."""


def checkpoint_of(network: nn.Module, origin: Mapping[str, Any]) -> Checkpoint:
    """The network as a checkpoint, with its sizes, contract and ``origin`` (hashes, seed, versions)."""
    kind = kind_of(network)
    contract = cast(ActionContract, network.contract)
    return Checkpoint(kind.name, kind.sizes(network), contract, origin, tensors_of(network))


def tensors_of(network: nn.Module) -> Tensors:
    """The state of any network as arrays, which go on showing what the network holds; bfloat16 as ``store.BF16``."""
    return {name: _as_array(value.detach()) for name, value in network.state_dict().items()}


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """An array of a checkpoint as a tensor over the same memory; ``store.BF16`` becomes bfloat16."""
    if array.dtype == BF16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint of any format by their names there; no code of the file's is run.

    DamagedCheckpointError for damage, UnsafeCheckpointError for hostile files, CheckpointError for no checkpoint or a
    dtype that a network cannot use.
    """
    tensors = placed(path)
    if strange := [tensor for tensor in tensors if tensor.dtype not in _DTYPES]:
        raise CheckpointError(f"{path} holds {strange[0].name} as {strange[0].dtype}, which no network here can use")
    return {tensor.name: values_of(tensor) for tensor in tensors}


def _as_array(value: torch.Tensor) -> NDArray[Any]:
    if value.dtype == torch.bfloat16:
        bits: NDArray[Any] = value.contiguous().view(torch.uint16).numpy()
        return bits.view(BF16)
    return value.numpy()


def save_network(
    folder: Path,
    network: nn.Module,
    origin: Mapping[str, Any],
    step: int | None = None,
    metric: Metric | None = None,
) -> None:
    """Write the network's weights, with what ``checkpoint_of`` adds, and where training stood."""
    save(folder, replace(checkpoint_of(network, origin), step=step, metric=metric))


def load_network(
    folder: Path,
    contract: ActionContract | None = None,
    allow_missing: Collection[str] = (),
    allow_unproven: bool = False,
) -> nn.Module:
    """Read a network of any kind in evaluation mode.

    Of a salvaged checkpoint, tensors in ``allow_missing`` may be missing, and start from initial values that are the
    same each time ("text.*" allows all below it); ``allow_unproven`` takes those that no checksum proves. Tensors that
    were saved as bfloat16 stay so. The weights are held once: the network stands on the memory they were read into.
    CheckpointError for damage, an unknown kind of policy, missing or unproven tensors that are not allowed, or tensors
    that do not fit; ContractMismatchError when ``contract`` is given and the checkpoint was made for another. How many
    rows a chunk has is the policy's own affair, and is not compared.
    """
    checkpoint = load(folder)
    kind = _kind(folder, checkpoint.policy)
    if contract is not None:
        ours = replace(contract, horizon=checkpoint.contract.horizon)
        ours.require_same(checkpoint.contract, "this robot", str(folder))
    _require_allowed(folder, checkpoint, allow_missing, allow_unproven)
    try:
        with torch.random.fork_rng(devices=[]), nullcontext() if checkpoint.missing else _Undrawn():
            torch.manual_seed(_INITIAL_SEED)
            network = kind.build(checkpoint.network, checkpoint.contract)
        initial = network.state_dict()
        tensors = {name: initial[name] for name in checkpoint.missing if name in initial}
        tensors |= {name: _loaded(value, initial.get(name)) for name, value in checkpoint.tensors.items()}
        network.load_state_dict(tensors, assign=True)
        if all(value.dtype == torch.bfloat16 for value in tensors.values() if value.is_floating_point()):
            network.bfloat16()  # buffers that are in no checkpoint
    except (TypeError, KeyError, RuntimeError, CheckpointError, ConfigError) as error:
        raise CheckpointError(
            f"the weights in {folder} do not fit this version of the policy: {_first_line(error)}"
        ) from error
    return network.eval()


def load_policy(
    folder: Path = SHIPPED,
    contract: ActionContract | None = None,
    allow_missing: Collection[str] = (),
    allow_unproven: bool = False,
) -> Policy:
    """The policy of a checkpoint folder, by default the one shipped; the rest as ``load_network``."""
    network = load_network(folder, contract, allow_missing, allow_unproven)
    return kind_of(network).drive(network)


def template(config_path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of every tensor that a ``config.json`` of ours describes, in the order they are saved in.

    CheckpointError when it is no such file.
    """
    try:
        values = json.loads(config_path.read_bytes())
        kind = _kind(config_path, values["policy"])
        with torch.device("meta"):  # shapes alone, without memory
            network = kind.build(values["network"], ActionContract.from_dict(values["contract"], "it"))
    except OSError as error:
        raise CheckpointError(f"{config_path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, ConfigError, CheckpointError) as error:
        raise CheckpointError(
            f"{config_path} is no policy's config.json of this version: {_first_line(error)}"
        ) from error
    names = {dtype: name for name, dtype in _DTYPES.items()}
    return [(name, names[value.dtype], tuple(value.shape)) for name, value in network.state_dict().items()]


_DRAWS = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, torch.Tensor.normal_, torch.Tensor.uniform_)


class _Undrawn(TorchFunctionMode):
    """Initial weights are not drawn: for networks that get all of theirs from a file."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _loaded(value: NDArray[Any], own: torch.Tensor | None) -> torch.Tensor:
    tensor = as_tensor(value)
    is_kept = own is None or tensor.dtype in (own.dtype, torch.bfloat16)
    return tensor if is_kept else tensor.to(own.dtype)  # type: ignore[union-attr]


def _kind(path: Path, name: str) -> PolicyKind:
    try:
        return kind_named(name)
    except ConfigError as error:
        raise CheckpointError(f"{path} holds a policy of kind {name!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Taken:
    """What a network got from the checkpoint at ``path``, by the names of the network's tensors.

    ``identity`` as from ``weights_identity``. What was not ``taken`` is ``fresh``: not there, or of another shape.
    ``unproven`` were taken though no checksum speaks for them, or though they look damaged. ``prefix`` stands before
    the names there, as where a training program nested them ("state_dict.policy.").
    """

    path: Path
    identity: str
    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    unproven: tuple[str, ...]
    prefix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = {"taken": list(self.taken), "fresh": list(self.fresh), "unproven": list(self.unproven)}
        return {"path": str(self.path), "sha256": self.identity, "prefix": self.prefix, **names}

    def __str__(self) -> str:
        """For a terminal, a line each."""
        lines = [f"{len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors are taken from {self.path}"]
        if self.prefix:
            lines.append(f"they are called {self.prefix}* there")
        if self.fresh:
            lines.append(f"start fresh: {grouped(self.fresh)}")
        if self.unproven:
            which = "all of them" if set(self.unproven) == set(self.taken) else grouped(self.unproven)
            lines.append(f"used although no checksum proves them: {which}")
        return "\n".join(lines)


def take(network: nn.Module, path: Path) -> Taken:
    """Give ``network`` those tensors of the checkpoint at ``path`` that have its names and shapes; any format will do.

    Numbers of other widths are converted; what stands for characters is left where a folder of ours has another
    alphabet. DamagedCheckpointError for damage: salvage it first. CheckpointError when
    nothing fits, ContractMismatchError when a folder of ours was made for another contract, UnsafeCheckpointError for
    hostile files; in all these cases the network stays as it was.
    """
    verdict = _whole(path)
    doubted = {finding.tensor.name for finding in verdict.findings if finding.state is not State.WHOLE}
    if verdict.format is Format.OURS:
        known = load(path)
        cast(ActionContract, network.contract).require_same(known.contract, "this training", str(path))
        doubted.update(known.unproven)
    doubted.update(_doubted_by_salvage(path))
    own, tensors = network.state_dict(), _weights(verdict)
    prefix = _prefix(tensors, own)
    named = {tensor.name.removeprefix(prefix): tensor for tensor in tensors if tensor.name.startswith(prefix)}
    fitting = {name: tensor for name, tensor in named.items() if name in own and _fits(tensor, own[name])}
    if verdict.format is Format.OURS and known.network.get("vocabulary") != VOCABULARY_HASH:
        fitting.pop(_CHARACTERS, None)
    if not fitting:
        held = ", ".join(tensor.name for tensor in tensors[:3])
        raise CheckpointError(
            f"nothing in {path} fits: none of its {len(tensors)} tensors ({held}, ...) has the name and shape of one "
            f"in this network ({', '.join(list(own)[:3])}, ...)"
        )
    values = {name: values_of(tensor).reshape(own[name].shape) for name, tensor in fitting.items()}
    for name, value in values.items():
        own[name].copy_(value)
    taken = tuple(name for name in own if name in fitting)
    fresh = tuple(name for name in own if name not in fitting)
    return Taken(
        path, _identity(tensors), taken, fresh, tuple(name for name in taken if prefix + name in doubted), prefix
    )


def _prefix(tensors: Sequence[Tensor], own: Collection[str]) -> str:
    """What stands before the network's names in most of those tensors that end with one; the first of equals."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        parts = tensor.name.split(".")
        counts.update(
            "".join(f"{part}." for part in parts[:cut]) for cut in range(len(parts)) if ".".join(parts[cut:]) in own
        )
    return counts.most_common(1)[0][0] if counts else ""


def weights_identity(path: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of the weights at ``path``, in any format: ``Manifest.identity``.

    Errors as ``take``.
    """
    return _identity(_weights(_whole(path)))


def grouped(names: Iterable[str], most: int = 8) -> str:
    """Names for a reader; more than ``most`` are counted by their first part: ``eye (48 tensors), query.bias``."""
    listed = list(names)
    if len(listed) <= most:
        return ", ".join(listed)
    groups: dict[str, list[str]] = {}
    for name in listed:
        groups.setdefault(name.partition(".")[0], []).append(name)
    return ", ".join(
        f"{group} ({len(inside)} tensors)" if len(inside) > 1 else inside[0] for group, inside in groups.items()
    )


def _patterns(names: Sequence[str], most: int = 8) -> list[str]:
    """The names, or, where they are many, the first parts that they have in common, with a star."""
    return list(names) if len(names) <= most else sorted({f"{name.partition('.')[0]}.*" for name in names})


def _require_allowed(
    folder: Path, checkpoint: Checkpoint, allow_missing: Collection[str], allow_unproven: bool
) -> None:
    missing = [name for name in checkpoint.missing if not any(fnmatchcase(name, each) for each in allow_missing)]
    unproven = () if allow_unproven else checkpoint.unproven
    if not missing and not unproven:
        return
    faults, options = [], []
    if missing:
        faults.append(f"it was salvaged without {len(missing)} tensors: {grouped(missing)}")
        options += [f"--allow-missing {shlex.quote(each)}" for each in _patterns(missing)]
    if unproven:
        faults.append(f"nothing proves {grouped(unproven)}")
        options.append("--allow-unproven")
    raise CheckpointError(
        f"{folder} is incomplete: {' and '.join(faults)}; complete it by training "
        f"(mobile-vla train RUN --init-from {folder}), or use it all the same with {' '.join(options)}"
    )


def _whole(path: Path, opaque: Collection[str] = ()) -> Verdict:
    verdict = verify(path, opaque=opaque)
    if verdict.state in (State.DAMAGED, State.MISSING):
        advice = "; salvage it first and begin with what is left" if verdict.findings else ""
        raise DamagedCheckpointError(path, verdict.damage + advice)
    return verdict


def _weights(verdict: Verdict) -> list[Tensor]:
    """All but the optimizer's state that our own folders hold beside the weights."""
    tensors = [finding.tensor for finding in verdict.findings]
    if verdict.format is not Format.OURS:
        return tensors
    return [tensor for tensor in tensors if len(tensor.path) == 1]


def _doubted_by_salvage(path: Path) -> list[str]:
    """Names that a salvage could not prove: it wrote them with checksums of what it found."""
    report = (path if path.is_dir() else path.parent) / REPORT
    if not report.exists():
        return []
    try:
        return [str(name) for name in json.loads(report.read_bytes())["unproven"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(report, f"it is no report of a salvage ({_first_line(error)})") from error


def _fits(tensor: Tensor, own: torch.Tensor) -> bool:
    dtype = _DTYPES.get(tensor.dtype)
    # a scalar is often saved as one element, and torch loads it so
    same_shape = tensor.shape == own.shape or (tensor.shape == (1,) and own.ndim == 0)
    return dtype is not None and same_shape and dtype.is_floating_point == own.dtype.is_floating_point


def placed(path: Path, opaque: Collection[str] = ()) -> list[Tensor]:
    """The tensors of a whole checkpoint of any format, to be read one by one with ``values_of``.

    ``opaque`` as in ``checkpoint.survey``. Errors as ``read_tensors``, and none for a dtype.
    """
    return _weights(_whole(path, opaque))


def origin_of_import(path: Path, values: Mapping[str, Any], opaque: Collection[str] = ()) -> dict[str, Any]:
    """What a checkpoint tells of having been made from another program's at ``path``."""
    versions = {"mobile_vla": __version__, "torch": torch.__version__}
    return {
        "imported": {**values, "sha256": _identity(placed(path, opaque))},
        "git_commit": git_commit(),
        "versions": versions,
    }


def values_of(tensor: Tensor) -> torch.Tensor:
    """Read the tensor that a layout places, in its own dtype and shape."""
    data = bytearray().join(outgoing(tensor).pieces())
    dtype = _DTYPES[tensor.dtype]
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(tensor.shape)


def _identity(tensors: Iterable[Tensor]) -> str:
    entries = []
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        digest = hashlib.sha256()
        for piece in outgoing(tensor).pieces():
            digest.update(piece)
        entries.append([tensor.name, tensor.dtype, tensor.shape, digest.hexdigest()])
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
