import pytest
import torch

from mobile_vla.core import ConfigError
from mobile_vla.policy.kinds import kind_named
from mobile_vla.policy.vla import Drives, VlaNetwork
from mobile_vla.train.adapt import LoraSettings, adapt, merge
from mobile_vla.train.config import read_vla_config

from .vla_data import CONTRACT, SMALL, TOWERS


@pytest.fixture
def network() -> VlaNetwork:
    kind = kind_named("kosmos_clip")
    config = read_vla_config(kind, None, [*SMALL, *TOWERS["kosmos_clip"]])
    torch.manual_seed(0)
    made = kind.make(config.network, CONTRACT)
    assert isinstance(made, VlaNetwork)
    return made.eval()


def inputs(network: VlaNetwork) -> Drives:
    pixels = torch.randint(0, 256, (2, 2, 96, 192, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Drives(pixels, network.tokenise(["go to the red cup", "빨간 컵까지 가세요"]), torch.zeros(2, 2, 8))


def chunk(network: VlaNetwork) -> torch.Tensor:
    decided = network(inputs(network)).decided
    assert decided is not None
    return network.head.chunk(decided.context)


def learning(network: VlaNetwork) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_full_frozen_and_lora_say_what_learns(network: VlaNetwork) -> None:
    beside = {name for name, _ in network.named_parameters() if not name.startswith("towers.")}
    adapt(network, "full", LoraSettings(), False)
    assert beside < learning(network)
    assert not any(name.endswith("logit_scale") for name in learning(network))  # no loss reaches it
    adapt(network, "frozen", LoraSettings(), False)
    assert learning(network) == beside
    parameters = adapt(network, "lora", LoraSettings(rank=2, alpha=4), False)
    added = learning(network) - beside
    assert added
    assert all("lora_" in name or name.endswith(".action") for name in added)
    assert len(parameters) == len(learning(network))


def test_lora_begins_as_nothing_and_is_merged_exactly(network: VlaNetwork) -> None:
    names, before = list(network.state_dict()), chunk(network).detach()
    adapt(network, "lora", LoraSettings(rank=2, alpha=4, dropout=0.0), False)
    torch.testing.assert_close(chunk(network), before)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    learnt = chunk(network).detach()
    assert not torch.allclose(learnt, before, atol=1e-3)
    merge(network)
    assert list(network.state_dict()) == names
    torch.testing.assert_close(chunk(network), learnt, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("way", ["full", "lora"])
def test_checkpointing_gives_the_same_gradients(network: VlaNetwork, way: str) -> None:
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        adapt(network, way, LoraSettings(rank=2, alpha=4, dropout=0.0), checkpointing)
        network.train()
        network.zero_grad()
        chunk(network).square().sum().backward()
        return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert set(plain) == set(again)
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_settings_that_mean_nothing_are_refused(network: VlaNetwork) -> None:
    with pytest.raises(ConfigError, match="full, frozen, lora"):
        adapt(network, "half", LoraSettings(), False)
    with pytest.raises(ConfigError, match=r"lora\.rank"):
        LoraSettings(rank=0)
