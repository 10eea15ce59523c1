import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, MonotonicClock
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.robot.cameras.faults import Fault
from mobile_vla.robot.cameras.pattern import Pattern
from mobile_vla.robot.cameras.usb import Usb
from mobile_vla.runtime.config import NO_KIND, Absent, RobotConfig, at_rate, read_robot
from mobile_vla.safety import Limits, SafetyConfig

LEAST = ["camera.kind=pattern", "base.kind=ideal"]

FILE = """
name: cart
camera:
  kind: pattern
  width: 320
  faults: [{kind: freeze, after_s: 3, for_s: 2}]
base: {kind: ideal, lag_s: 0.2}
limits: {speed: [0.3, 0.3, 1], planar_speed: 0.3}
safety:
  stale_after_s: 0.4
  standstill: {linear_mps: 0.02}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(FILE)
    return path


def test_a_file_says_all_of_a_robot(path):
    robot = read_robot(path)
    assert (robot.name, robot.camera_kind, robot.base_kind) == ("cart", "pattern", "ideal")
    assert robot.camera == Pattern(width=320, faults=(Fault("freeze", 3.0, 2.0),))
    assert robot.base == Ideal(lag_s=0.2)
    assert robot.limits == Limits(speed=(0.3, 0.3, 1.0), planar_speed=0.3)
    assert robot.safety.stale_after_s == 0.4
    assert robot.safety.standstill.linear_mps == 0.02


def test_two_overrides_make_a_robot_without_a_file():
    robot = read_robot(None, LEAST)
    assert robot == RobotConfig("pattern", Pattern(), "ideal", Ideal(), "robot", Limits(), SafetyConfig())
    clock = MonotonicClock()
    camera, base = robot.camera.build(clock), robot.base.build(clock)
    base.open()
    camera.open()
    assert camera.read(10.0) is not None
    camera.close()
    base.close()


@pytest.mark.parametrize(("part", "other"), [("camera", "base"), ("base", "camera")])
def test_what_is_not_needed_may_be_absent_until_it_is_built(part, other):
    override = "camera.kind=pattern" if part == "camera" else "base.kind=ideal"
    robot = read_robot(None, [override], needs=(part,))
    assert (getattr(robot, f"{other}_kind"), getattr(robot, other)) == (NO_KIND, Absent(other))
    assert getattr(robot, f"{part}_kind") in ("pattern", "ideal")
    for refused in (
        lambda: getattr(robot, other).build(MonotonicClock()),
        lambda: read_robot(None, [override], needs=(other,)),
        lambda: read_robot(None, [override]),
        lambda: read_robot(None, [override, f"{other}.port=7"], needs=(part,)),
    ):
        with pytest.raises(ConfigError, match=f"no {other} is configured: set {other}.kind to one of"):
            refused()


def test_overrides_go_before_the_file(path):
    robot = read_robot(path, ["name=van", "camera.width=96", "safety.standstill.linear_mps=0.03", "base.lag_s=1"])
    assert robot.name == "van"
    assert (robot.camera.width, len(robot.camera.faults)) == (96, 1)
    assert (robot.base.lag_s, robot.safety.standstill.linear_mps) == (1.0, 0.03)


def test_the_settings_of_another_kind_are_left_out_whatever_the_order(path):
    for overrides in (["camera.kind=usb", "camera.width=640"], ["camera.width=640", "camera.kind=usb"]):
        assert read_robot(path, overrides).camera == Usb(width=640)
    assert read_robot(path, ["camera.kind=pattern"]).camera.width == 320


def test_values_of_overrides_may_hold_spaces_equals_signs_and_exclamation_marks():
    pipeline = "videotestsrc pattern=ball ! video/x-raw,width=64"
    robot = read_robot(None, ["camera.kind=gstreamer", f"camera.pipeline={pipeline}", "base.kind=ideal"])
    assert robot.camera.pipeline == pipeline


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["camera.kind=patern", "base.kind=ideal"], r"no kind of camera called 'patern'; did you mean pattern\?"),
        ([*LEAST, "camera.widht=3"], r"camera pattern has no setting widht; did you mean width\?"),
        ([*LEAST, "camra.width=3"], r"unknown key camra; did you mean camera\?"),
        ([*LEAST, "limits.sped=3"], r"limits has no setting sped; did you mean speed\?"),
        ([*LEAST, "safety.standstill.linear=3"], r"safety has no setting standstill.linear; did you mean standstill"),
        ([*LEAST, "safety.stale_after_s=soon"], "the setting stale_after_s of safety is 'soon'; it needs a number"),
        ([*LEAST, "safety.stale_after_s.x=1"], "stale_after_s of safety is {'x': 1}; it needs a number"),
        ([*LEAST, "limits.speed=[1, 2]"], r"speed of limits is \[1, 2\]; it needs three numbers in a list"),
        ([*LEAST, "limits.speed=0.3"], r"speed of limits is 0.3; it needs three numbers in a list"),
        ([*LEAST, "limits.planar_speed=-1"], "limits: planar_speed needs"),
        ([*LEAST, "ranges.mount=[0, 0, .nan]"], "ranges: the mount of the range sensor"),
        ([*LEAST, "camera=usb"], "'usb' under camera: give keys and values, e.g. camera.kind"),
        ([*LEAST, "camera.width"], "is no override: write key=value"),
        ([*LEAST, ".width=3"], "is no override"),
        ([*LEAST, "camera.width=[3"], "cannot be read: put it in quotes"),
        ([*LEAST, "name="], "the robot's name is None"),
        ([*LEAST, "name.x=1"], "the robot's name is"),
        (["camera.kind=pattern"], "no base is configured: set base.kind to one of .*ideal"),
        ([], "no camera is configured: set camera.kind to one of .*pattern"),
    ],
)
def test_what_does_not_fit_is_named_with_its_remedy(overrides, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_robot(None, overrides)


def test_a_value_without_keys_takes_none(path):
    with pytest.raises(ConfigError, match=r"camera.width.x cannot be set: width is 320, which has no keys"):
        read_robot(path, ["camera.width.x=3"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n- b", "holds no keys and values"),
        ("name: [", "cannot read the robot file"),
        ("camera: usb", "'usb' under camera"),
        ("speed: 3", "unknown key speed; known are base, camera"),
        ("", "no camera is configured"),
        ("camera: {kind: pattern, widht: 3}", "robot.yaml: camera pattern has no setting widht"),
        ("camera: {kind: pattern}\nbase: {kind: ideal}\nlimits: {speed: 3}", "robot.yaml: the setting speed of limits"),
        ("camera: {kind: pattern}\nbase: {kind: ideal}\nname: 3", "robot.yaml: the robot's name is 3"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, text, sentence):
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        read_robot(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "gone.yaml"))):
        read_robot(tmp_path / "gone.yaml")


@given(st.lists(st.text(max_size=20), max_size=3))
def test_whatever_the_overrides_it_reads_them_or_says_in_a_sentence_why_not(overrides):
    said = ""
    try:
        robot = read_robot(None, [*LEAST, *overrides])
    except ConfigError as error:
        robot, said = None, str(error)
    assert robot or said


def test_the_range_sensor_has_a_place():
    assert read_robot(None, [*LEAST, "ranges.mount=[0.1, 0, 3]"]).ranges.mount == (0.1, 0.0, 3.0)
    with pytest.raises(ConfigError, match="mount of the range sensor"):
        read_robot(None, [*LEAST, "ranges.mount=[0.1, 0, .inf]"])


def test_at_another_rate_recovering_takes_as_long():
    faster = at_rate(SafetyConfig(), 50.0)
    assert faster.period_s == 0.02
    assert faster.recover_steps * faster.period_s == pytest.approx(0.3)
    assert at_rate(SafetyConfig(recover_steps=1, late_step_s=0.5), 5.0).recover_steps == 1
