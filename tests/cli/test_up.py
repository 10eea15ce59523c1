"""The processes of a robot, as ``mobile-vla up`` starts them: real ones, over real DDS, in the simulation."""

import argparse
import json
import os
import re
import signal

import pytest

from mobile_vla.cli import up
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.operator import Operator
from mobile_vla.ros.processes import Restart
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.trial import Trial
from ros.nodes.world import Outside

from .wire import DOMAIN, LIMIT_S, Graph, command, handlers_kept, new_namespace, on, wait_until

WORDS = "go round the box on the left and stop at the red cup"
ALL = {"sim", "recorder", "control", "camera", "inference", "monitoring"}


def options(*arguments):
    parser = argparse.ArgumentParser()
    up.add_to(parser.add_subparsers(required=True))
    return parser.parse_args(["up", *map(str, arguments)])


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pids(said):
    """The newest process of each node, from what ``up`` said."""
    return {name: int(pid) for name, pid in re.findall(r"^(\w+) started, process (\d+)$", said, re.MULTILINE)}


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """One drive of the simulated robot with the shipped policy, recorded: what came of it and what others saw."""
    folder = tmp_path_factory.mktemp("drive")
    here, elsewhere = new_namespace(), new_namespace()
    drive = argparse.Namespace(bag=folder / "bag", namespace=here, nodes=set())
    recording = ("--record", drive.bag, "--raw")
    with Outside(here, DOMAIN) as near, Outside(elsewhere, DOMAIN) as far:
        graph = Graph()
        for outside in (near, far):
            for topic in (topics.SAFETY, topics.ODOM, topics.ACTIVE_INSTRUCTION):
                outside.listen(topic)
        with command(folder, "up", "--sim", *on(here), "--say", WORDS, *recording, "--json") as running:

            def ended():
                drive.nodes |= graph.nodes()
                return running.process.poll() is not None

            wait_until(ended, lambda: running.err)
            drive.code, drive.out, drive.err = running.process.returncode, running.out, running.err
        drive.heard = {name: len(messages) for name, messages in near.heard.items()}
        drive.heard_elsewhere = {name: len(messages) for name, messages in far.heard.items()}
    return drive


@pytest.mark.timeout(600)
@pytest.mark.realtime
def test_four_processes_drive_the_simulated_robot_to_its_target(drive):
    assert drive.code == 0, drive.err
    verdict = json.loads(drive.out[drive.out.index("{") :])
    assert verdict["success"] is True
    assert verdict["failure"] is None
    assert verdict["touched"] is None
    assert (verdict["ending"], verdict["status"]) == ("finished", "arrived")
    assert verdict["instruction"] == WORDS
    assert verdict["path_m"] > 1.0
    assert set(pids(drive.err)) == ALL
    assert len(set(pids(drive.err).values())) == len(ALL)
    assert "started again" not in drive.err


@pytest.mark.realtime
def test_with_its_end_all_processes_have_ended(drive):
    wait_until(lambda: not any(map(lives, pids(drive.err).values())), "all have ended")


@pytest.mark.realtime
def test_its_nodes_were_in_the_ros_graph_by_name(drive):
    names = {name.rpartition("/")[2] for name in drive.nodes if name.rpartition("/")[0] == drive.namespace}
    assert names >= ALL | {"up", "operator", "camera_driver", "base_driver"}


@pytest.mark.realtime
def test_a_robot_in_another_namespace_heard_nothing_of_it(drive):
    assert drive.heard[topics.SAFETY.name] > 20
    assert drive.heard[topics.ODOM.name] > 100
    assert drive.heard_elsewhere == dict.fromkeys(drive.heard_elsewhere, 0)


@pytest.mark.realtime
def test_replayed_the_recording_gives_the_same_decisions(drive, call):
    code, out, _ = call("replay", drive.bag, "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["frames_lossless"] is True
    assert answer["decisions"] > 15
    assert answer["frames_missing"] <= 2  # pictures are read best effort: a recorder that is held up loses some
    if answer["frames_missing"] == 0:  # what follows a lost one is decided with another memory
        assert answer["same_status"] == answer["decisions"]
        assert answer["largest_difference"] < 1e-4
    assert all(value > 1e-3 for value in answer["mean_difference_of_standing_still"].values())


@pytest.mark.timeout(600)
@pytest.mark.realtime
def test_what_is_killed_is_started_again_and_sigterm_ends_everything(tmp_path):
    namespace = new_namespace()
    config = NodeConfig("operator", namespace, domain=DOMAIN, localhost_only=True)
    with command(tmp_path, "up", "--sim", *on(namespace)) as running:
        with Trial(connect(config)) as trial:
            trial.wait_until_up(LIMIT_S)
            first = pids(running.err)
            os.kill(first["inference"], signal.SIGKILL)
            wait_until(lambda: pids(running.err)["inference"] != first["inference"], lambda: running.err)
            assert "inference killed by SIGKILL: started again in 0.5 s" in running.err
            while not trial._alive.empty():
                trial._alive.get()
            trial.wait_until_up(LIMIT_S)  # the new one says so too
        assert {name: pid for name, pid in pids(running.err).items() if name != "inference"} == {
            name: pid for name, pid in first.items() if name != "inference"
        }
        with Operator(connect(config)) as operator:
            operator.say("go to the red cup", LIMIT_S, wait=False)
            assert operator.emergency_stop()["state"] == "emergency_stop"
        assert running.end(signal.SIGTERM) == 0, running.err
        wait_until(lambda: not any(map(lives, pids(running.err).values())), "all have ended")
        assert "control did not end within" not in running.err


def test_the_table_of_a_robot_of_ones_own():
    rows = up.table(options("camera.kind=usb", "base.kind=serial", "--domain", 7, "--namespace", "/r", "--policy", "p"))
    assert [row.name for row in rows] == ["control", "camera", "inference", "monitoring"]
    control, camera, inference, monitoring = (row.arguments for row in rows)
    for row in rows:
        assert row.arguments[:2] == ("node", row.name)
        assert {"--namespace=/r", "--transport=auto", "--domain=7"} <= set(row.arguments)
        assert row.restart is Restart.ALWAYS
    assert control[-2:] == camera[-2:] == ("camera.kind=usb", "base.kind=serial")
    assert "--max-seconds=120.0" in control
    assert inference[-1] == "--policy=p"
    assert "--sim" not in control + camera + inference + monitoring


def test_the_table_of_the_simulation_with_a_recorder():
    rows = {row.name: row for row in up.table(options("--sim", "--scene", "hidden", "--seed", 4, "--record", "bag"))}
    assert list(rows) == ["sim", "recorder", "control", "camera", "inference", "monitoring"]
    assert rows["sim"].arguments[-2:] == ("--scene=hidden", "--seed=4")
    assert rows["recorder"].restart is Restart.NEVER
    assert "--out=bag" in rows["recorder"].arguments
    assert "--raw" not in rows["recorder"].arguments
    assert rows["control"].arguments[-1] == rows["camera"].arguments[-1] == "--sim"
    assert "--noiseless-camera" in rows["inference"].arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no camera is configured"),
        (("camera.kind=pattrn", "base.kind=ideal"), "pattern"),
        (("--sim", "camera.kind=pattern"), "leave out --robot"),
        (("camera.kind=pattern", "base.kind=ideal", "--say", "go to the cup"), "add --sim"),
        (("--sim", "--say", "go to the red unicorn"), "unicorn"),
        (("--sim", "--scene", "hiden"), "did you mean hidden"),
        (("--sim", "--scene", "hiden", "--say", "go to the red cup"), "did you mean hidden"),
        (("camera.kind=pattern", "base.kind=ideal", "--scene", "hidden"), "add --sim"),
        (("--sim", "--record", "/proc"), "/proc exists: choose another name"),
        (("--sim", "--remap", "cmd_vel"), "no remapping"),
        (("camera.kind=pattern", "base.kind=ideal", "--without-policy", "--domain", 500), "500"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(refuse, arguments, words):
    with handlers_kept():
        assert words in refuse("up", *arguments)


@pytest.mark.parametrize("module", ["torch", "mujoco"])
def test_what_is_not_installed_is_said_before_anything_starts(refuse, monkeypatch, module):
    monkeypatch.setattr(up.importlib.util, "find_spec", lambda name: None if name == module else name)
    with handlers_kept():
        assert f"needs {module}, which is not installed here: pip install -e" in refuse("up", "--sim")


def test_where_a_robot_is_driven_nothing_is_started(refuse, tmp_path):
    namespace = new_namespace()
    robot = ("camera.kind=pattern", "base.kind=ideal")
    with Outside(namespace, DOMAIN) as outside, command(tmp_path, "node", "control", *on(namespace), robot[1]) as first:
        outside.listen(topics.SAFETY)
        wait_until(lambda: outside.safety.get("state") == "holding", lambda: first.err)
        for other in (("up", *robot, "--without-policy"), ("node", "control", robot[1])):
            with handlers_kept():
                assert f"is up here already ({namespace}/control): end it first" in refuse(*other, *on(namespace))
        assert first.end(signal.SIGTERM) == 0, first.err


def test_a_killed_control_node_is_started_again(tmp_path):
    namespace = new_namespace()
    robot = ("camera.kind=pattern", "base.kind=ideal", "--without-policy")
    with Outside(namespace, DOMAIN) as outside, command(tmp_path, "up", *robot, *on(namespace)) as running:
        outside.listen(topics.SAFETY)
        wait_until(lambda: outside.safety.get("state") == "holding", lambda: running.err)
        os.kill(pids(running.err)["control"], signal.SIGKILL)
        wait_until(lambda: running.err.count("control started") == 2, lambda: running.err)
        outside.heard[topics.SAFETY.name].clear()
        wait_until(lambda: outside.safety.get("state") == "holding", lambda: running.err)
        assert running.err.count("control started") == 2, running.err
        assert running.end(signal.SIGTERM) == 0, running.err


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "inf"])
def test_an_instruction_needs_a_time_limit(seconds, capsys):
    with pytest.raises(SystemExit):
        options("--sim", "--max-seconds", seconds)
    assert "above zero and finite" in capsys.readouterr().err
