import gc
import weakref

import numpy as np
import pytest
import torch

from engine.fused.test_layers import distance
from engine.restless import inputs_of, restless, step_and_inputs
from mobile_vla.core import ActionContract, ConfigError
from mobile_vla.engine.backends.base import Opening
from mobile_vla.engine.backends.cuda_graph import (
    CompiledGraphBackend,
    CudaGraphBackend,
    Lanes,
    StaticEngine,
    captured,
    compile_parts,
    prepared,
)
from mobile_vla.engine.fused.narrow import Form
from mobile_vla.engine.fused.step import FusedStep
from mobile_vla.policy.compact import CompactConfig, CompactNetwork
from mobile_vla.policy.step import step_of

CPU = torch.device("cpu")
GRAPHS = [CudaGraphBackend, CompiledGraphBackend]


def eager(run):
    """As it is, one operation after another."""
    return run


class Watched:
    """Makes nothing faster, and counts."""

    def __init__(self):
        self.runs = 0

    def __call__(self, run):
        def repeat():
            self.runs += 1
            run()

        return repeat


def engine_of(network, sessions, repeatable=eager):
    return StaticEngine(FusedStep(step_of(network), Form("fp32")).eval(), sessions, repeatable)


def driven(engine, inputs, count):
    """One decision of the first sessions of some inputs: what was brought, and what was decided."""
    words = [engine.bring(tuple(part[place : place + 1] for part in inputs.words)) for place in range(count)]
    histories = [inputs.history[place : place + 1].to(engine.start()) for place in range(count)]
    return (
        words,
        histories,
        engine.decide(inputs.pixels[:count].numpy(), words, inputs.motion[:count].numpy(), histories),
    )


@pytest.mark.parametrize(("name", "options"), [("kosmos_lstm", {"prompt": "instruction_first"}), ("clip_lstm", {})])
@torch.no_grad()
def test_it_decides_what_the_step_decides(name, options):
    step, inputs = step_and_inputs(restless(name, **options), sessions=3)
    chunk, status, belief, history = step(*inputs)
    watched = Watched()
    engine = engine_of(step.network, 3, watched)
    for count in (3, 1, 2):
        _, _, decided = driven(engine, inputs, count)
        assert distance(chunk[:count], torch.from_numpy(decided.chunk)) < 1e-5
        assert distance(status[:count], torch.from_numpy(decided.status)) < 1e-5
        assert distance(belief[:count], torch.from_numpy(decided.belief)) < 1e-5
        assert len(decided.histories) == count
        assert distance(history[:count], torch.cat(decided.histories)) < 1e-5
    assert watched.runs == 3


@torch.no_grad()
def test_what_it_gave_and_what_it_was_given_stays_as_it_was():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    engine = engine_of(step.network, 2)
    words, histories, first = driven(engine, inputs, 2)
    kept = [each.clone() for each in (*words[0], *words[1], *histories, *first.histories)]
    given = [array.copy() for array in first[:3]]
    others = inputs_of(step, seed=9)
    again = engine.decide(others.pixels.numpy(), words, others.motion.numpy(), first.histories)
    assert not np.allclose(again.chunk, given[0])
    now = (*words[0], *words[1], *histories, *first.histories)
    assert all(torch.equal(before, after) for before, after in zip(kept, now, strict=True))
    assert all(np.array_equal(before, after) for before, after in zip(given, first[:3], strict=True))


@torch.no_grad()
def test_the_same_inputs_are_decided_alike_whatever_came_between():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    engine = engine_of(step.network, 2)
    words, histories, first = driven(engine, inputs, 2)
    others = inputs_of(step, seed=9)
    swapped = engine.decide(others.pixels.numpy(), words[::-1], others.motion.numpy(), histories[::-1])
    again = engine.decide(inputs.pixels.numpy(), words, inputs.motion.numpy(), histories)
    assert np.array_equal(first.chunk, again.chunk)
    assert not np.array_equal(first.chunk, swapped.chunk)


@torch.no_grad()
def test_inputs_and_outputs_never_move():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    places = []
    fused = FusedStep(step, Form("fp32")).eval()
    fused.register_forward_pre_hook(
        lambda _, given: places.append([each.data_ptr() for each in (given[0], *given[1], *given[2:])])
    )
    engine = StaticEngine(fused, 2, eager)
    for _ in range(3):
        driven(engine, inputs, 2)
    assert len(places) == 3
    assert places[0] == places[1] == places[2]


@torch.no_grad()
def test_words_go_up_once_an_instruction():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    engine = engine_of(step.network, 2)
    words, histories, first = driven(engine, inputs, 2)
    asked = [inputs.pixels.numpy(), words, inputs.motion.numpy(), histories]
    for part in words[0]:
        part.zero_()  # nobody may; it shows whether they are read again
    assert np.array_equal(engine.decide(*asked).chunk, first.chunk)
    asked[1] = [tuple(part.clone() for part in words[0]), words[1]]
    assert not np.array_equal(engine.decide(*asked).chunk[0], first.chunk[0])


def test_a_closed_engine_gives_its_weights_back():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    fused = FusedStep(step, Form("fp32")).eval()
    engine, weights = StaticEngine(fused, 2, eager), weakref.ref(fused.finish.status.weight)
    del fused
    engine.close()
    gc.collect()
    assert weights() is None
    with pytest.raises(RuntimeError, match="closed"):
        driven(engine, inputs, 2)


def opening(network, precision):
    return Opening(step_of(network), precision, 1, folder=None)


def test_a_full_size_policy_is_fused_and_another_is_not_narrowed():
    assert isinstance(prepared(opening(restless("clip_lstm"), "int8"), CPU), FusedStep)
    compact = CompactNetwork(CompactConfig(), ActionContract())
    step = prepared(opening(compact, "bf16"), CPU)
    assert {each.dtype for each in step.parameters()} == {torch.bfloat16}
    with pytest.raises(ConfigError, match="fp32, bf16 or fp16"):
        prepared(opening(compact, "fp8"), CPU)


@torch.no_grad()
def test_the_compact_policy_is_decided_over_memory_that_stays_too():
    step, inputs = step_and_inputs(CompactNetwork(CompactConfig(), ActionContract()).eval())
    _, _, decided = driven(StaticEngine(step, 2, eager), inputs, 2)
    assert distance(step(*inputs)[0], torch.from_numpy(decided.chunk)) < 1e-5


@torch.no_grad()
def test_parts_are_compiled_whole():
    step, inputs = step_and_inputs(restless("clip_lstm"))
    fused = FusedStep(step, Form("fp32")).eval()
    expected = fused(*inputs)
    seen = []

    def compiler(graph, given):
        seen.append(graph)
        return graph.forward

    compile_parts(fused, backend=compiler)
    found = fused(*inputs)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
    computing = [part for part in fused.parts() if list(part.parameters())]
    assert len(seen) >= len(computing)


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_machine_without_such_a_gpu_is_told_why(kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in kind().unusable("bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    assert kind().unusable("bf16") == ""
    assert kind().unusable("fp8") == "fp8 needs compute capability 8.9, this GPU has 8.6"


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8", "int8", "int8_weights"])
@pytest.mark.parametrize("kind", GRAPHS)
@torch.no_grad()
def test_the_graph_decides_what_the_same_operations_decide_one_by_one(kind, precision):
    if reason := kind().unusable(precision):
        assert "compute capability" in reason
        return
    network = restless("kosmos_clip")
    inputs = inputs_of(step_of(network))
    one_by_one = StaticEngine(FusedStep(step_of(network), Form(precision, torch.device("cuda"))).eval(), 2, eager)
    expected = driven(one_by_one, inputs, 2)[2]
    engine = kind().open(Opening(step_of(network), precision, 2, folder=None))
    most = {"fp32": 1e-4, "fp8": 0.15}.get(precision, 0.05)  # compiled, numbers are rounded elsewhere
    for count in (2, 1, 2):
        found = driven(engine, inputs, count)[2]
        assert distance(torch.from_numpy(expected.chunk[:count]), torch.from_numpy(found.chunk)) < most
        assert distance(torch.cat(expected.histories[:count]), torch.cat(found.histories)) < most
    engine.close()


@pytest.mark.needs("cuda")
@torch.no_grad()
def test_on_a_gpu_eager_decides_what_the_cpu_does():
    step, inputs = step_and_inputs(restless("kosmos_clip"))
    expected = step(*inputs)
    engine = StaticEngine(step.to("cuda"), 2, eager)
    assert distance(expected[0], torch.from_numpy(driven(engine, inputs, 2)[2].chunk)) < 1e-4


@pytest.mark.needs("cuda")
@torch.no_grad()
def test_what_runs_side_by_side_in_a_graph_is_what_runs_one_after_another():
    x, y, z = (torch.randn(512, 512, device="cuda") for _ in range(3))
    out = torch.zeros(3, 512, 512, device="cuda")
    lanes = Lanes()

    def run():
        for place, each in enumerate(lanes([lambda: x @ y, lambda: y @ z, lambda: (z @ x).relu()])):
            out[place].copy_(each)

    repeat = captured(run)
    for part in (x, y, z):
        part.normal_()
    repeat()
    torch.cuda.synchronize()
    for found, expected in zip(out, (x @ y, y @ z, (z @ x).relu()), strict=True):
        assert torch.allclose(found, expected, atol=1e-3)
