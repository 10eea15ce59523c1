"""The weights that a run begins with: drawn by its seed, or taken from a checkpoint (``--init-from``), and then kept.

They are kept in the run's own folder, so that a run goes on the same wherever that checkpoint is by then. The folder's
name holds the identity of what was taken.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mobile_vla.checkpoint import is_saved, load
from mobile_vla.checkpoint.keep import START_PREFIX, STEP_PREFIX, newest_whole
from mobile_vla.checkpoint.manifest import MANIFEST
from mobile_vla.core import CheckpointError, DamagedCheckpointError
from mobile_vla.policy.weights import save_network, take, weights_identity
from mobile_vla.train.steps import damage_of

FIRST_PARTS = "read.parts"


HOW = ("threads", "processes", "cache_gib")
"""Settings that change how a run is done and not what it makes."""


def require_same_run(final: Path, kind: str, config: Mapping[str, Any], data: Sequence[str] = ()) -> None:
    """CheckpointError where the finished run whose result is ``final`` made something else than is asked for now.

    ``data``: the data sets that are asked for; those that a run made itself do not count.
    """
    known = load(final)
    settings = json.loads(json.dumps(config))
    made: Mapping[str, Any] = known.origin.get("config", {})
    differing = [name for name in settings if name not in HOW and made.get(name) != settings[name]]
    learnt = [name for name in known.origin.get("data", {}) if Path(name).parent != final.parent / "data"]
    faults = []
    if known.policy != kind:
        faults.append(f"it made a {known.policy}, not a {kind}")
    elif differing:
        faults.append(f"with other settings ({', '.join(differing)})")
    if known.policy == kind and data and set(data) != set(learnt):
        faults.append(f"from {', '.join(learnt) or 'data of its own'}, not from {', '.join(data)}")
    if faults:
        raise CheckpointError(f"the run in {final.parent} is finished, {' and '.join(faults)}: choose another folder")


def begin(
    network: nn.Module,
    folder: Path,
    init_from: Path | None,
    origin: Mapping[str, Any],
    first_parts: str = FIRST_PARTS,
) -> dict[str, Any] | None:
    """Give ``network`` the weights that the run in ``folder`` began with, or, with ``init_from``, begins with now.

    Returns what was taken from where, for the origin of all that the run makes; None for a run that began by its seed.
    CheckpointError when the run began with something else than ``init_from``; errors of ``take``.
    """
    start = next((each for each in sorted(folder.glob(f"{START_PREFIX}*")) if is_saved(each)), None)
    if start is not None:
        return _begun(network, start, init_from, origin, first_parts)
    if init_from is None:
        return None
    saved = [*folder.glob(f"*/{MANIFEST}"), *folder.glob(f"*.parts/{STEP_PREFIX}*/{MANIFEST}")]
    if saved:
        raise CheckpointError(
            f"the run in {folder} began without --init-from ({saved[0].parent} is there already): "
            "leave the option out, or begin in another folder"
        )
    return _take(network, folder, init_from, origin)


def _begun(
    network: nn.Module, start: Path, init_from: Path | None, origin: Mapping[str, Any], first_parts: str
) -> dict[str, Any]:
    damage = damage_of(start)
    if damage and init_from is None:
        return _record_of_a_step(start, damage, first_parts)
    if damage and init_from is not None:
        _require_same(start, init_from, "another checkpoint")
        print(f"{start} is damaged ({damage}) and made again", flush=True)
        return _take(network, start.parent, init_from, origin)
    known = load(start)
    record: dict[str, Any] = known.origin["init_from"]
    if init_from is not None and (init_from.exists() or str(init_from) != record["path"]):
        _require_same(start, init_from, record["path"])
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in known.tensors.items()})
    except RuntimeError as error:
        raise CheckpointError(
            f"{start} holds a network of other sizes: give the settings that the run began with, or begin in another "
            "folder"
        ) from error
    return record


def _record_of_a_step(start: Path, damage: str, first_parts: str) -> dict[str, Any]:
    """The start is not needed once the first stage has a whole step, which holds all weights and the same record."""
    step = newest_whole(start.parent / first_parts)
    if step is None:
        advice = "give --init-from again, with the checkpoint that this run began with"
        raise DamagedCheckpointError(start, f"{damage}; {advice}")
    print(f"{start} is damaged ({damage}) and needed no more: {step} is whole", flush=True)
    record: dict[str, Any] = load(step).origin["init_from"]
    return record


def _take(network: nn.Module, folder: Path, init_from: Path, origin: Mapping[str, Any]) -> dict[str, Any]:
    taken = take(network, init_from)
    print(taken, flush=True)
    record = taken.to_dict()
    save_network(folder / _name(taken.identity), network, {**origin, "init_from": record})
    return record


def _require_same(start: Path, init_from: Path, began_with: str) -> None:
    if start.name != _name(weights_identity(init_from)):
        raise CheckpointError(
            f"the run in {start.parent} began with {began_with}, and {init_from} holds other weights: "
            "leave --init-from out, or begin in another folder"
        )


def _name(identity: str) -> str:
    return f"{START_PREFIX}{identity[:16]}"
