import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mobile_vla.core import ActionContract, ConfigError, Status
from mobile_vla.policy.compact import motion_features
from mobile_vla.policy.kinds import PolicyKind
from mobile_vla.policy.step import BELIEF, believed, grounding_from, motion_row, step_of

finite = st.floats(-50, 50, width=32)


@given(st.tuples(finite, finite, finite), st.tuples(finite, finite, finite))
def test_motion_without_torch_equals_motion_with_it(
    velocity: tuple[float, float, float], odometry: tuple[float, float, float]
) -> None:
    contract = ActionContract()
    row = motion_row(np.array(velocity, dtype=np.float32), odometry, contract)
    wanted = motion_features(torch.tensor([velocity]), torch.tensor([odometry]), contract)
    assert row.dtype == np.float32
    np.testing.assert_allclose(row, wanted[0].numpy(), rtol=1e-5, atol=2e-5)


def test_a_belief_becomes_a_grounding() -> None:
    row = np.array([0.75, 0.5, 0.25, 0.125, 0.0625, 2.5, -0.5], dtype=np.float32)
    assert len(row) == len(BELIEF)
    grounding = grounding_from(row, Status.DRIVING)
    assert grounding.visibility == 0.75
    assert grounding.box == (0.375, 0.1875, 0.625, 0.3125)
    assert (grounding.distance_m, grounding.bearing_rad, grounding.status) == (2.5, -0.5, Status.DRIVING)


@given(st.floats(-100, 100))
def test_no_distance_is_beyond_ten_metres(log_distance: float) -> None:
    row = believed(torch.ones(1), torch.zeros(1, 4), torch.tensor([log_distance]), torch.zeros(1))[0]
    assert 0.0 <= float(row[BELIEF.index("distance_m")]) <= 10.0


def test_a_kind_without_a_step_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(nn.Module):
        kind = "other"

    kind = PolicyKind("other", Other, object, Other, dict, Other, lambda network: network)
    monkeypatch.setattr("mobile_vla.policy.step.kind_of", lambda network: kind)
    with pytest.raises(ConfigError, match="kind other have no step for engines"):
        step_of(Other())
