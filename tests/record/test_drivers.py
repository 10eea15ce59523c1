import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import DatasetError
from mobile_vla.record.drivers import Driver, driver_of_episode, drivers_of, frames_by

drivers = st.lists(st.sampled_from(Driver), max_size=60)


@given(drivers)
def test_who_drove_survives_the_word(drivers):
    assert drivers_of(frames_by(drivers), len(drivers)) == drivers


def test_the_word_is_for_people():
    by = [Driver.POLICY] * 3 + [Driver.OPERATOR] + [Driver.NOBODY] * 2
    assert frames_by(by) == "policy 0-2, operator 3-3, nobody 4-5"
    assert driver_of_episode(by) == "policy corrected by operator"
    assert driver_of_episode([Driver.POLICY, Driver.NOBODY]) == "policy corrected by operator"
    assert driver_of_episode([Driver.POLICY]) == "policy"
    assert driver_of_episode([Driver.OPERATOR]) == driver_of_episode([]) == "operator"


@pytest.mark.parametrize(
    "text", ["policy", "policy 0-1", "policy 0-5", "policy 1-2", "nobody x-y", "ghost 0-2", "policy 0-0 1-2"]
)
def test_a_word_that_does_not_fit_is_refused(text):
    with pytest.raises(DatasetError, match="does not fit 3 frames"):
        drivers_of(text, 3)
