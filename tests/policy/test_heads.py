import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little import HEADS, head
from torch import Tensor

from mobile_vla.core import ConfigError
from mobile_vla.policy.heads import Flow, Head, HeadConfig, Regression

WIDTH, HORIZON = 6, 4
WINDOWED = [name for name in HEADS if "without end" not in name]
UNENDING = [name for name in HEADS if "without end" in name]
windowed = pytest.mark.parametrize("name", WINDOWED)
every = pytest.mark.parametrize("name", HEADS)


def made(name: str, window: int | None = None, **changes: object) -> Head:
    torch.manual_seed(5)
    config = head(name) if window is None else replace(head(name), window=window)
    result = Head(replace(config, **changes), WIDTH, HORIZON).eval()
    torch.nn.init.normal_(result.start)  # learnt, so not the zeros that it begins with
    return result


def run(head: Head, features: Tensor) -> Tensor:
    """Contexts of all steps, with the history empty before."""
    with torch.inference_mode():
        context: Tensor = head(features, head.initial(len(features))).context
        return context


@windowed
@settings(max_examples=12)
@given(window=st.integers(1, 4), place=st.integers(0, 6), seed=st.integers(0, 99))
def test_a_frame_counts_for_as_many_steps_as_the_window_is_long(name: str, window: int, place: int, seed: int) -> None:
    head = made(name, window)
    features = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(seed))
    changed = features.clone()
    changed[0, place] += 1.0
    differs = (run(head, features) != run(head, changed)).any(-1)[0].tolist()
    assert differs == [place <= step < place + window for step in range(7)]


@pytest.mark.parametrize("name", UNENDING)
@given(place=st.integers(0, 6))
@settings(max_examples=7)
def test_without_end_a_frame_counts_for_ever_and_never_before(name: str, place: int) -> None:
    head = made(name)
    features = torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(place))
    changed = features.clone()
    changed[0, place] += 1.0
    differs = (run(head, features) != run(head, changed)).any(-1)[0].tolist()
    assert differs == [step >= place for step in range(7)]


@every
@given(cut=st.integers(0, 6))
@settings(max_examples=7)
def test_going_on_from_a_history_is_computing_afresh(name: str, cut: int) -> None:
    head = made(name)
    features = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = head(features, head.initial(2))
        history, contexts = head.initial(2), []
        for part in (features[:, :cut], features[:, cut:]):
            if part.shape[1]:
                before = history.clone()
                decided = head(part, history)
                assert torch.equal(history, before)
                history = decided.history
                contexts.append(decided.context)
    torch.testing.assert_close(torch.cat(contexts, dim=1), whole.context, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(history, whole.history, rtol=1e-5, atol=1e-6)


@every
def test_each_head_learns_a_chunk(name: str) -> None:
    head = made(name).train()
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(4, 3, WIDTH, generator=generator)
    chunks = torch.rand(4, 3, HORIZON, 3, generator=generator) - 0.5
    optimizer = torch.optim.Adam(head.parameters(), 0.01)

    def loss() -> Tensor:
        noise, time = torch.randn(chunks.shape, generator=generator), torch.rand(4, 3, generator=generator)
        return head.loss(head(features, head.initial(4)).context, chunks, noise, time).mean()

    with torch.no_grad():
        first = head.chunk(head(features, head.initial(4)).context)
    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    with torch.no_grad():
        last = head.chunk(head(features, head.initial(4)).context)
    assert (last - chunks).abs().mean() < 0.3 * (first - chunks).abs().mean()


@every
def test_what_is_unknown_costs_nothing_and_teaches_nothing(name: str) -> None:
    head = made(name)
    generator = torch.Generator().manual_seed(2)
    features, noise = torch.randn(2, 3, WIDTH, generator=generator), torch.randn(2, 3, HORIZON, 3, generator=generator)
    chunks, time = torch.rand(2, 3, HORIZON, 3, generator=generator), torch.rand(2, 3, generator=generator)
    chunks[0, :, 2:] = math.nan
    loss = head.loss(head(features, head.initial(2)).context, chunks, noise, time)
    assert torch.equal(loss == 0.0, chunks.isnan())
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in head.parameters() if each.grad is not None)
    head.zero_grad()
    lost = torch.full_like(chunks, math.nan)
    head.loss(head(features, head.initial(2)).context, lost, noise, time).sum().backward()
    assert all((each.grad == 0.0).all() for each in head.parameters() if each.grad is not None)


class Exact(Flow):
    """The field that carries any noise to one chunk in straight lines: (target - chunk) / (1 - time)."""

    def __init__(self, steps: int, target: Tensor) -> None:
        super().__init__(HeadConfig("flow", hidden=4, decoder=(), flow_steps=steps), len(target))
        self.target = target

    def _field(self, context: Tensor, chunk: Tensor, time: Tensor) -> Tensor:
        return (self.target - chunk) / (1.0 - time[..., None])


@settings(max_examples=20)
@given(steps=st.integers(1, 12), seed=st.integers(0, 99))
def test_flow_along_the_exact_field_ends_at_its_target(steps: int, seed: int) -> None:
    target = torch.randn(5, generator=torch.Generator().manual_seed(seed))
    flow, context = Exact(steps, target), torch.zeros(2, 3, 4)
    torch.testing.assert_close(flow(context), target.expand(2, 3, -1), rtol=1e-4, atol=1e-5)
    noise, time = torch.randn(2, 3, 5), 0.9 * torch.rand(2, 3)
    torch.testing.assert_close(
        flow.loss(context, target.expand(2, 3, -1), noise, time), torch.zeros(2, 3, 5), rtol=0.0, atol=1e-6
    )


def test_flow_drives_the_same_way_each_time_and_its_noise_is_kept_with_the_weights() -> None:
    head = made("flow")
    context = torch.randn(2, 24)
    assert torch.equal(head.chunk(context), head.chunk(context))
    again = made("flow")
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.chunk(context), head.chunk(context))
    assert "decoder.noise" in head.state_dict()


@pytest.mark.parametrize("name", ["flow", "flow without end"])
def test_in_bfloat16_flow_keeps_its_time_and_its_sum_exact(name: str) -> None:
    head, context = made(name, flow_steps=10), torch.randn(8, 24)
    exact = head.chunk(context)
    rounded = head.to(torch.bfloat16).chunk(context.to(torch.bfloat16))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


@settings(max_examples=20)
@given(scale=st.floats(0.1, 1e6), seed=st.integers(0, 99))
def test_a_squashed_regression_stays_within_the_limits(scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    regression, context = Regression(replace(head(), squash=True), 12), scale * torch.randn(3, 24)
    plain = Regression(head(), 12)
    plain.load_state_dict(regression.state_dict())
    assert (regression(context).abs() <= 1.0).all()
    torch.testing.assert_close(regression(context), plain(context).tanh())


@every
def test_a_history_is_of_its_sessions_alone(name: str) -> None:
    head = made(name)
    features, more = torch.randn(3, 2, WIDTH), torch.randn(3, 1, WIDTH)
    with torch.inference_mode():
        history = head(features, head.initial(3)).history
        together = head(more, history).context
        for place in range(3):
            alone = head(more[place : place + 1], history[place : place + 1]).context
            torch.testing.assert_close(alone[0], together[place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "gru"}, "unknown action head 'gru': choose among lstm, mlp, transformer, flow"),
        ({"kind": "mlp", "window": 0}, "head.window=0 with mlp"),
        ({"kind": "transformer", "window": 0}, "head.window=0 with transformer"),
        ({"window": -1}, "head.window=-1"),
        ({"hidden": 0}, "at least 1"),
        ({"decoder": (16, 0)}, "at least 1"),
        ({"kind": "flow", "flow_steps": 0}, "at least 1"),
        ({"kind": "transformer", "hidden": 20, "attention": 8}, "20 is not divisible by head.attention=8"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HeadConfig(**settings)
