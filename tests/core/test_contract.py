import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_vla.core import ActionContract, ContractMismatchError

CONTRACT = ActionContract()
limits = st.tuples(*[st.floats(0.05, 5.0)] * 3)
velocities = hnp.arrays(np.float64, (4, 3), elements=st.floats(-10, 10))
OTHER = {
    "axes": ("linear_x", "linear_y", "linear_z"),
    "units": ("km/h", "m/s", "rad/s"),
    "signs": ("backward positive", "left positive", "counter-clockwise positive"),
    "frame": "map",
    "limits": (0.5, 0.6, 1.5),
    "rate_hz": 20.0,
    "horizon": 4,
    "frame_rate_hz": 10.0,
    "normalisation": "quantiles",
}


@given(limits, velocities)
def test_normalised_and_back_is_the_same_velocity_within_the_limits(most, wanted):
    contract = ActionContract(limits=most)
    back = contract.denormalise(contract.normalise(wanted))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, np.clip(wanted, -np.array(most), np.array(most)), rtol=1e-5, atol=1e-6)


@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False)))
def test_nothing_leaves_the_limits(shares):
    assert (np.abs(CONTRACT.denormalise(shares)) <= CONTRACT.limits_array).all()


@given(limits, st.integers(1, 50), st.floats(0.5, 60))
def test_it_survives_json(most, horizon, rate_hz):
    contract = ActionContract(limits=most, horizon=horizon, rate_hz=rate_hz)
    assert ActionContract.from_dict(json.loads(json.dumps(contract.to_dict())), "a file") == contract


def test_what_differs_is_tried_below_in_every_field():
    assert set(OTHER) == {field.name for field in fields(ActionContract)}


@pytest.mark.parametrize("field", OTHER)
def test_a_difference_in_any_field_is_an_error_that_names_both_sides(field):
    other = replace(CONTRACT, **{field: OTHER[field]})
    with pytest.raises(ContractMismatchError, match=f"{field}: this robot has .*, the checkpoint has"):
        CONTRACT.require_same(other, "this robot", "the checkpoint")


def test_the_same_contract_passes():
    CONTRACT.require_same(ActionContract(), "this robot", "the checkpoint")


def test_missing_and_unknown_keys_are_named_with_the_file():
    values = CONTRACT.to_dict()
    values["horizons"] = values.pop("horizon")
    with pytest.raises(ContractMismatchError, match=r"in a\.json lacks \['horizon'\] and has unknown \['horizons'\]"):
        ActionContract.from_dict(values, "a.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": (0.6, 0.6)},
        {"limits": (0.6, 0.0, 1.5)},
        {"limits": (0.6, float("nan"), 1.5)},
        {"rate_hz": 0.0},
        {"frame_rate_hz": -1.0},
        {"horizon": 0},
        {"units": ("m/s",)},
    ],
)
def test_a_contract_that_means_nothing_is_refused(wrong):
    with pytest.raises(ContractMismatchError):
        ActionContract(**wrong)


@pytest.mark.parametrize(("rate_hz", "frame_rate_hz", "rows"), [(10, 5, 2), (10, 10, 1), (5, 10, 1), (30, 5, 6)])
def test_rows_that_pass_between_frames(rate_hz, frame_rate_hz, rows):
    assert ActionContract(rate_hz=rate_hz, frame_rate_hz=frame_rate_hz).rows_per_frame == rows
