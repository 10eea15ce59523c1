import pytest
import torch

from engine.little import little
from engine.small import network
from mobile_vla.core import ConfigError
from mobile_vla.engine.bench.drawn import drawn, require_full_size
from mobile_vla.engine.bench.standin import require_learnt

FULL = {"kosmos_clip": 1_860_017_026, "clip_lstm": 189_472_386, "compact": 1_608_386}
"""As in docs/policies.md."""


@pytest.mark.needs("transformers")
@pytest.mark.parametrize("kind", FULL)
def test_the_full_sizes_are_the_documented_ones(kind: str) -> None:
    bare = drawn(kind, device="meta")
    assert sum(each.numel() for each in bare.parameters()) == FULL[kind]
    require_full_size(bare)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_are_drawn_in_their_precision_and_the_same_each_time(precision: str) -> None:
    one, other = drawn("compact", precision), drawn("compact", precision)
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert first.dtype == wanted
        assert torch.equal(first, second)
    require_learnt(one, "it")
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.needs("transformers")
def test_a_reduced_network_is_not_of_full_size() -> None:
    with pytest.raises(
        ConfigError, match=r"this clip_lstm is not of full size: it holds [\d,]+ numbers where there are"
    ):
        require_full_size(little("clip_lstm, without end"))
    with pytest.raises(ConfigError, match="this compact is not of full size"):
        require_full_size(network())


def test_an_unknown_kind_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="kosmos_clip"):
        drawn("kosmos_klip")
