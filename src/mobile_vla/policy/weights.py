"""From a compact network to a checkpoint and back, strict in both directions; and a start from any checkpoint."""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from mobile_vla.checkpoint import Checkpoint, Metric, load, save
from mobile_vla.checkpoint.layout import Format, Tensor
from mobile_vla.checkpoint.reading import outgoing
from mobile_vla.checkpoint.salvage import REPORT
from mobile_vla.checkpoint.store import Tensors
from mobile_vla.checkpoint.verify import State, Verdict, verify
from mobile_vla.core import ActionContract, CheckpointError, DamagedCheckpointError
from mobile_vla.language import VOCABULARY_HASH
from mobile_vla.policy.compact import CompactConfig, CompactNetwork, CompactPolicy

POLICY_NAME = "compact"
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


def checkpoint_of(network: CompactNetwork, origin: Mapping[str, Any]) -> Checkpoint:
    """The network as a checkpoint, with its sizes, contract and ``origin`` (hashes, seed, versions)."""
    config = asdict(network.config) | {"vocabulary": VOCABULARY_HASH}
    return Checkpoint(POLICY_NAME, config, network.contract, origin, tensors_of(network))


def tensors_of(network: torch.nn.Module) -> Tensors:
    """The state of any network as arrays, which go on showing what the network holds."""
    return {name: value.detach().numpy() for name, value in network.state_dict().items()}


def save_network(
    folder: Path,
    network: CompactNetwork,
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
) -> CompactNetwork:
    """Read a network in evaluation mode.

    Of a salvaged checkpoint, tensors in ``allow_missing`` may be missing, and start from initial values that are the
    same each time ("text.*" allows all below it); ``allow_unproven`` takes those that no checksum proves.
    CheckpointError for damage, another policy, missing or unproven tensors that are not allowed, or tensors that do
    not fit; ContractMismatchError when ``contract`` is given and the checkpoint was made for another.
    """
    checkpoint = load(folder)
    if checkpoint.policy != POLICY_NAME:
        raise CheckpointError(f"{folder} holds a policy of kind {checkpoint.policy!r}, not {POLICY_NAME!r}")
    if contract is not None:
        contract.require_same(checkpoint.contract, "this robot", str(folder))
    sizes = dict(checkpoint.network)
    if sizes.pop("vocabulary", None) != VOCABULARY_HASH:
        raise CheckpointError(f"{folder} was trained with another alphabet of characters; train it again")
    _require_allowed(folder, checkpoint, allow_missing, allow_unproven)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_INITIAL_SEED)
            network = CompactNetwork(CompactConfig(**sizes), checkpoint.contract)
        initial = network.state_dict()
        tensors = {name: initial[name] for name in checkpoint.missing if name in initial}
        tensors |= {name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()}
        network.load_state_dict(tensors)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {folder} do not fit this version of the policy: {_first_line(error)}"
        ) from error
    return network.eval()


def load_policy(
    folder: Path = SHIPPED,
    contract: ActionContract | None = None,
    allow_missing: Collection[str] = (),
    allow_unproven: bool = False,
) -> CompactPolicy:
    """The policy of a checkpoint folder, by default the one shipped; the rest as ``load_network``."""
    return CompactPolicy(load_network(folder, contract, allow_missing, allow_unproven))


def template(config_path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, dtype and shape of every tensor that a ``config.json`` of ours describes, in the order they are saved in.

    CheckpointError when it is no such file.
    """
    try:
        values = json.loads(config_path.read_bytes())
        if values["policy"] != POLICY_NAME:
            raise CheckpointError(f"{config_path} describes a policy of kind {values['policy']!r}, not {POLICY_NAME!r}")
        sizes = {name: size for name, size in values["network"].items() if name != "vocabulary"}
        with torch.device("meta"):  # shapes alone, without memory
            network = CompactNetwork(CompactConfig(**sizes), ActionContract.from_dict(values["contract"], "it"))
    except OSError as error:
        raise CheckpointError(f"{config_path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{config_path} is no {POLICY_NAME} policy's config.json of this version: {_first_line(error)}"
        ) from error
    names = {dtype: name for name, dtype in _DTYPES.items()}
    return [(name, names[value.dtype], tuple(value.shape)) for name, value in network.state_dict().items()]


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


def take(network: CompactNetwork, path: Path) -> Taken:
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
        network.contract.require_same(known.contract, "this training", str(path))
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
    values = {name: _values(tensor).reshape(own[name].shape) for name, tensor in fitting.items()}
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


def _whole(path: Path) -> Verdict:
    verdict = verify(path)
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


def _values(tensor: Tensor) -> torch.Tensor:
    data = bytearray().join(outgoing(tensor).pieces())
    return torch.frombuffer(data, dtype=_DTYPES[tensor.dtype])


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
