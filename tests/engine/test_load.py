from dataclasses import replace
from pathlib import Path

import pytest

from mobile_vla.core import ActionContract, ConfigError, ContractMismatchError
from mobile_vla.engine.folder import make_engine
from mobile_vla.engine.load import load_policy
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.compact import CompactPolicy
from mobile_vla.policy.weights import SHIPPED


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engines") / "mine"
    make_engine(SHIPPED, out, "torch", "fp32")
    return out


def test_a_folder_of_either_sort_gives_a_policy(engine: Path) -> None:
    assert isinstance(load_policy(), CompactPolicy)
    assert isinstance(load_policy(engine), EnginePolicy)


def test_a_robot_of_another_contract_is_refused_by_both(engine: Path) -> None:
    other = replace(ActionContract(), limits=(0.3, 0.3, 1.0))
    for folder in (SHIPPED, engine):
        with pytest.raises(ContractMismatchError, match="limits"):
            load_policy(folder, other)
        assert load_policy(folder, replace(ActionContract(), horizon=3)).contract.horizon == 8


def test_an_engine_takes_no_allowances(engine: Path) -> None:
    for allowed in ((["text.*"], False), ([], True)):
        with pytest.raises(ConfigError, match="is an engine, which is always made from all weights"):
            load_policy(engine, None, *allowed)
