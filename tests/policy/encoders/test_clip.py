"""CLIP's tower, and SigLIP in its place, against transformers' own features."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipConfig

from mobile_vla.core import ConfigError, InstructionError
from mobile_vla.policy.encoders.clip import ClipTower
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import TowerSpec
from mobile_vla.policy.preprocess import normalise

TEXTS = ["go to the red cup", "stop", "파란 의자 왼쪽으로 가서 멈춰"]
FAMILIES = ("clip", "siglip")
PAD, END = 1, 3


def spec(family: str) -> TowerSpec:
    clip = describe("tiny", "clip")
    if family == "clip":
        return clip
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config={**small, "vocab_size": 600, "max_position_embeddings": 32, "pad_token_id": PAD},
        vision_config={**small, "image_size": 96, "patch_size": 16},
    )
    return replace(clip, config=config.to_dict())


def tower(family: str, size: tuple[int, int] = (96, 96)) -> ClipTower:
    torch.manual_seed(4)
    return ClipTower(spec(family), size).eval()


def frames(count: int, size: tuple[int, int] = (96, 96)) -> Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


families = pytest.mark.parametrize("family", FAMILIES)


@families
@torch.inference_mode()
def test_features_are_those_of_the_model_itself(family: str) -> None:
    made, pixels = tower(family), frames(3)
    (words,) = made.read(made.tokenise(TEXTS))
    for row, text in enumerate(TEXTS):
        ids = made.tokenizer.encode(text).ids
        if family == "siglip":
            ids += [PAD] * (made.max_words - len(ids))
        native = made.model.get_text_features(torch.tensor([ids])).pooler_output
        torch.testing.assert_close(words[row], F.normalize(native, dim=-1)[0], rtol=1e-4, atol=1e-5)
    seen = made.see(pixels)
    native = made.model.get_image_features(normalise(pixels, made.spec.mean, made.spec.std))
    torch.testing.assert_close(seen.tokens, F.normalize(native.pooler_output, dim=-1), rtol=1e-4, atol=1e-5)
    assert seen.patches.shape == (3, 36, made.patch)
    assert torch.equal(seen.patches, native.last_hidden_state[:, -36:])


@torch.inference_mode()
@pytest.mark.parametrize("end", [2, END, 599])
def test_clip_reads_the_end_marks_place_whatever_number_the_configuration_gives_it(end: int) -> None:
    """Old configurations say 2, and transformers then takes the largest number's place instead."""
    wanted = tower("clip").read(tower("clip").tokenise(TEXTS))[0]
    odd = spec("clip")
    odd.config["text_config"]["eos_token_id"] = end
    torch.manual_seed(4)
    made = ClipTower(odd, (96, 96)).eval()
    torch.testing.assert_close(made.read(made.tokenise(TEXTS))[0], wanted, rtol=1e-5, atol=1e-6)


@families
@torch.inference_mode()
def test_texts_side_by_side_are_as_alone(family: str) -> None:
    made = tower(family)
    (together,) = made.read(made.tokenise(TEXTS))
    for row, text in enumerate(TEXTS):
        (alone,) = made.read(made.tokenise([text]))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)
        assert made.widen((alone,), 64) == (alone,)


@families
@torch.inference_mode()
def test_an_answer_is_frame_words_and_where_they_agree(family: str) -> None:
    made = tower(family)
    seen, words = made.see(frames(3)), made.read(made.tokenise(TEXTS))
    answer = made.ask(seen, words)
    assert answer.shape == (3, made.answer)
    frame, text, both = answer.chunk(3, dim=1)
    torch.testing.assert_close(frame * text, both, rtol=1e-4, atol=1e-5)
    cosine = F.cosine_similarity(seen.tokens, words[0])
    torch.testing.assert_close(both.mean(1), cosine, rtol=1e-3, atol=1e-4)
    assert answer.square().mean().sqrt() == pytest.approx(1.0, abs=0.5)


@families
@torch.inference_mode()
def test_both_ways_of_attention_agree(family: str) -> None:
    made, given = tower(family), []
    for way in ("sdpa", "eager"):
        made.model.set_attn_implementation(way)
        given.append(made.ask(made.see(frames(3)), made.read(made.tokenise(TEXTS))))
    torch.testing.assert_close(*given, rtol=1e-3, atol=1e-4)


@families
@torch.inference_mode()
@pytest.mark.parametrize("size", [(96, 192), (48, 80)])
def test_frames_of_another_size_are_seen_with_stretched_places(family: str, size: tuple[int, int]) -> None:
    made = tower(family, size)
    seen = made.see(frames(2, size))
    assert made.grid == (size[0] // 16, size[1] // 16)
    assert seen.patches.shape == (2, made.grid[0] * made.grid[1], made.patch)
    changed = frames(2, size)
    changed[:, :16, -16:] = 0
    moved = (made.see(changed).patches - seen.patches).abs().amax((0, 2))
    assert int(moved.argmax()) == made.grid[1] - 1


@families
@torch.inference_mode()
def test_bfloat16_is_near(family: str) -> None:
    made = tower(family)
    exact = made.ask(made.see(frames(3)), made.read(made.tokenise(TEXTS)))
    made.to(torch.bfloat16)
    rounded = made.ask(made.see(frames(3)), made.read(made.tokenise(TEXTS)))
    assert F.cosine_similarity(rounded.float(), exact).min() > 0.99


@families
def test_all_but_the_contrastive_scale_learns(family: str) -> None:
    made = tower(family)
    made.ask(made.see(frames(2)), made.read(made.tokenise(TEXTS[:2]))).square().sum().backward()
    resting = {name for name, each in made.named_parameters() if not each.requires_grad}
    assert resting == {
        name for name in ("model.logit_scale", "model.logit_bias") if "scale" in name or family != "clip"
    }
    numbers = made.tokenizer.encode(TEXTS[0]).ids
    embeddings = made.model.text_model.embeddings.token_embedding.weight.grad
    assert (embeddings[numbers].abs().sum(1) > 0.0).all()


def test_what_does_not_fit_is_refused() -> None:
    clip = spec("clip")
    with pytest.raises(ConfigError, match="of type 'blip': choose among clip, siglip"):
        ClipTower(replace(clip, config={**clip.config, "model_type": "blip"}), (96, 96))
    with pytest.raises(ConfigError, match="8x96 hold no patch of 16"):
        ClipTower(clip, (8, 96))
    siglip = spec("siglip")
    siglip.config["text_config"]["pad_token_id"] = None
    with pytest.raises(ConfigError, match="give pad_token_id"):
        ClipTower(siglip, (96, 96))
    with pytest.raises(InstructionError, match="more than the 64 that the model reads"):
        tower("clip").tokenise(["go to the red cup and then " * 20])
