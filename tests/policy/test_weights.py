from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mobile_vla.core import ActionContract, CheckpointError, ContractMismatchError, Instruction
from mobile_vla.policy.compact import CompactNetwork
from mobile_vla.policy.weights import SHIPPED, load_network, load_policy, save_network


def test_a_network_comes_back_to_the_bit(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {"seed": 3})
    loaded = load_network(tmp_path)
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_another_contract_is_refused_with_both_sides_named(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {})
    faster = replace(ActionContract(), limits=(1.0, 1.0, 3.0))
    with pytest.raises(ContractMismatchError, match=r"limits.*this robot has \[1.0, 1.0, 3.0\]"):
        load_network(tmp_path, faster)


def test_a_tensor_of_another_shape_is_refused(network: CompactNetwork, tmp_path: Path) -> None:
    network.nothing = torch.nn.Linear(3, 1)
    save_network(tmp_path, network, {})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(tmp_path)


def test_the_shipped_policy_loads_and_knows_what_it_was_made_from() -> None:
    policy = load_policy(SHIPPED)
    assert policy.contract == ActionContract()
    policy.reset(Instruction("stop at the red cup"))
