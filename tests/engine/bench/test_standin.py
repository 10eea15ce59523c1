"""What is not the policy that it says it is, is refused before it is timed."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.little import little
from engine.small import checkpoint, network
from mobile_vla.checkpoint.manifest import CHECKPOINT, ENGINE, read_manifest
from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends import backend
from mobile_vla.engine.backends.base import Decided, Engine, Opening
from mobile_vla.engine.bench import standin
from mobile_vla.engine.bench.measure import BenchConfig, Target, bench, subjects
from mobile_vla.engine.bench.subject import Choice
from mobile_vla.engine.bench.way import WORDS, patterns
from mobile_vla.engine.folder import count_parameters, make_engine, open_engine, read_engine
from mobile_vla.engine.policy import EnginePolicy
from mobile_vla.policy.step import step_of
from mobile_vla.policy.weights import SHIPPED, load_network

FRAMES = patterns(320, 240).frames


def policy_of(net: nn.Module) -> EnginePolicy:
    step = step_of(net)
    return EnginePolicy(backend("torch").open(Opening(step, "fp32", 1, Path())), step)


def test_the_shipped_policy_is_what_it_says() -> None:
    net = load_network(SHIPPED)
    standin.require_whole(SHIPPED, net)
    policy = policy_of(net)
    standin.require_answers(policy, FRAMES[0], WORDS)
    standin.require_same_policy(policy, policy_of(net), FRAMES, WORDS, "it")


def test_a_network_of_other_sizes_than_its_config_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"is not what its config\.json describes: eye\..* has shape .* where "):
        standin.require_whole(SHIPPED, network())


def test_weights_that_say_nothing_are_refused() -> None:
    net = network()
    standin.require_learnt(net, "it")
    with torch.no_grad():
        net.memory.weight_hh_l0.fill_(0.25)
    with pytest.raises(
        CheckpointError, match=r"never trained: \d+% of its matrices .*memory\.weight_hh_l0 is the largest"
    ):
        standin.require_learnt(net, "it")
    with torch.no_grad():
        net.memory.weight_hh_l0.normal_()
        net.enter.weight[3, 4] = torch.nan
    with pytest.raises(CheckpointError, match=r"enter\.weight holds numbers that are not finite"):
        standin.require_learnt(net, "it")


def test_a_part_that_begins_without_effect_is_allowed() -> None:
    net = network()
    with torch.no_grad():
        net.query.weight.zero_()
    standin.require_learnt(net, "it")


def test_a_decision_reads_its_folded_weights_and_no_others() -> None:
    step = step_of(load_network(SHIPPED))
    assert standin.weights_read(step) == count_parameters(step)
    both = little("kosmos_clip")
    unread = sum(each.numel() for each in both.towers["clip"].model.text_model.parameters())
    assert standin.weights_read(step_of(both)) < count_parameters(step_of(both)) - unread


@pytest.mark.parametrize("bytes_a_weight", [0.0, 1.0, 4.0])
def test_files_too_small_for_the_weights_are_refused(tmp_path: Path, bytes_a_weight: float) -> None:
    step = step_of(network())
    (tmp_path / "decision.engine").write_bytes(bytes(10 + int(bytes_a_weight * standin.weights_read(step))))
    if bytes_a_weight == 4.0:
        standin.require_files(tmp_path, ["decision.engine"], "fp32", step)
    else:
        with pytest.raises(CheckpointError, match=r"is a stand-in: its files have .* bytes"):
            standin.require_files(tmp_path, ["decision.engine"], "fp32", step)


def forged(tmp_path: Path, engine: str) -> Path:
    """An engine of a slim network that claims to be the shipped policy's, with everything put right in its manifest."""
    folder = tmp_path / "forged"
    make_engine(checkpoint(tmp_path / "slim"), folder, engine, "fp32")
    shutil.rmtree(folder / CHECKPOINT)
    shutil.copytree(SHIPPED, folder / CHECKPOINT)
    parameters = count_parameters(step_of(load_network(SHIPPED)))
    manifest = replace(read_engine(folder), identity=read_manifest(SHIPPED).identity, parameters=parameters)
    (folder / ENGINE).write_bytes(manifest.to_json())
    return folder


@pytest.mark.needs("onnx")
@pytest.mark.needs("onnxscript")
@pytest.mark.needs("onnxruntime")
def test_a_smaller_network_behind_a_corrected_manifest_is_refused(tmp_path: Path) -> None:
    folder = forged(tmp_path, "onnxruntime")
    open_engine(folder).engine.close()  # it opens: every hash, shape and size fits
    target, config = Target(folder), BenchConfig(times=100)
    made = subjects(target, Choice(()), config, tmp_path / "scratch", tuple, lambda text: None)
    with pytest.raises(CheckpointError, match=r"forged is a stand-in: its graph decision\.onnx holds .* weights"):
        bench(target, made, config)


def test_a_manifest_that_was_not_corrected_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    make_engine(SHIPPED, folder, "torch", "fp32")
    step = step_of(load_network(SHIPPED))
    manifest = read_engine(folder)
    standin.require_engine(folder, manifest, step)
    with pytest.raises(CheckpointError, match=r"is a stand-in: its engine\.json speaks of 7 parameters"):
        standin.require_engine(folder, replace(manifest, parameters=7), step)


def test_frames_that_are_not_preprocessed_as_everywhere_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(network())

    def nearest(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        rows, columns = (np.arange(count) * of // count for count, of in zip(size, pixels.shape[:2], strict=True))
        return np.ascontiguousarray(pixels[rows][:, columns])

    monkeypatch.setattr("mobile_vla.engine.policy.fit", nearest)
    with pytest.raises(CheckpointError, match="is not fed as a robot feeds it"):
        standin.require_answers(policy, FRAMES[0], WORDS)


class Cut(Engine):
    """Answers with fewer rows, or with numbers that are none."""

    def __init__(self, within: Engine, rows: int, factor: float) -> None:
        self.within, self.sessions, self.rows, self.factor = within, within.sessions, rows, factor

    def bring(self, words: Any) -> Any:
        return self.within.bring(words)

    def start(self) -> Any:
        return self.within.start()

    def decide(self, pixels: Any, words: Sequence[Any], motion: Any, histories: Sequence[Any]) -> Decided:
        decided = self.within.decide(pixels, words, motion, histories)
        return decided._replace(chunk=self.factor * decided.chunk[:, : self.rows])


@pytest.mark.parametrize(("rows", "factor"), [(7, 1.0), (8, np.nan)])
def test_answers_of_other_shapes_or_of_no_numbers_are_refused(rows: int, factor: float) -> None:
    policy = policy_of(network())
    standin.require_answers(policy, FRAMES[0], WORDS)
    policy.engine = Cut(policy.engine, rows, factor)
    with pytest.raises(CheckpointError, match="does not answer as its contract says: its chunk"):
        standin.require_answers(policy, FRAMES[0], WORDS)


def test_an_engine_of_other_weights_is_told_by_what_it_decides() -> None:
    real, other = load_network(SHIPPED), load_network(SHIPPED)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter[torch.randperm(len(parameter), generator=torch.Generator().manual_seed(1))])
    with pytest.raises(CheckpointError, match=r"it is a stand-in: over \d+ frames its actions do not follow .*cosine"):
        standin.require_same_policy(policy_of(other), policy_of(real), FRAMES, WORDS, "it")
