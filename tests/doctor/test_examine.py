import threading
import time

from mobile_vla.doctor.check import Check, State, driving_fails
from mobile_vla.doctor.examine import examine, limited

from .lines import sound
from .purposes import with_robot

ROWS = [
    "Python", "packages", "processor", "torch", "GPU", "checkpoint", "cameras", "camera", "CAN", "serial", "base",
    "DDS", "multicast", "DDS buffers", "ROS", "OpenGL", "disk", "clock", "control thread",
]  # fmt: skip


def test_a_check_that_fails_itself_ends_nothing():
    def stumble():
        raise ZeroDivisionError("of all things")

    check = limited("torch", stumble)
    assert (check.name, check.state) == ("torch", State.WARN)
    assert "ZeroDivisionError: of all things" in check.found


def test_a_check_that_does_not_end_is_left_behind():
    release = threading.Event()
    began = time.monotonic()
    check = limited("camera", lambda: Check("camera", State.OK, str(release.wait(60))), 0.1)
    assert time.monotonic() - began < 30
    assert check.state is State.WARN
    assert "did not end" in check.found
    release.set()


def test_a_machine_without_any_device_drives_a_robot_of_numbers(root, monkeypatch):
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    monkeypatch.setenv("ROS_DOMAIN_ID", "88")
    told = []
    purpose = with_robot(policy_here=False)
    checks = examine(purpose, told.append, root.path)
    assert told == [check.name for check in checks] == ROWS
    for check in checks:
        sound(check)
        assert "the check itself failed" not in check.found
        assert "did not end" not in check.found
    by_name = {check.name: check for check in checks}
    # what it needs is there; that its nodes are confined is what this environment asks for
    assert {name for name, check in by_name.items() if check.state is State.FAIL} <= {"ROS", "disk"}
    assert by_name["torch"].state is not State.FAIL
    assert by_name["camera"].state is State.OK or "slow" in by_name["camera"].found
    assert by_name["base"].state is State.OK
    assert driving_fails(checks)
