"""Each node alone, as a person would start it."""

import argparse
import json
import os
import signal
from dataclasses import replace

import pytest

from mobile_vla.cli import node
from mobile_vla.ros import topics
from mobile_vla.ros.messages import Level, diagnoses, diagnostics, string, twist_from_message
from mobile_vla.ros.nodes.monitoring import Freshness, Line, Snapshot
from mobile_vla.ros.processes import PARENT_VARIABLE
from ros.nodes.world import Outside

from .wire import DOMAIN, command, handlers_kept, new_namespace, on, wait_until

PATTERN = ("camera.kind=pattern", "camera.width=160", "camera.height=96")
IDEAL = ("base.kind=ideal",)


@pytest.fixture
def namespace():
    return new_namespace()


@pytest.fixture
def outside(namespace):
    with Outside(namespace, DOMAIN) as outside:
        outside.listen(topics.DIAGNOSTICS)
        yield outside


def said_by(outside, name):
    """The newest diagnosis of a node."""
    found = [each for message in outside.heard[topics.DIAGNOSTICS.name] for each in diagnoses(message)]
    return next((each for each in reversed(found) if each.name == name), None)


def test_camera_and_control_alone_live_and_end_politely(namespace, outside, tmp_path):
    outside.listen(topics.CAMERA_INFO)
    outside.listen(topics.SAFETY)
    outside.listen(topics.ODOM)
    robot = (*PATTERN, *IDEAL)
    with (
        command(tmp_path, "node", "camera", *on(namespace), *robot) as camera,
        command(tmp_path, "node", "control", *on(namespace), *robot) as control,
    ):
        wait_until(lambda: outside.newest(topics.CAMERA_INFO), lambda: camera.err)
        wait_until(lambda: outside.safety.get("state") == "holding", lambda: control.err)
        wait_until(lambda: outside.newest(topics.ODOM), "its own odometry, as the base has no driver that publishes")
        assert twist_from_message(outside.newest(topics.ODOM)).vx == 0.0
        wait_until(lambda: said_by(outside, f"{namespace}/camera"), "camera's diagnosis")
        wait_until(lambda: said_by(outside, f"{namespace}/control"), "control's diagnosis")
        control.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: outside.safety.get("state") == "emergency_stop", "a signal is an emergency stop")
        assert outside.safety["sentence"] == "an emergency stop came as signal SIGUSR1"
        assert camera.end(signal.SIGTERM) == 0, camera.err
        assert control.end(signal.SIGINT) == 0, control.err
        assert "Traceback" not in camera.err + control.err


@pytest.mark.needs("torch")
def test_inference_alone_publishes_its_contract_and_waits(namespace, outside, policy, tmp_path):
    outside.listen(topics.CONTRACT)
    with command(tmp_path, "node", "inference", *on(namespace), "--policy", policy) as inference:
        wait_until(lambda: outside.newest(topics.CONTRACT), lambda: inference.err)
        assert json.loads(outside.newest(topics.CONTRACT).data)["policy"] == policy.name
        wait_until(lambda: said_by(outside, f"{namespace}/inference"), "its diagnosis")
        assert said_by(outside, f"{namespace}/inference").message == "idle"
        assert inference.end(signal.SIGTERM) == 0


def test_monitoring_and_the_recorder_see_what_others_publish(namespace, outside, tmp_path):
    bag = tmp_path / "bag"
    with (
        command(tmp_path, "node", "monitoring", *on(namespace), "--json") as monitoring,
        command(tmp_path, "node", "recorder", *on(namespace), "--out", bag, "--remap", "cmd_vel:=/base/go") as recorder,
    ):
        outside.publish(topics.ACTIVE_INSTRUCTION, string("go to the red cup"))
        values = {"state": "running", "reason": "driving"}

        def seen():
            outside.publish(topics.SAFETY, diagnostics(Level.OK, "control/safety", "driving", values, 5))
            lines = [json.loads(line) for line in monitoring.out.splitlines(keepends=True) if line.endswith("\n")]
            return any(
                line["instruction"] == "go to the red cup"
                and line["level"] == "ERROR"
                and (line["safety"] or {}).get("state") == "running"
                for line in lines
            )

        wait_until(seen, lambda: monitoring.err)
        wait_until(lambda: said_by(outside, f"{namespace}/recorder"), lambda: recorder.err)
        assert monitoring.end(signal.SIGTERM) == 0
        assert recorder.end(signal.SIGTERM) == 0
    snapshot = json.loads(monitoring.out.splitlines()[-1])
    assert snapshot["instruction"] == "go to the red cup"
    assert snapshot["level"] == "ERROR"
    assert snapshot["topics"]["odom"] == {"freshness": "silent", "rate_hz": 0.0, "age_s": None}
    assert (bag / "metadata.yaml").exists()
    assert "/base/go" in (bag / "metadata.yaml").read_text(encoding="utf-8")


def test_a_node_whose_parent_has_died_ends(namespace, tmp_path, monkeypatch):
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid() + 1))  # not the one that starts it
    with command(tmp_path, "node", "camera", *on(namespace), *PATTERN, *IDEAL) as camera:
        assert camera.end() in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("camera", "camera.kind=usb", "camera.device=/dev/video77", *IDEAL), "/dev/video77"),
        (("camera",), "no camera is configured"),
        (("control", *PATTERN, "base.kind=serial", "base.port=/dev/no-such-port"), "/dev/no-such-port"),
        (("control", *PATTERN, *IDEAL, "safety.stale_after_s=-1"), "stale_after_s"),
        pytest.param(("inference", "--policy", "nowhere"), "nowhere", marks=pytest.mark.needs("torch")),
        pytest.param(("sim", "--scene", "hiden"), "did you mean hidden", marks=pytest.mark.needs("mujoco")),
        (("monitoring", "--namespace", "/1st robot"), "1st robot"),
    ],
)
def test_a_node_that_cannot_work_says_why_in_one_sentence(refuse, namespace, arguments, words):
    start = () if "--namespace" in arguments else ("--namespace", namespace)
    with handlers_kept():
        assert words in refuse("node", *arguments, "--localhost", "--domain", DOMAIN, *start)


def test_the_bag_of_a_recorder_must_be_new(refuse, namespace, tmp_path):
    with handlers_kept():
        assert "exists" in refuse("node", "recorder", *on(namespace), "--out", tmp_path)


def test_every_node_has_a_line_of_help():
    parser = argparse.ArgumentParser()
    node.add_to(parser.add_subparsers(required=True))
    for name, _, about in node.NODES:
        assert about
        required = ["--out", "bag"] if name == "recorder" else []
        assert parser.parse_args(["node", name, *required]).node == name


def snapshot(level=Freshness.OK, state="running"):
    lines = (Line(topics.ODOM, level, 49.5, 0.012, 50.0), Line(topics.CHUNK, Freshness.IDLE, 0.0, None, 5.0))
    safety = diagnoses(diagnostics(Level.OK, "control/safety", "driving", {"state": state}, 0))[0]
    return Snapshot(lines, {"/r/control": safety}, (), safety, "go to the red cup")


def test_in_json_a_snapshot_is_one_line_with_numbers_as_numbers(capsys):
    values = {
        "rate": "49.5",
        "count": "7",
        "none": "",
        "word": "driving",
        "serial": "007",
        "late": "nan",
        "far": "1e999",
    }
    diagnosis = diagnoses(diagnostics(Level.OK, "control/safety", "driving", values, 0))[0]
    node._print_snapshot(replace(snapshot(), safety=diagnosis))
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line, parse_constant=pytest.fail)
    assert told["safety"] == values | {"rate": 49.5, "count": 7}
    assert told["topics"]["odom"] == {"freshness": "ok", "rate_hz": 49.5, "age_s": 0.012}


def test_off_a_terminal_the_table_is_a_line_when_something_changes(capsys):
    table = node._Table()
    for state in ("running", "running", "holding"):
        table.show(snapshot(state=state))
    assert capsys.readouterr().out.splitlines() == [
        "OK  running: driving  'go to the red cup'",
        "OK  holding: driving  'go to the red cup'",
    ]


def test_on_a_terminal_it_is_a_table(monkeypatch):
    from io import StringIO

    from rich.console import Console

    table = node._Table()
    screen = StringIO()
    table._console = Console(file=screen, force_terminal=True, width=160)
    table.show(snapshot(Freshness.SLOW))
    shown = screen.getvalue()
    for word in ("WARN  running", "odom", "slow", "49.5 of 50 Hz", "12 ms", "/r/control", "driving"):
        assert word in shown
