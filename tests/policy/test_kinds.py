"""Kinds of policy by name; the compact one keeps to what all keep to; a laboratory brings its own."""

import sys
from collections.abc import Callable
from importlib import invalidate_caches
from pathlib import Path

import numpy as np
import pytest
import torch
from conformance import PolicyConformance, observation
from torch import nn

from mobile_vla.core import ActionContract, CheckpointError, ConfigError, Instruction
from mobile_vla.policy import compact
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.kinds import PolicyKind, kind_named, kind_of, names
from mobile_vla.policy.weights import load_policy, save_network

SMALL = CompactConfig(stem=4, middle=8, top=16, embedding=8, column=4, words=16, memory=16)


class TestConformanceOfTheCompactPolicy(PolicyConformance):
    @pytest.fixture
    def kind(self) -> PolicyKind:
        return compact.KIND

    @pytest.fixture
    def network(self) -> CompactNetwork:
        torch.manual_seed(3)
        return CompactNetwork(SMALL, ActionContract()).eval()


LABORATORY = """
from dataclasses import replace
from mobile_vla.policy import compact

class Network(compact.CompactNetwork):
    kind = "{name}"

def build(sizes, contract):
    made = compact.KIND.build(sizes, contract)
    made.__class__ = Network
    return made

KIND = replace(compact.KIND, name="{name}", network=Network, make=Network, build=build)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Lay a package of this name on Python's path, with this kind of policy and this module."""
    monkeypatch.syspath_prepend(tmp_path)

    def lay(package: str, kind: str, module: str) -> None:
        (tmp_path / f"{package}.py").write_text(module)
        facts = tmp_path / f"{package}-1.0.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[mobile_vla.policies]\n{kind} = {package}:KIND\n")
        monkeypatch.delitem(sys.modules, package, raising=False)
        invalidate_caches()

    return lay


def test_ours_are_found() -> None:
    assert {"clip_lstm", "compact", "kosmos_clip", "kosmos_lstm"} <= set(names())
    assert names() == sorted(names())
    for name in ("clip_lstm", "compact", "kosmos_clip", "kosmos_lstm"):
        assert kind_named(name).name == name
        assert kind_named(name).network.kind == name


@pytest.mark.parametrize(("wrong", "near"), [("kosmos-clip", "kosmos_clip"), ("clip_lsmt", "clip_lstm")])
def test_an_unknown_one_suggests_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"no kind of policy called '{wrong}'; did you mean {near}?"):
        kind_named(wrong)


def test_a_laboratorys_own_is_used_like_ours(install: Callable[[str, str, str], None], tmp_path: Path) -> None:
    install("laboratory_one", "wanderer", LABORATORY.format(name="wanderer"))
    kind = kind_named("wanderer")
    assert "wanderer" in names()
    torch.manual_seed(1)
    network = kind.make(SMALL, ActionContract())
    assert kind_of(network) is kind
    save_network(tmp_path / "checkpoint", network, {})
    given = []
    for policy in (kind.drive(network), load_policy(tmp_path / "checkpoint")):
        given.append(policy.step(observation(1), policy.reset(Instruction("stop at the red cup"))).chunk.velocities)
    assert np.array_equal(*given)


def test_a_checkpoint_of_a_kind_that_is_not_here_says_so(
    install: Callable[[str, str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("laboratory_two", "rambler", LABORATORY.format(name="rambler"))
    save_network(tmp_path / "checkpoint", kind_named("rambler").make(SMALL, ActionContract()), {})
    (tmp_path / "laboratory_two-1.0.dist-info" / "entry_points.txt").unlink()
    invalidate_caches()
    with pytest.raises(CheckpointError, match="holds a policy of kind 'rambler': there is no kind of policy called"):
        load_policy(tmp_path / "checkpoint")


def test_one_that_two_packages_claim_is_refused(install: Callable[[str, str, str], None]) -> None:
    for package in ("laboratory_three", "laboratory_four"):
        install(package, "roamer", LABORATORY.format(name="roamer"))
    with pytest.raises(ConfigError, match=r"'roamer' is claimed by laboratory_\w+:KIND and laboratory_\w+:KIND"):
        kind_named("roamer")


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("KIND = 3", "is no PolicyKind"),
        ("import no_such_module_here", "cannot be imported"),
        ("", "cannot be imported"),
    ],
)
def test_one_that_is_not_what_it_claims_is_refused(
    install: Callable[[str, str, str], None], module: str, said: str
) -> None:
    install("laboratory_five", "stroller", module)
    with pytest.raises(ConfigError, match=rf"'stroller' \(laboratory_five:KIND\) {said}"):
        kind_named("stroller")


def test_a_network_of_no_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="class Linear says of no kind that it is"):
        kind_of(nn.Linear(1, 1))
