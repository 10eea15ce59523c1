import pytest

from mobile_vla.core import Status


@pytest.mark.parametrize("status", Status)
def test_arrived_and_absent_end_an_instruction(status):
    assert status.is_final == (status in (Status.ARRIVED, Status.ABSENT))
