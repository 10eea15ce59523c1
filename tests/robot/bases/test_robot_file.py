import pytest
import yaml

from mobile_vla.core import ConfigError
from mobile_vla.robot.bases.robot_file import base_section, with_settings

BLOCK = """\
name: r2  # of the lab
camera: {kind: usb}
base:
  # the wheels
  kind: lekiwi
  wheel_radius_m: 0.05   # by calliper
  port: /dev/ttyACM0
limits: {planar_speed: 0.3}
"""
FLOW = "camera: {kind: usb}\nbase: {kind: lekiwi, wheel_radius_m: 0.05}  # new\n"


@pytest.mark.parametrize("text", [BLOCK, FLOW, "base:\n    kind: lekiwi\n", "base: {kind: lekiwi}"])
def test_settings_are_changed_and_added_and_the_rest_stays(text):
    found = with_settings(text, {"wheel_radius_m": 0.0493, "base_radius_m": 0.131}, "r.yaml")
    before, after = yaml.safe_load(text), yaml.safe_load(found)
    assert after.pop("base") == {**before.pop("base"), "wheel_radius_m": 0.0493, "base_radius_m": 0.131}
    assert after == before
    for comment in ("# of the lab", "# the wheels", "# by calliper", "# new"):
        assert (comment in text) == (comment in found)


@pytest.mark.parametrize("text", ["", "[]", "base:\n", "base: 3", "base: {port: x}", "base: {kind: 3}", "a: [", "\t"])
def test_a_file_without_a_base_says_what_to_add(text):
    with pytest.raises(ConfigError):
        base_section(text, "r.yaml")


def test_a_setting_that_comes_by_a_merge_is_overridden_and_its_origin_stays():
    merged = "x: &b {kind: lekiwi, wheel_radius_m: 0.05}\nbase:\n  <<: *b\n"
    after = yaml.safe_load(with_settings(merged, {"wheel_radius_m": 0.06}, "r.yaml"))
    assert after["base"] == {"kind": "lekiwi", "wheel_radius_m": 0.06}
    assert after["x"]["wheel_radius_m"] == 0.05


def test_what_a_program_cannot_change_is_left_to_a_person():
    shared = "x: &b {kind: lekiwi, wheel_radius_m: 0.05}\nbase: *b\n"
    with pytest.raises(ConfigError, match=r"yourself: wheel_radius_m: 0\.06"):
        with_settings(shared, {"wheel_radius_m": 0.06}, "r.yaml")
    whole = "b: &b {base: {kind: lekiwi}}\n<<: *b\n"
    with pytest.raises(ConfigError, match="write it out"):
        with_settings(whole, {"wheel_radius_m": 0.06}, "r.yaml")
