"""Kosmos-2's tower against transformers' own forward, and against the same sequence computed by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mobile_vla.core import CheckpointError, ConfigError, InstructionError
from mobile_vla.policy.encoders.kosmos import IMAGE_FIRST, INSTRUCTION_FIRST, PROMPTS, UNMARKED, KosmosTower
from mobile_vla.policy.encoders.sources import describe
from mobile_vla.policy.encoders.tower import choose, repeat, stack
from mobile_vla.policy.preprocess import normalise

TEXTS = ["go to the red cup", "stop", "파란 의자 왼쪽으로 가서 멈춰"]


def tower(prompt: str = IMAGE_FIRST, size: tuple[int, int] = (96, 96)) -> KosmosTower:
    torch.manual_seed(4)
    return KosmosTower(describe("tiny", "kosmos"), size, prompt).eval()


def frames(count: int, size: tuple[int, int] = (96, 96)) -> Tensor:
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def answers(tower: KosmosTower, texts: list[str], pixels: Tensor) -> Tensor:
    return tower.ask(tower.see(pixels), tower.read(tower.tokenise(texts)))


def by_hand(tower: KosmosTower, text: str, pixels: Tensor) -> Tensor:
    """The action token's state of one frame under one text, by one pass over the whole sequence."""
    numbers = torch.tensor(tower.tokenizer.encode(text, add_special_tokens=False).ids)
    embed = tower.model.text_model.model.embed_tokens
    begin, opened, closed = embed(tower.marks)[:, None]
    latents, words, action = tower.see(pixels).tokens[0], embed(numbers), tower.action[None]
    parts = {
        IMAGE_FIRST: [begin, opened, latents, closed, words, action],
        UNMARKED: [begin, latents, words, action],
        INSTRUCTION_FIRST: [begin, words, opened, latents, closed, action],
    }
    sequence = torch.cat(parts[tower.prompt])[None]
    hidden: Tensor = tower.model.text_model(inputs_embeds=sequence, use_cache=False).last_hidden_state
    return hidden[0, -1]


def told_apart(answer: Tensor) -> Tensor:
    """A number with a gradient: sums and squares of what a layer norm gives are always the same."""
    return (answer * torch.linspace(-1.0, 1.0, answer.shape[-1])).sum()


@torch.inference_mode()
@pytest.mark.parametrize("text", TEXTS)
def test_image_first_is_what_kosmos_itself_computes(text: str) -> None:
    made, pixels = tower(), frames(1)
    begin, opened, closed = made.marks.tolist()
    words = made.tokenizer.encode(text, add_special_tokens=False).ids
    made.action.copy_(made.model.text_model.model.embed_tokens.weight[closed])  # a token that Kosmos-2 has
    numbers = [begin, opened, *[2] * made.latents, closed, *words, closed]
    native = made.model(
        pixel_values=normalise(pixels, made.spec.mean, made.spec.std),
        input_ids=torch.tensor([numbers]),
        image_embeds_position_mask=torch.tensor([[2 <= place < 2 + made.latents for place in range(len(numbers))]]),
    )
    assert torch.equal(answers(made, [text], pixels)[0], native.last_hidden_state[0, -1])


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_many_texts_at_once_are_as_each_by_hand(prompt: str) -> None:
    made, pixels = tower(prompt), frames(len(TEXTS))
    together = answers(made, TEXTS, pixels)
    for place, text in enumerate(TEXTS):
        alone = by_hand(made, text, pixels[place : place + 1])
        torch.testing.assert_close(together[place], alone, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_words_read_apart_can_be_stacked_repeated_chosen_and_widened(prompt: str) -> None:
    made, pixels = tower(prompt), frames(3)
    apart = [made.read(made.tokenise([text])) for text in TEXTS]
    seen, together = made.see(pixels), made.read(made.tokenise(TEXTS))
    wanted = made.ask(seen, together)
    for words in (stack(apart), choose(stack([apart[2], apart[0], apart[1]]), torch.tensor([1, 2, 0]))):
        torch.testing.assert_close(made.ask(seen, words), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made.ask(seen, made.widen(together, 40)), wanted, rtol=1e-4, atol=1e-5)
    assert made.widen(apart[1], 40)[0].shape == made.widen(apart[0], 40)[0].shape
    one = [part[:1].expand(3, *part.shape[1:]) for part in seen]
    torch.testing.assert_close(
        made.ask(type(seen)(*one), repeat(apart[0], 3)), wanted[:1].expand(3, -1), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(InstructionError, match="shorten it"):
        made.widen(together, 1)


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_asking_leaves_the_words_as_they_were(prompt: str) -> None:
    made = tower(prompt)
    words = made.read(made.tokenise(TEXTS[:1]))
    before = [part.clone() for part in words]
    first, second = made.ask(made.see(frames(1)), words), made.ask(made.see(frames(1)), words)
    assert torch.equal(first, second)
    assert all(torch.equal(one, other) for one, other in zip(words, before, strict=True))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_computing_layers_again_gives_the_same_answers_and_gradients(prompt: str) -> None:
    gradients, given = [], []
    for again in (False, True):
        made = tower(prompt).train()
        if again:
            made.model.activation_checkpointing_enable({"use_reentrant": False})
        answer = answers(made, TEXTS[:2], frames(2))
        told_apart(answer).backward()
        given.append(answer.detach())
        gradients.append({name: each.grad for name, each in made.named_parameters() if each.grad is not None})
    torch.testing.assert_close(*given, rtol=1e-4, atol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_both_ways_of_attention_agree(prompt: str) -> None:
    made, given = tower(prompt), []
    for way in ("sdpa", "eager"):
        made.model.set_attn_implementation(way)
        given.append(answers(made, TEXTS, frames(3)))
    torch.testing.assert_close(*given, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(96, 192), (48, 80)])
def test_frames_of_another_size_are_seen_with_stretched_places(size: tuple[int, int]) -> None:
    made = tower(size=size)
    seen = made.see(frames(2, size))
    assert made.grid == (size[0] // 16, size[1] // 16)
    assert seen.patches.shape == (2, made.grid[0] * made.grid[1], made.patch)
    assert seen.tokens.shape == (2, made.latents, made.answer)
    changed = frames(2, size)
    changed[:, :16, -16:] = 0
    moved = (made.see(changed).patches - seen.patches).abs().amax((0, 2))
    assert int(moved.argmax()) == made.grid[1] - 1


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_hangs_on_every_word_and_on_the_picture(prompt: str) -> None:
    made = tower(prompt)
    made.model.requires_grad_(True)
    embed, seen = made.model.text_model.model.embed_tokens, made.see(frames(1))
    told_apart(answers(made, TEXTS[:1], frames(1))).backward()
    numbers = made.tokenizer.encode(TEXTS[0], add_special_tokens=False).ids
    assert (embed.weight.grad[numbers].abs().sum(1) > 0.0).all()
    assert made.action.grad is not None
    assert made.model.vision_model.model.embeddings.patch_embedding.weight.grad.abs().sum() > 0.0
    assert seen.tokens.requires_grad


@torch.inference_mode()
@pytest.mark.parametrize("prompt", PROMPTS)
def test_bfloat16_is_near(prompt: str) -> None:
    made = tower(prompt)
    exact = answers(made, TEXTS, frames(3))
    rounded = answers(made.to(torch.bfloat16), TEXTS, frames(3))
    assert rounded.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rounded.float(), exact).min() > 0.99


def test_what_does_not_fit_is_refused() -> None:
    spec = describe("tiny", "kosmos")
    with pytest.raises(ConfigError, match="unknown prompt order 'words_first'"):
        KosmosTower(spec, (96, 96), "words_first")
    with pytest.raises(ConfigError, match="100x96 do not divide into patches of 16"):
        KosmosTower(spec, (100, 96))
    with pytest.raises(ConfigError, match=r"max_words=149 .* at most 148"):
        KosmosTower(spec, (96, 96), max_words=149)
    with pytest.raises(CheckpointError, match="lacks <s>, <image> or </image>"):
        KosmosTower(replace(spec, tokenizer=spec.tokenizer.replace("<image>", "<picture>")), (96, 96))
    with pytest.raises(InstructionError, match="more than the 5 that the model reads"):
        KosmosTower(spec, (96, 96), max_words=5).tokenise(["go round the green chair on its left side"])
