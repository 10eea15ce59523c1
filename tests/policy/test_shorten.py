"""Less of a network: what is left out must be all that differs."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from little import CONTRACT, WAYS, little, observation, with_siglip
from torch import Tensor, nn

from mobile_vla.core import CheckpointError, ConfigError, Instruction
from mobile_vla.policy.compact import MOTION_SIZE, CompactConfig, CompactNetwork
from mobile_vla.policy.encoders.kosmos import PROMPTS, KosmosTower
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.shorten import Shortening, read_shortening, shorten
from mobile_vla.policy.vla import VlaNetwork, VlaPolicy
from mobile_vla.policy.vla_step import VlaStep
from mobile_vla.policy.weights import checkpoint_of

SHORTEST = Shortening(decoder_layers=1, patches=0.3, latents=0.25, after_layer=1)
TEXT = "go to the red cup"


def network_of(way: str) -> VlaNetwork:
    return with_siglip() if way == "siglip" else little(way)


def inputs_of(network: VlaNetwork, texts: tuple[str, ...] = (TEXT, "파란 의자로 가")) -> tuple[Any, ...]:
    """Of a VlaStep, drawn."""
    step, generator = VlaStep(network, 24), torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (len(texts), *network.config.size, 3), dtype=torch.uint8, generator=generator)
    words = tuple(torch.cat(parts) for parts in zip(*map(step.read, texts), strict=True))
    motion = torch.randn(len(texts), MOTION_SIZE, generator=generator)
    return pixels, words, motion, step.start().repeat_interleave(len(texts), 0)


@torch.inference_mode()
def decided(network: VlaNetwork, inputs: tuple[Any, ...] | None = None) -> tuple[Tensor, ...]:
    return VlaStep(network, 24)(*(inputs or inputs_of(network)))


def without_effect(layers: Any) -> None:
    """Pre-norm layers whose additions are nothing."""
    for layer in layers:
        for linear in (layer.self_attn.out_proj, (layer.mlp if hasattr(layer, "mlp") else layer.ffn).fc2):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)


def vision_of(network: VlaNetwork) -> Any:
    tower = network.towers[network.config.towers[0]]
    return tower.model.vision_model.model if isinstance(tower, KosmosTower) else tower.model.vision_model


@pytest.mark.parametrize("way", [*WAYS, "siglip"])
def test_with_nothing_left_out_every_bit_is_as_before(way: str) -> None:
    network = network_of(way)
    made = shorten(network, Shortening())
    assert made is not network
    assert made.shortened == ""
    for one, other in zip(decided(network), decided(made), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("way", [*WAYS, "siglip"])
def test_the_network_itself_stays_as_it_was_and_its_weights_are_not_copied(way: str) -> None:
    network = network_of(way)
    before, places = decided(network), {each.data_ptr() for each in network.parameters()}
    how = Shortening(patches=0.5) if way in ("clip_lstm", "siglip") else SHORTEST
    made = shorten(network, how)
    assert {each.data_ptr() for each in made.parameters()} <= places
    assert (network.shortened, made.shortened) == ("", str(how))
    for one, other in zip(before, decided(network), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(before[0], decided(made)[0])


@pytest.mark.parametrize("way", ["kosmos_lstm", "kosmos_lstm instruction_first"])
def test_early_exit_from_the_decoder_equals_later_layers_that_do_nothing(way: str) -> None:
    network = little(way)
    made = shorten(network, Shortening(decoder_layers=1))
    answers = decided(made, inputs_of(made))
    without_effect(network.towers["kosmos"].model.text_model.model.layers[1:])
    for one, other in zip(decided(network), answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", ["kosmos_clip", "clip_lstm", "siglip"])
def test_early_exit_from_the_vision_transformer_equals_later_layers_that_do_nothing(way: str) -> None:
    network = network_of(way)
    made = shorten(network, Shortening(vision_layers=1))
    answers = decided(made)
    without_effect(vision_of(network).encoder.layers[1:])
    for one, other in zip(decided(network), answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_fewer_latents_equal_a_decoder_that_is_blind_to_the_others(prompt: str) -> None:
    """The whole decoder under a mask, put together here anew."""
    torch.manual_seed(3)
    tower = KosmosTower(describe("tiny", "kosmos"), (96, 192), prompt).eval()
    pixels = torch.randint(0, 256, (2, 96, 192, 3), dtype=torch.uint8)
    tokens = tower.tokenise([TEXT, "stop"])
    with torch.inference_mode():
        whole = tower.see(pixels).tokens
        tower.keep_latents(3)
        seen = tower.see(pixels)
        given_answer = tower.ask(seen, tower.read(tokens))
    assert tower.latents == 3
    assert torch.equal(seen.tokens, whole[:, [0, 2, 5]])
    with torch.inference_mode():
        for place, length in enumerate(tokens[1].tolist()):
            embed = tower.model.text_model.model.embed_tokens
            begin, opened, closed = embed(tower.marks)[:, None]
            words, action = embed(tokens[0][place, :length]), tower.action[None]
            latents, unread = whole[place], torch.isin(torch.arange(8), torch.tensor([0, 2, 5])).long()
            one = torch.ones(1, dtype=torch.long)
            if prompt == "instruction_first":
                rows = [(begin, one), (words, one.repeat(length)), (opened, one), (latents, unread), (closed, one)]
            elif prompt == "image_first":
                rows = [(begin, one), (opened, one), (latents, unread), (closed, one), (words, one.repeat(length))]
            else:
                rows = [(begin, one), (latents, unread), (words, one.repeat(length))]
            rows += [(action, one)]
            hidden = tower.model.text_model(
                inputs_embeds=torch.cat([row for row, _ in rows])[None],
                attention_mask=torch.cat([is_read for _, is_read in rows])[None],
            ).last_hidden_state
            torch.testing.assert_close(given_answer[place], hidden[0, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [*WAYS, "siglip"])
def test_patches_that_go_on_by_themselves_change_nothing(way: str) -> None:
    """The share is below 1 and rounded up to all of them: the layers behind see what they would have seen."""
    network = network_of(way)
    made = shorten(network, Shortening(patches=0.999))
    for one, other in zip(decided(network), decided(made), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", [*WAYS, "siglip"])
def test_fewer_patches_leave_a_whole_grid_to_point_at(way: str) -> None:
    network = network_of(way)
    made = shorten(network, Shortening(patches=0.25))
    pixels = inputs_of(network)[0]
    with torch.inference_mode():
        whole, less = network.see(pixels), made.see(pixels)
    assert less.seen[0].patches.shape == whole.seen[0].patches.shape
    assert not torch.allclose(less.seen[0].patches, whole.seen[0].patches)
    assert all(bool(torch.isfinite(part).all()) for part in decided(made))


@pytest.mark.parametrize("way", ["kosmos_clip", "kosmos_lstm instruction_first"])
def test_sessions_side_by_side_get_what_each_would_get_alone(way: str) -> None:
    policy = VlaPolicy(shorten(little(way), SHORTEST))
    texts = [TEXT, "파란 의자 왼쪽으로 가서 멈춰"]
    states = [policy.reset(Instruction(text)) for text in texts]
    together = policy.steps([observation(1), observation(2)], states)
    for seed, state, step in zip((1, 2), states, together, strict=True):
        alone = policy.step(observation(seed), state)
        np.testing.assert_allclose(alone.chunk.velocities, step.chunk.velocities, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("kosmos_clip", SHORTEST),
        ("kosmos_lstm instruction_first", SHORTEST),
        ("clip_lstm", Shortening(patches=0.5)),
        ("siglip", Shortening(patches=0.5)),
    ],
)
def test_torch_export_takes_it_and_equals_it(way: str, how: Shortening) -> None:
    made = shorten(network_of(way), how)
    step, inputs = VlaStep(made, 24).eval(), inputs_of(made)
    with torch.no_grad(), pytest.warns(UserWarning, match="_flat_weights"):
        program = torch.export.export(step, inputs, strict=False)
    other = (torch.flip(inputs[0], [2]), *inputs[1:])
    with torch.no_grad():
        for one, again in zip(step(*other), program.module()(*other), strict=True):
            torch.testing.assert_close(one, again, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_is_near_itself() -> None:
    made = shorten(little("kosmos_clip"), SHORTEST)
    exact = decided(made)
    rounded = decided(made.to(torch.bfloat16), inputs_of(made))
    for one, other in zip(exact[:3], rounded[:3], strict=True):
        assert float((one - other.float()).abs().mean()) < 0.05


COUNTS = st.none() | st.integers(1, 40)


@given(st.builds(Shortening, COUNTS, COUNTS, st.floats(0.01, 0.99), st.floats(0.01, 1.0), COUNTS))
def test_what_is_said_of_it_can_be_read(how: Shortening) -> None:
    assert read_shortening(str(how)) == how


def test_nothing_said_leaves_nothing_out() -> None:
    assert read_shortening("") == read_shortening("patches=1 latents=1.0") == Shortening()
    assert str(Shortening()) == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("latent=0.5", "did you mean latents"),
        ("decoder_layers", "write key=value"),
        ("decoder_layers=", "write key=value"),
        ("decoder_layers=0", "decoder_layers=0: choose at least 1"),
        ("decoder_layers=2.5", "needs a whole number"),
        ("patches=half", "needs a number"),
        ("patches=0", "patches=0.0: choose a share"),
        ("latents=1.5", "latents=1.5: choose a share"),
        ("latents=nan", "latents=nan: choose a share"),
        ("patches=0.5 patches=0.5", "patches twice"),
        ("after_layer=1", "means nothing without patches"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_shortening(text)


@pytest.mark.parametrize(
    ("way", "text", "said"),
    [
        ("kosmos_clip", "decoder_layers=3", "decoder_layers=3: this kosmos_clip has 2 layers"),
        ("clip_lstm", "vision_layers=3", "vision_layers=3: this clip_lstm has 2 layers"),
        ("clip_lstm", "decoder_layers=1", "clip_lstm has no decoder"),
        ("siglip", "latents=0.5", "no latents"),
        ("kosmos_clip", "patches=0.5 after_layer=2", "leaves a layer behind it"),
        ("kosmos_clip", "patches=0.5 vision_layers=1", "after layer 0 of 1"),
    ],
)
def test_what_a_network_has_not_cannot_be_left_out(way: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shorten(network_of(way), read_shortening(text))


def test_a_network_is_shortened_once_and_not_saved() -> None:
    made = shorten(little("clip_lstm"), Shortening(patches=0.5))
    with pytest.raises(ConfigError, match="shortened already"):
        shorten(made, Shortening(patches=0.5))
    with pytest.raises(CheckpointError, match="save the one it was made of"):
        checkpoint_of(made, {})


def test_the_compact_policy_cannot_be_shortened() -> None:
    with pytest.raises(ConfigError, match="choose a full-size policy"):
        shorten(CompactNetwork(CompactConfig(), CONTRACT), Shortening())  # type: ignore[type-var]
