import torch
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.policy.encoders.tower import choose, repeat, stack


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 3))
def test_stacked_words_are_padded_with_zeros_on_the_right(lengths: list[int], times: int) -> None:
    sessions = [(torch.randn(1, 2, length, 3), torch.tensor([length])) for length in lengths]
    kept, stacked = stack(sessions)
    assert stacked.tolist() == lengths
    assert kept.shape == (len(lengths), 2, max(lengths), 3)
    for place, length in enumerate(lengths):
        assert torch.equal(kept[place, :, :length], sessions[place][0][0])
        assert (kept[place, :, length:] == 0.0).all()
    assert repeat((kept, stacked), times)[1].tolist() == [length for length in lengths for _ in range(times)]
    last_first = torch.arange(len(lengths)).flip(0)
    assert torch.equal(choose((kept, stacked), last_first)[0], kept.flip(0))
