import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError
from mobile_vla.teleop import GAME_CONTROLLER, LINUX_PAD, NO_SHARES, Button, PadMap

axes = st.lists(st.floats(-1, 1), min_size=4, max_size=4)
held = st.lists(st.booleans(), min_size=12, max_size=12)


@given(axes, held, st.floats(0, 0.9), st.none() | st.integers(0, 11))
def test_shares_stay_within_one_and_nothing_moves_without_the_dead_man(axes, held, dead_zone, dead_man):
    mapping = PadMap((1, 1.0), (0, -1.0), (2, 1.0), dead_man=dead_man, dead_zone=dead_zone)
    shares = mapping.shares(axes, held)
    assert all(-1 <= share <= 1 for share in shares)
    if dead_man is not None:
        assert mapping.touched(axes, held) == held[dead_man]
        if not held[dead_man]:
            assert shares == NO_SHARES
    else:
        assert mapping.touched(axes, held) == (shares != NO_SHARES)


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.9))
def test_a_share_grows_with_the_axis_from_zero_at_the_dead_zone_to_one(one, other, dead_zone):
    mapping = PadMap((0, 1.0), (1, 1.0), (2, 1.0), dead_zone=dead_zone)
    low, high = sorted((one, other))

    def x(value):
        return mapping.shares([value, 0, 0], [])[0]

    assert x(low) <= x(high)
    assert x(dead_zone) == x(-dead_zone) == 0
    assert math.isclose(x(1.0), 1.0)
    assert math.isclose(x(-1.0), -1.0)


def test_missing_axes_and_buttons_count_as_untouched():
    assert PadMap((0, 1.0), (1, 1.0), (7, 1.0)).shares([1.0], []) == (1.0, 0.0, 0.0)
    assert GAME_CONTROLLER.shares([1.0], []) == NO_SHARES
    assert not GAME_CONTROLLER.touched([1.0], [])


@pytest.mark.parametrize(("mapping", "sign"), [(GAME_CONTROLLER, 1.0), (LINUX_PAD, -1.0)])
def test_both_pads_push_forward_left_and_counter_clockwise(mapping, sign):
    held = [True] * mapping.buttons_needed
    axes = [0.0] * mapping.axes_needed
    axes[1] = axes[0] = axes[mapping.yaw[0]] = sign
    assert mapping.shares(axes, held) == (1.0, 1.0, 1.0)
    assert Button.EMERGENCY_STOP in mapping.buttons.values()


@pytest.mark.parametrize(
    "bad",
    [
        {"dead_zone": 1.0},
        {"dead_zone": math.nan},
        {"x": (-1, 1.0)},
        {"x": (0, math.inf)},
        {"dead_man": -1},
        {"buttons": {-1: Button.STOP}},
        {"buttons": {3: Button.STOP}, "dead_man": 3},
    ],
)
def test_an_impossible_mapping_is_refused(bad):
    with pytest.raises(ConfigError):
        PadMap(**({"x": (1, 1.0), "y": (0, 1.0), "yaw": (2, 1.0)} | bad))
