import argparse
import io
import json
import math
import time
import uuid
from types import SimpleNamespace

import pytest
import yaml

from mobile_vla.cli import calibrate
from mobile_vla.core import ConfigError
from mobile_vla.robot.bases.serbot import Serbot
from robot.bases.devices import LekiwiDevice, SerbotDevice


def lekiwi_file(folder, port="/dev/none"):
    path = folder / "robot.yaml"
    path.write_text(f"base:\n  kind: lekiwi  # ours\n  port: {port}\n  silence_limit_s: 4.0\n  wheel_radius_m: 0.05\n")
    return path


def run(*arguments):
    parser = argparse.ArgumentParser()
    calibrate.add_to(parser.add_subparsers())
    options = parser.parse_args(["calibrate", *map(str, arguments)])
    return options.run(options)


def test_what_was_measured_becomes_settings_without_driving(tmp_path, capsys):
    path = lekiwi_file(tmp_path)
    assert run("--robot", path, "--measured-x", 0.864, "--measured-yaw", 412.5) == 0
    found = yaml.safe_load(capsys.readouterr().out)["base"]
    assert found["wheel_radius_m"] == pytest.approx(0.05 * 0.96, rel=1e-3)
    assert found["base_radius_m"] == pytest.approx(0.125 * 0.96, rel=1e-3)
    assert "0.048" not in path.read_text()


def test_it_writes_into_the_robot_file_when_told_to(tmp_path, capsys):
    path = lekiwi_file(tmp_path)
    assert run("--robot", path, "--measured-x", 0.864, "--measured-yaw", 412.5, "--write", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"] == {"wheel_radius_m": 0.05, "base_radius_m": None}
    after = yaml.safe_load(path.read_text())["base"]
    assert {name: after[name] for name in found["settings"]} == found["settings"]
    assert "# ours" in path.read_text()


def test_it_drives_asks_and_stops(tmp_path, capsys, monkeypatch):
    """The runs are cut short. The tape says that the base went 4 % less far than was sent, and turned so much less."""
    device = LekiwiDevice(tmp_path / "tty")
    path = lekiwi_file(tmp_path, device.path)
    monkeypatch.setattr(calibrate, "LONGEST_RUN_S", 0.6)
    driven, drive = [], calibrate._drive

    def recorded(*arguments):
        driven.append(drive(*arguments))
        return driven[-1]

    def answers():
        yield ""
        sent, seconds = driven[-1]
        yield f"{0.96 * sent.vx * seconds:.6f}".replace(".", ",")
        yield ""
        sent, seconds = driven[-1]
        yield f"{math.degrees(0.96 * sent.wz * seconds):.4f}"

    said_by_person = answers()
    monkeypatch.setattr(calibrate, "_drive", recorded)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(readline=lambda: next(said_by_person) + "\n"))
    try:
        assert run("--robot", path, "--json") == 0
        said = capsys.readouterr()
        found = json.loads(said.out)["settings"]
        assert found["wheel_radius_m"] == pytest.approx(0.048, abs=1e-4)
        assert found["base_radius_m"] == pytest.approx(0.125, abs=1e-4)
        assert "Clear the way" in said.err
        device.body.play()
        assert device.body.yaw > 0.02
        assert math.hypot(device.body.x, device.body.y) > 0.01
        assert not device.body.goals.any()
    finally:
        device.close()


def test_one_run_alone_says_what_was_sent(tmp_path, capsys, monkeypatch):
    device = SerbotDevice(channel := uuid.uuid4().hex)
    path = tmp_path / "robot.yaml"
    path.write_text(
        f"base: {{kind: serbot, interface: virtual, channel: {channel}, wheel_radius_m: 0.05, base_radius_m: 0.12}}"
    )
    monkeypatch.setattr(calibrate, "LONGEST_RUN_S", 0.3)
    try:
        assert run("--robot", path, "--run", "x_fast", "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert said["sent"]["vx"] == pytest.approx(36 / 8 * 0.05 / math.cos(math.radians(30)), rel=0.02)
        end_s = time.monotonic() + 10
        while list(device.frames[-1].data) != [7, 100, 100, 100] and time.monotonic() < end_s:
            time.sleep(0.01)
        assert list(device.frames[-1].data) == [7, 100, 100, 100]
        assert [7, 44, 156, 100] in [list(frame.data) for frame in device.frames]
        assert run("--robot", path, "--run", "x") == 0
        assert "--measured-x" in capsys.readouterr().out
    finally:
        device.close()


def test_serbot_is_calibrated_from_a_file_that_has_no_gain_yet(tmp_path, capsys):
    path = tmp_path / "robot.yaml"
    path.write_text("base: {kind: serbot, wheel_radius_m: 0.05, base_radius_m: 0.12}")
    run("--robot", path, "--measured-x", 0.4, "--measured-x-fast", 1.0, "--measured-yaw", 700, "--write")
    after = yaml.safe_load(path.read_text())["base"]
    assert set(after) == {"kind", "wheel_radius_m", "base_radius_m", "units_per_radps", "dead_band"}
    after.pop("kind")
    forward = Serbot(**after)
    fast = Serbot(0.05, 0.12, **Serbot.UNCALIBRATED)
    driven = {each.name: fast.wheel_bytes(each.twist) for each in fast.runs()}
    assert forward.twist(driven["x"]).vx * 6 == pytest.approx(0.4, rel=0.02)
    assert forward.twist(driven["x_fast"]).vx * 3 == pytest.approx(1.0, rel=0.02)
    assert math.degrees(forward.twist(driven["yaw"]).wz) * 6 == pytest.approx(700, rel=0.02)
    assert "was 0.12" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ("base: {kind: ideal}", (), "nothing that could be calibrated"),
        ("base: {kind: lekivi}", (), "lekiwi"),
        ("base: {kind: serial}", (), "calibrate its firmware"),
        ("base: {kind: lekiwi}", ("--run", "x_fast"), "has no run x_fast; its runs are x, yaw"),
        ("base: {kind: lekiwi}", (), "nobody answers"),
        ("base: {kind: lekiwi, port: /dev/none}", ("--run", "x"), "there is no port /dev/none"),
        ("camera: {}", (), "names no base"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(tmp_path, monkeypatch, text, more, words):
    from mobile_vla.core import MobileVLAError

    path = tmp_path / "robot.yaml"
    path.write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(MobileVLAError, match=words):
        run("--robot", path, *more)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the robot file"):
        run("--robot", tmp_path / "none.yaml")


def test_answers_that_are_no_numbers_are_asked_for_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("far\n1,5\n"))
    assert calibrate._number("how far?") == 1.5
    assert "'far' is no number" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("x\n" * 9))
    with pytest.raises(ConfigError, match="no number was given"):
        calibrate._number("how far?")
