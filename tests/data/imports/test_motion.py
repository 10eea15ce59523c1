"""Rates, rows of a chunk, and limits, against a plain reading of the rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mobile_vla.core import ActionContract, ConfigError, DatasetError
from mobile_vla.data.imports.mapping import AxisSource, ImportMapping, Words
from mobile_vla.data.imports.motion import (
    before,
    even_chunks,
    places_of,
    require_even_rates,
    synthetic_ns,
    taken,
    velocities,
    within,
)

PLAIN = ImportMapping(
    contract=ActionContract(limits=(0.6, 0.5, 1.5), rate_hz=10.0, horizon=4, frame_rate_hz=5.0),
    camera="camera",
    channel_order="rgb",
    actions=(AxisSource("a", 0, 1.0), AxisSource("a", 1, -2.0), AxisSource("b", 0, math.pi / 180)),
    states=None,
    words=Words("text", "stop", {}),
    every=2,
    source_rate_hz=10.0,
    outside="error",
    chunk="exact",
    stamps="synthetic",
    command_timeout_s=math.inf,
    state_timeout_s=math.inf,
    extras={},
    digest="",
)


def with_rates(source_hz, every, rate_hz, frame_rate_hz, chunk="exact", horizon=4):
    contract = replace(PLAIN.contract, rate_hz=rate_hz, frame_rate_hz=frame_rate_hz, horizon=horizon)
    return replace(PLAIN, contract=contract, every=every, source_rate_hz=source_hz, chunk=chunk)


@given(
    length=st.integers(1, 50),
    frame_rate_hz=st.integers(1, 10),
    rows=st.integers(1, 4),
    steps=st.integers(1, 4),
    horizon=st.integers(1, 12),
)
def test_a_row_is_the_action_at_its_time(length, frame_rate_hz, rows, steps, horizon):
    """``rows`` action rows a frame, ``steps`` source frames a row."""
    every = rows * steps
    mapping = with_rates(frame_rate_hz * every, every, frame_rate_hz * rows, frame_rate_hz, horizon=horizon)
    require_even_rates(mapping)
    actions = np.arange(length * 3, dtype=np.float64).reshape(length, 3)
    frames = taken(length, every)
    chunks = even_chunks(actions, frames, mapping)
    assert chunks.shape == (len(frames), horizon, 3)
    for chunk, frame in zip(chunks, frames, strict=True):
        for row in range(horizon):
            place = frame + row * steps
            if place < length:
                np.testing.assert_array_equal(chunk[row], actions[place])
            else:
                assert np.isnan(chunk[row]).all()


@given(source_hz=st.integers(1, 60), rate_hz=st.integers(1, 60), horizon=st.integers(1, 10))
def test_a_held_action_is_the_last_one_before_the_time_of_the_row(source_hz, rate_hz, horizon):
    mapping = with_rates(source_hz, 1, rate_hz, source_hz, "hold", horizon)
    actions = np.arange(90, dtype=np.float64).reshape(30, 3)
    (chunk,) = even_chunks(actions, np.array([3]), mapping)
    for row in range(horizon):
        place = 3 + row * source_hz // rate_hz
        if place < 30:
            np.testing.assert_array_equal(chunk[row], actions[place])
        else:
            assert np.isnan(chunk[row]).all()


def test_no_chunks_where_none_are_wanted():
    assert np.isnan(even_chunks(np.zeros((9, 3)), taken(9, 2), replace(PLAIN, chunk="none"))).all()


@given(st.floats(1, 120), st.integers(1, 12), st.floats(0.5, 60), st.floats(0.5, 30))
def test_rates_are_taken_or_refused_with_a_remedy(source_hz, every, rate_hz, frame_rate_hz):
    mapping = with_rates(source_hz, every, rate_hz, frame_rate_hz)
    fits = (
        math.isclose(source_hz / every, frame_rate_hz, rel_tol=1e-3)
        and math.isclose(rate_hz / frame_rate_hz, max(1, round(rate_hz / frame_rate_hz)), rel_tol=1e-3)
        and math.isclose(source_hz / rate_hz, max(1, round(source_hz / rate_hz)), rel_tol=1e-3)
    )
    assume(not fits)
    with pytest.raises(ConfigError, match=r"write|change"):
        require_even_rates(mapping)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ((30, 1, 10, 5), "every: 1 gives 30, but contract.frame_rate_hz is 5: write `every: 6`"),
        ((30, 7, 10, 5), "write `every: 6`"),
        ((6, 1, 10, 5), r"write `every: K` and `contract: \{frame_rate_hz: 6 / K\}`"),
        ((6, 1, 10, 6), "rate_hz 10 must be contract.frame_rate_hz 6 or a whole multiple"),
        ((6, 1, 12, 6), "at contract.rate_hz 12: write a rate_hz by which 6 can be divided, `chunk: hold`"),
    ],
)
def test_what_is_said_about_rates(rates, said):
    with pytest.raises(ConfigError, match=said):
        require_even_rates(with_rates(*rates))


def test_rates_that_are_nearly_whole_are_whole():
    require_even_rates(with_rates(29.97, 6, 4.995, 4.995))
    require_even_rates(with_rates(6, 1, 12, 6, "hold"))


def test_axes_are_gathered_from_their_places_with_sign_and_unit():
    numbers = {"a": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": np.array([[90.0], [-180.0]])}
    expected = [[1.0, -4.0, math.pi / 2], [3.0, -8.0, -math.pi]]
    np.testing.assert_allclose(velocities(PLAIN.actions, numbers, 2), expected)
    assert places_of(PLAIN.actions, None) == ["a", "b"]
    np.testing.assert_array_equal(velocities((None, None, PLAIN.actions[0]), numbers, 2)[:, 2], [1.0, 3.0])


def test_what_came_before_a_frame_is_never_its_own_action():
    actions = np.arange(1, 19, dtype=np.float64).reshape(6, 3)
    states = before(actions, taken(6, 2))
    np.testing.assert_array_equal(states, [[0, 0, 0], actions[1], actions[3]])


def test_synthetic_times_keep_the_rate():
    np.testing.assert_array_equal(synthetic_ns(np.array([0, 3, 6]), 6.0), [0, 500_000_000, 1_000_000_000])


@given(st.integers(0, 4), st.integers(0, 2), st.floats(1.001, 50), st.sampled_from([-1, 1]))
def test_what_leaves_the_limits_is_named_or_clipped(row, axis, factor, sign):
    values = np.zeros((5, 3))
    values[row, axis] = sign * factor * PLAIN.contract.limits[axis]
    name = PLAIN.contract.axes[axis]
    with pytest.raises(DatasetError, match=rf"drive 7, frame {row}: {name} is .* write `outside: clip`"):
        within("drive 7", values, PLAIN)
    clipped, count = within("drive 7", values, replace(PLAIN, outside="clip"))
    assert count == 1
    assert clipped[row, axis] == sign * PLAIN.contract.limits[axis]


def test_rounding_is_not_outside():
    clipped, count = within("drive", np.array([[0.6 + 1e-6, -0.5 - 1e-6, 1.5 + 1e-5]]), PLAIN)
    assert count == 0
    np.testing.assert_array_equal(clipped, [[0.6, -0.5, 1.5]])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused_even_where_clipping_is_allowed(value):
    values = np.zeros((3, 3))
    values[1, 2] = value
    with pytest.raises(DatasetError, match=r"drive, frame 12: action angular_z is (nan|inf): mend or remove"):
        within("drive", values, replace(PLAIN, outside="clip"), np.array([11, 12, 13]))
