import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid

import pytest

from mobile_vla.cli import teleop
from mobile_vla.core import ConfigError, MonotonicClock
from mobile_vla.teleop import Gamepad, Keyboard

from .program import program

ROBOT = ("camera.kind=pattern", "base.kind=ideal")


def options(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    teleop.add_to(parser.add_subparsers(required=True))
    return parser.parse_args(["teleop", *map(str, arguments)])


def test_the_keyboard_drives_and_quitting_stops_the_robot():
    with program("teleop", *ROBOT, term="xterm") as here:
        here.wait_for("holding", "running")
        here.hold(b"w", lambda: "vx +0.30" in here.said)
        here.hold(b"", lambda: here.said.rstrip().endswith("ms") or "vx +0.00" in here.said.rpartition("vx +0.30")[2])
        here.type(b"z")
        assert here.end() == 0
        assert "drove 0." in here.said


def test_space_is_an_emergency_stop_that_waits_for_rearm_and_resume():
    with program("teleop", *ROBOT, term="xterm") as here:
        here.wait_for("running")
        here.hold(b"w", lambda: "vx +0.30" in here.said)
        here.type(b" ")
        here.wait_for("emergency_stop")
        here.said = ""
        here.hold(b"c", lambda: "re-arm the emergency stop" in here.said)
        here.hold(b"r", lambda: "protective_stop" in here.said)  # refused while it still moves
        here.said = ""
        here.hold(b"c", lambda: "running" in here.said)
        here.type(b"\x04")
        assert here.end() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_robot_stopped(number):
    with program("teleop", *ROBOT, term="xterm") as here:
        here.wait_for("running")
        here.hold(b"w", lambda: "vx +0.30" in here.said)
        here.process.send_signal(number)
        assert here.end() == 0
        assert "the robot was told to stop" in here.said


def test_a_gamepad_needs_no_terminal(tmp_path):
    device = tmp_path / "js0"
    os.mkfifo(device)
    pad = os.open(device, os.O_RDWR)
    main = (
        "import argparse, sys; from mobile_vla.cli import teleop; parser = argparse.ArgumentParser(); "
        "teleop.add_to(parser.add_subparsers(required=True)); options = parser.parse_args(sys.argv[1:]); "
        "sys.exit(options.run(options))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", main, "teleop", *ROBOT, "--json", "--stick", device, "--no-dead-man"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watch = threading.Timer(120.0, process.kill)
    watch.start()
    try:
        for line in process.stderr:
            if "running" in line:
                os.write(pad, struct.pack("IhBB", 0, -32767, 2, 1))
            if "vx +0.60" in line:
                process.send_signal(signal.SIGTERM)
                break
        out, _ = process.communicate()
    finally:
        watch.cancel()
        process.kill()
        process.wait()
        os.close(pad)
    told = json.loads(out)
    assert told["path_m"] > 0.05
    assert told["steps"] > 3
    assert process.returncode == 0


def test_options_choose_the_stick(tmp_path):
    clock = MonotonicClock()
    assert isinstance(teleop.stick_of(options(*ROBOT), clock), Keyboard)
    assert teleop.stick_of(options(*ROBOT, "--speed", "0.2"), clock).share == 0.2
    assert isinstance(teleop.stick_of(options(*ROBOT, "--stick", "gamepad"), clock), Gamepad)
    assert str(tmp_path / "js7") in teleop.stick_of(options(*ROBOT, "--stick", tmp_path / "js7"), clock).name


@pytest.mark.parametrize("speed", ["0", "1.5", "nan"])
def test_an_impossible_speed_is_refused(speed, capsys):
    with pytest.raises(SystemExit):
        options(*ROBOT, "--speed", speed)
    assert "above 0 and at most 1" in capsys.readouterr().err


def test_no_robot_is_refused():
    wanted = options()
    with pytest.raises(ConfigError, match="no base is configured"):
        wanted.run(wanted)


def test_the_topic_joy_is_a_stick_like_any_other():
    from mobile_vla.ros.connect import connect
    from mobile_vla.ros.messages import joy
    from mobile_vla.ros.topics import JOY
    from mobile_vla.ros.transport import NodeConfig

    node = {"namespace": f"/test_{uuid.uuid4().hex[:12]}", "domain": 7, "localhost_only": True}
    stick = teleop.JoyTopic(NodeConfig("teleop", **node))
    pad = connect(NodeConfig("pad", **node))
    try:
        assert not stick.read().connected
        stick.open()
        stick.open()
        publisher = pad.publisher(JOY)
        deadline = time.monotonic() + 60.0

        def until(holds, axes, buttons):
            while not holds(stick.read()):
                assert time.monotonic() < deadline
                publisher.publish(joy(axes, buttons, 0))
                time.sleep(0.05)

        until(lambda state: state.connected, [0.0] * 6, [0] * 15)
        held = [int(k == 9) for k in range(15)]
        until(lambda state: state.twist_share == (1.0, 0.0, 0.0), [0.0, 1.0, 0.0], held)
        until(lambda state: not state.touched, [0.0, 1.0, 0.0], [0] * 15)
    finally:
        stick.close()
        stick.close()
        pad.close()
    assert not stick.read().connected


def test_a_robot_that_goes_away_is_an_error_and_not_a_traceback():
    with program("teleop", *ROBOT[:1], "base.kind=serial", "base.port=/dev/no-such-port") as here:
        assert here.end() == 2
        assert "Traceback" not in here.said
        assert "/dev/no-such-port" in here.said
