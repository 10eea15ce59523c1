import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import AXES, ZERO_TWIST, ActionChunk, Twist

numbers = st.floats(-10, 10, width=32)
chunks = st.builds(
    lambda horizon, stamp_ns, rate_hz: ActionChunk(
        np.arange(3 * horizon, dtype=np.float32).reshape(horizon, 3), stamp_ns, rate_hz
    ),
    st.integers(1, 20),
    st.integers(0, 10**12),
    st.sampled_from([1.0, 5.0, 10.0, 30.0]),
)


@given(numbers, numbers, numbers)
def test_a_twist_survives_an_array(vx, vy, wz):
    twist = Twist(vx, vy, wz)
    assert Twist.from_array(twist.as_array()) == twist
    assert len(twist.as_array()) == len(AXES)


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), ()])
def test_an_array_of_another_shape_is_no_twist(shape):
    with pytest.raises(ValueError, match="shape"):
        Twist.from_array(np.zeros(shape))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", range(3))
def test_a_twist_knows_when_it_is_not_finite(wrong, axis):
    values = [0.1, 0.2, 0.3]
    values[axis] = wrong
    assert not Twist(*values).is_finite
    assert ZERO_TWIST.is_finite


@given(chunks, st.data())
def test_each_row_holds_for_its_period_and_no_longer(chunk, data):
    row = data.draw(st.integers(0, chunk.horizon - 1))
    offset = data.draw(st.integers(0, chunk.period_ns - 1))
    moment = chunk.stamp_ns + row * chunk.period_ns + offset
    assert chunk.row_at(moment) == row
    assert chunk.at(moment) == Twist.from_array(chunk.velocities[row])


@given(chunks, st.integers(1, 10**10))
def test_before_it_begins_and_after_it_ends_a_chunk_says_nothing(chunk, away_ns):
    assert chunk.at(chunk.stamp_ns - away_ns) is None
    assert chunk.at(chunk.stamp_ns + chunk.horizon * chunk.period_ns + away_ns - 1) is None


@pytest.mark.parametrize("shape", [(3,), (8, 2), (1, 8, 3)])
def test_a_chunk_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="horizon, 3"):
        ActionChunk(np.zeros(shape, np.float32), 0, 10.0)
