import pytest
from conformance import PolicyConformance
from little import WAYS, little

from mobile_vla.policy.encoders.kosmos import IMAGE_FIRST
from mobile_vla.policy.encoders.sources import KOSMOS
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.kosmos_lstm import KIND, KosmosLstmConfig
from mobile_vla.policy.vla import VlaNetwork

COMBINATIONS = [(way, "lstm") for way in WAYS if way.startswith("kosmos_lstm")]


class TestConformance(PolicyConformance):
    @pytest.fixture
    def kind(self) -> PolicyKind:
        return KIND

    @pytest.fixture(params=COMBINATIONS, ids=str)
    def network(self, request: pytest.FixtureRequest) -> VlaNetwork:
        return little(*request.param)


def test_kosmos_leads_and_what_is_chosen_is_said() -> None:
    config = KosmosLstmConfig()
    assert (config.towers, config.kosmos, config.prompt) == (("kosmos",), KOSMOS, IMAGE_FIRST)
    assert (config.head.window, config.head.layers, config.head.hidden) == (8, 4, 1024)
    network = little("kosmos_lstm")
    assert network.pointer.grid == network.towers["kosmos"].grid
