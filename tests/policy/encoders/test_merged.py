"""Patches that go on for others: which they are, and what comes back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoder

from mobile_vla.policy.encoders.merged import MergedEncoder, groups, share_of

WIDTH = 16


def encoder() -> CLIPEncoder:
    torch.manual_seed(7)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, attn_implementation="sdpa")
    made = CLIPEncoder(config)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def merged(whole: CLIPEncoder, after: int, cells: int, kept: int) -> MergedEncoder:
    return MergedEncoder(whole.layers[:after], whole.layers[after:], cells, kept).eval()


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
def test_every_patch_is_in_a_group_and_no_group_is_empty(seed: int, cells: int, kept: int, count: int) -> None:
    kept = min(kept, cells)
    group = groups(drawn(seed, count, cells, WIDTH), kept)
    assert group.shape == (count, cells)
    assert all(set(row.tolist()) == set(range(kept)) for row in group)


def test_what_stands_out_goes_on_and_the_rest_goes_with_its_like() -> None:
    floor, wall, cup, speck = torch.eye(WIDTH)[:4]
    patches = torch.stack([floor, wall, floor, 5 * cup, floor + 0.1 * speck, floor])[None]
    group = groups(patches, 3)[0].tolist()
    assert group[0] == group[2] == group[4] == group[5]
    assert len({group[0], group[1], group[3]}) == 3


@pytest.mark.parametrize("marks", [0, 1])
@given(seed=st.integers(0, 99), after=st.integers(1, 3))
def test_with_all_patches_kept_it_is_the_encoder(marks: int, seed: int, after: int) -> None:
    whole, hidden = encoder(), drawn(seed, 2, marks + 9, WIDTH)
    with torch.inference_mode():
        wanted = whole(inputs_embeds=hidden).last_hidden_state
        given_ = merged(whole, after, 9, 9)(inputs_embeds=hidden).last_hidden_state
    torch.testing.assert_close(given_, wanted, rtol=1e-4, atol=1e-4)


@given(seed=st.integers(0, 99))
def test_equal_patches_as_one_lose_nothing(seed: int) -> None:
    """One that stands for three is heard as often as three, and three come back."""
    whole = encoder()
    different, equal = drawn(seed, 1, 6, WIDTH), 0.01 * drawn(seed + 1000, 1, 1, WIDTH)
    hidden = torch.cat([different, equal, equal, equal], dim=1)
    group = groups(hidden, 7)[0].tolist()  # the equal ones are nearest to the mean: the last to go on
    assert len(set(group[-3:])) == 1
    with torch.inference_mode():
        wanted = whole(inputs_embeds=hidden).last_hidden_state
        given_ = merged(whole, 0, 9, 7)(inputs_embeds=hidden).last_hidden_state
    torch.testing.assert_close(given_, wanted, rtol=1e-4, atol=1e-4)


def test_a_patch_that_does_not_go_on_changes_as_the_one_that_did() -> None:
    whole, hidden = encoder(), drawn(1, 2, 1 + 9, WIDTH)
    made = merged(whole, 2, 9, 4)
    with torch.inference_mode():
        halfway = whole.layers[1](whole.layers[0](hidden, None), None)[:, 1:]
        change = made(inputs_embeds=hidden).last_hidden_state[:, 1:] - halfway
        group = groups(halfway, 4)
    for session in range(2):
        for number in range(4):
            mine = change[session][group[session] == number]
            torch.testing.assert_close(mine, mine[:1].expand_as(mine), rtol=1e-4, atol=1e-5)


@given(st.integers(1, 2000), st.floats(1e-3, 1.0))
def test_a_share_is_at_least_one_and_at_most_all(whole: int, share: float) -> None:
    count = share_of(whole, share)
    assert 1 <= count <= whole
    assert share * whole - 1e-3 <= count <= share * whole + 1 + 1e-3


def test_a_whole_number_of_tokens_is_not_rounded_up() -> None:
    assert [share_of(100, hundredth / 100) for hundredth in range(1, 101)] == list(range(1, 101))
