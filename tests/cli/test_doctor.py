import argparse
import json
import subprocess

import pytest

from mobile_vla import doctor as examination
from mobile_vla.cli import doctor
from mobile_vla.core import ConfigError, MobileVLAError
from mobile_vla.doctor import Check, State

LINE = "sudo ip link set can0 up type can bitrate 500000"
FIT = (Check("Python", State.OK, "3.11.7 on x86_64"), Check("GPU", State.WARN, "not used", ("nvidia-smi",)))
UNFIT = (*FIT, Check("CAN", State.FAIL, "can0 is down", (LINE,)))


@pytest.fixture
def call(capsys):
    """Run the command; gives its exit code and what it printed."""

    def run(*arguments):
        parser = argparse.ArgumentParser()
        doctor.add_to(parser.add_subparsers())
        options = parser.parse_args(["doctor", *map(str, arguments)])
        return options.run(options), capsys.readouterr().out

    return run


@pytest.fixture
def finds(monkeypatch):
    """Sets what the examination finds; gives the purposes that it was asked for."""
    purposes = []

    def set_checks(checks):
        monkeypatch.setattr(examination, "examine", lambda purpose, tell=None: purposes.append(purpose) or checks)
        return purposes

    return set_checks


@pytest.mark.needs("torch")
@pytest.mark.needs("mujoco")
def test_this_machine_can_drive_in_the_simulator(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    monkeypatch.setenv("ROS_DOMAIN_ID", "89")
    code, out = call()
    assert code == 0, out
    for name in ("Python", "torch", "GPU", "checkpoint", "cameras", "CAN", "serial", "DDS", "disk", "clock", "OpenGL"):
        assert f"\n{name} " in f"\n{out}"
    assert out.endswith("a simulated drive can begin\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("checks", "code"), [(FIT, 0), (UNFIT, 1)])
def test_the_exit_code_tells_whether_driving_would_fail(checks, code, call, finds):
    finds(checks)
    assert call()[0] == code
    assert call("--fix-hints")[0] == code
    found, out = call("--json")
    assert found == code
    values = json.loads(out)
    assert values["fit"] is (code == 0)
    assert [each["name"] for each in values["checks"]] == [check.name for check in checks]
    assert values["checks"][1] == {"name": "GPU", "state": "warn", "found": "not used", "repairs": ["nvidia-smi"]}


def test_hints_are_a_shell_script(call, finds):
    finds(UNFIT)
    out = call("--fix-hints")[1]
    assert out.splitlines() == ["# GPU: not used", "nvidia-smi", "# CAN: can0 is down", LINE]
    assert subprocess.run(["bash", "-n"], input=out, text=True, timeout=20).returncode == 0


def test_the_table_names_what_would_fail(call, finds, tmp_path):
    finds(UNFIT)
    robot = tmp_path / "robot.yaml"
    robot.write_text("camera: {kind: pattern}\nbase: {kind: ideal}\n")
    out = call("--robot", robot)[1]
    assert f"  {LINE}\n" in out
    assert out.splitlines()[-1] == f"a drive with {robot} would fail"


def test_a_robot_of_settings_alone_is_named_by_them(call, finds):
    finds(FIT)
    out = call("camera.kind=pattern", "base.kind=ideal")[1]
    assert out.splitlines()[-1] == "a drive with camera.kind=pattern base.kind=ideal can begin"


def test_what_is_asked_about_comes_from_the_options(call, finds, tmp_path):
    purposes = finds(FIT)
    robot = tmp_path / "robot.yaml"
    robot.write_text("camera: {kind: pattern}\nbase: {kind: lekiwi}\n")
    call()
    call("--without-policy", "--robot", robot, "base.port=/dev/ttyACM7")
    call("--policy", tmp_path)
    simulated, real, other = purposes
    assert simulated.needs_simulator
    assert simulated.needs_policy
    assert (real.policy, real.robot_file, real.serial_port) == (None, robot, "/dev/ttyACM7")
    assert other.policy == tmp_path


def test_a_robot_file_that_cannot_be_used_is_refused_in_a_sentence(call, tmp_path):
    robot = tmp_path / "robot.yaml"
    robot.write_text("camera: {kind: patern}\nbase: {kind: ideal}\n")
    with pytest.raises(ConfigError, match="pattern"):
        call("--robot", robot)
    with pytest.raises(MobileVLAError):
        call("--policy", "latest", "--robot", tmp_path / "nowhere.yaml")
