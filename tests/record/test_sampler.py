import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.record.sampler import FrameSampler

MS = NS_PER_S // 1000
PIXELS = np.zeros((2, 2, 3), dtype=np.uint8)


def frame(capture_ms, sequence):
    return Frame(PIXELS, capture_ms * MS, "simulation", "front", sequence)


def sampler():
    return FrameSampler(5.0, slack_s=0.05)


def taken(stamps_ms):
    one = sampler()
    return [stamp for number, stamp in enumerate(stamps_ms) if one.takes(frame(stamp, number))]


@given(st.lists(st.integers(1, 2000), max_size=200))
def test_never_more_than_the_rate_and_rising(gaps):
    stamps = np.cumsum(gaps).tolist()
    kept = taken(stamps)
    assert kept == sorted(set(kept))
    assert kept[:1] == stamps[:1]
    for first in range(len(kept)):
        for last in range(first, len(kept)):
            # so many places of a grid of 200 ms, each reached up to 50 ms early, fit into the time
            assert last - first <= (kept[last] - kept[first] + 50) // 200 + 1


@given(st.integers(8, 60), st.floats(0, 0.8), st.integers(0, 2**32 - 1))
def test_the_mean_rate_is_kept_whatever_the_camera_gives_beyond_it(rate_hz, jitter, seed):
    rng = np.random.default_rng(seed)
    period = 1000 / rate_hz
    stamps = (np.arange(20 * rate_hz) * period + rng.uniform(0, jitter, 20 * rate_hz) * min(period, 50)).astype(int)
    kept = taken(np.unique(stamps).tolist())
    assert 96 <= len(kept) <= 101
    assert max(np.diff(kept)) <= 200 + 2 * period + 50


def test_a_gap_is_not_made_up_for():
    stamps = [*range(0, 1000, 100), *range(5000, 6000, 100)]
    assert taken(stamps) == [*range(0, 1000, 200), *range(5000, 6000, 200)]


def test_a_frame_that_does_not_follow_is_left_out():
    one = sampler()
    assert one.takes(frame(0, 5))
    assert not one.takes(frame(1000, 5))
    assert not one.takes(frame(1000, 4))
    assert not one.takes(frame(0, 6))
    assert one.takes(frame(1000, 6))
