"""From a compact network to a checkpoint and back; strict in both directions."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mobile_vla.checkpoint import Checkpoint, load, save
from mobile_vla.core import ActionContract, CheckpointError
from mobile_vla.language import VOCABULARY_HASH
from mobile_vla.policy.compact import CompactConfig, CompactNetwork, CompactPolicy

POLICY_NAME = "compact"
SHIPPED = Path(__file__).parent / "shipped"
"""The checkpoint that comes with the package."""


def save_network(folder: Path, network: CompactNetwork, origin: Mapping[str, Any]) -> None:
    """Write the network's weights with its sizes, contract and ``origin`` (hashes, seed, versions)."""
    tensors = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    config = asdict(network.config) | {"vocabulary": VOCABULARY_HASH}
    save(folder, Checkpoint(POLICY_NAME, config, network.contract, origin, tensors))


def load_network(folder: Path, contract: ActionContract | None = None) -> CompactNetwork:
    """Read a network in evaluation mode.

    CheckpointError for damage, another policy, or tensors that do not fit; ContractMismatchError when ``contract`` is
    given and the checkpoint was made for another.
    """
    checkpoint = load(folder)
    if checkpoint.policy != POLICY_NAME:
        raise CheckpointError(f"{folder} holds a policy of kind {checkpoint.policy!r}, not {POLICY_NAME!r}")
    if contract is not None:
        contract.require_same(checkpoint.contract, "this robot", str(folder))
    sizes = dict(checkpoint.network)
    if sizes.pop("vocabulary", None) != VOCABULARY_HASH:
        raise CheckpointError(f"{folder} was trained with another alphabet of characters; train it again")
    try:
        network = CompactNetwork(CompactConfig(**sizes), checkpoint.contract)
        network.load_state_dict({name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()})
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights in {folder} do not fit this version of the policy: {_first_line(error)}"
        ) from error
    return network.eval()


def load_policy(folder: Path = SHIPPED, contract: ActionContract | None = None) -> CompactPolicy:
    """The policy of a checkpoint folder, by default the one shipped; errors as ``load_network``."""
    return CompactPolicy(load_network(folder, contract))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
