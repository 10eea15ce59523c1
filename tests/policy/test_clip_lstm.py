import pytest
from conformance import PolicyConformance
from little import HEADS, WAYS, little, with_siglip

from mobile_vla.core import ConfigError
from mobile_vla.policy.clip_lstm import KIND, ClipLstmConfig
from mobile_vla.policy.encoders.sources import CLIP
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.vla import VlaNetwork

COMBINATIONS = [(way, "lstm") for way in WAYS if way.startswith("clip_lstm")]
COMBINATIONS += [("clip_lstm", name) for name in HEADS if name != "lstm"]


class TestConformance(PolicyConformance):
    @pytest.fixture
    def kind(self) -> PolicyKind:
        return KIND

    @pytest.fixture(params=COMBINATIONS, ids=str)
    def network(self, request: pytest.FixtureRequest) -> VlaNetwork:
        return little(*request.param)


class TestConformanceOfSiglip(PolicyConformance):
    @pytest.fixture
    def kind(self) -> PolicyKind:
        return KIND

    @pytest.fixture
    def network(self) -> VlaNetwork:
        return with_siglip()


def test_the_choice_names_clip_and_a_head_of_a_known_kind() -> None:
    config = ClipLstmConfig()
    assert (config.towers, config.clip, config.size) == (("clip",), CLIP, (224, 224))
    with pytest.raises(ConfigError, match="at least 1"):
        ClipLstmConfig(height=0)
