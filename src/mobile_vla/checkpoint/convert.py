"""From a foreign checkpoint to a safetensors file with nothing but weights. Nothing in the source is executed."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.checkpoint.atomic import require_space
from mobile_vla.checkpoint.formats.safetensors_file import write
from mobile_vla.checkpoint.layout import Tensor
from mobile_vla.checkpoint.reading import outgoing
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError, DamagedCheckpointError

WEIGHT_KEYS = ("state_dict", "model_state_dict", "model_state", "module", "model", "weights", "net", "policy")
"""Where training programs keep the weights (Lightning, RoboVLMs, DeepSpeed, ...), the first that is there counts."""

_NOT_WEIGHTS = ("optimizer", "optim", "lr_scheduler", "scheduler", "ema", "scaler", "callbacks", "loops", "training")


@dataclass(frozen=True)
class Converted:
    """``dropped`` maps what was left out (optimizer state, ...) to its bytes; ``proven`` is false where the source
    stores no checksums.
    """

    path: Path
    tensors: int
    source_bytes: int
    bytes: int
    key: str
    dropped: dict[str, int]
    proven: bool


def convert(source: Path, target: Path, *, key: str | None = None, opaque: Collection[str] = ()) -> Converted:
    """Write the weights of ``source`` to the new file ``target``.

    ``key`` is the dotted name of the container that holds the weights, where it cannot be told. CheckpointError for
    sources whose weights cannot be told, and for a target that exists; DamagedCheckpointError for damage (salvage it);
    UnsafeCheckpointError for hostile files.
    """
    if target.exists():
        raise CheckpointError(f"{target} exists: name a new file with --out")
    verdict = verify(source, opaque=opaque)
    if verdict.state is State.DAMAGED:
        raise DamagedCheckpointError(source, verdict.damage)
    tensors = [finding.tensor for finding in verdict.findings]
    group = _weights_key(source, tensors) if key is None else key
    prefix = f"{group}." if group else ""
    chosen = [tensor for tensor in tensors if tensor.name.startswith(prefix)]
    if not chosen:
        raise CheckpointError(f"{source} has no tensors under {key}; there are {_groups_text(tensors)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(target.parent, sum(tensor.size for tensor in chosen) + 1024 * len(chosen))
    ready = [outgoing(tensor, tensor.name.removeprefix(prefix)) for tensor in chosen]
    record = write(target, ready, {"format": "pt", "converted_from": source.name})
    left = [tensor for tensor in tensors if tensor not in chosen]
    size = _disk_bytes(source)
    return Converted(target, len(chosen), size, record.size, group, _groups(left), verdict.state is State.WHOLE)


def _weights_key(source: Path, tensors: list[Tensor]) -> str:
    groups = _groups(tensors)
    for name in WEIGHT_KEYS:
        if name in groups:
            return name
    likely = [name for name in groups if not name.lower().startswith(_NOT_WEIGHTS)]
    nested = {name for name in likely if any(len(tensor.path) > 1 for tensor in tensors if tensor.path[0] == name)}
    if len(likely) == len(groups) and not nested:
        return ""
    if len(nested) == 1 and len(likely) == 1:
        return likely[0]
    if not nested and likely:
        return ""
    raise CheckpointError(
        f"{source} does not tell which of its parts are the weights: there are {_groups_text(tensors)}; name one: --key"
    )


def _groups(tensors: list[Tensor]) -> dict[str, int]:
    """Bytes under each first part of the tensors' paths."""
    groups: dict[str, int] = {}
    for tensor in tensors:
        groups[tensor.path[0]] = groups.get(tensor.path[0], 0) + tensor.size
    return groups


def _groups_text(tensors: list[Tensor]) -> str:
    groups = sorted(_groups(tensors).items(), key=lambda item: -item[1])
    rest = f" and {len(groups) - 8} more" if len(groups) > 8 else ""
    return ", ".join(f"{name} ({size} bytes)" for name, size in groups[:8]) + rest


def _disk_bytes(path: Path) -> int:
    return (
        sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
    )
