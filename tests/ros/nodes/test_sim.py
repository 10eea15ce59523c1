import json
import threading
import time

import pytest

from mobile_vla.core import Twist
from mobile_vla.robot.odometry import Pose
from mobile_vla.ros import topics
from mobile_vla.ros.messages import (
    Level,
    diagnoses,
    diagnostics,
    pixels_from_image,
    pose_from_odometry,
    stamp_ns,
    string,
    twist,
    twist_from_message,
)
from mobile_vla.ros.nodes.sim import SimNode
from mobile_vla.ros.wire_time import from_wire, to_wire
from mobile_vla.sim.choose import named_scene
from mobile_vla.sim.world import World

from .world import LIMIT_S, Outside, Running, wait_until

STAY = "stop"


class Commanding:
    """Publishes ``twist`` on cmd_vel twenty times a second, until the end of the ``with`` block."""

    def __init__(self, outside, command):
        self._outside, self.command = outside, command
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-commanding", daemon=True)

    def _run(self):
        while not self._over.wait(0.05):
            self._outside.publish(topics.CMD_VEL, twist(self.command))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)


@pytest.fixture(scope="module")
def world():
    world = World(renderer="rays")  # OpenGL would want one thread for all tests
    yield world
    world.close()


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        for topic in (topics.ODOM, topics.SIM_VERDICT, topics.DIAGNOSTICS):
            outside.listen(topic)
        yield outside


@pytest.fixture
def sim(world, outside, namespace, domain):
    world.load(named_scene("distractors", 1))
    with Running("sim", namespace, domain, lambda transport: SimNode(transport, world)) as running:
        wait_until(lambda: outside.newest(topics.ODOM), "it plays")
        yield running


def velocity(outside):
    return twist_from_message(outside.newest(topics.ODOM))


def way(outside, began):
    there = Pose(*pose_from_odometry(outside.newest(topics.ODOM)))
    return began.inverse().at(there)


def verdicts(outside):
    return [json.loads(message.data) for message in outside.heard[topics.SIM_VERDICT.name]]


def end_of(outside, text, ending="finished", status="arrived", age_s=0.0):
    """Tell, as control does, how an instruction ended."""
    values = {"instruction": "", "last_instruction": text, "last_ending": ending, "last_status": status}
    stamp = to_wire(time.monotonic_ns() - round(age_s * 1e9))
    outside.publish(topics.SAFETY, diagnostics(Level.OK, "control/safety", "", values, stamp))


def test_it_goes_where_it_is_told_and_stands_when_nobody_tells(sim, outside):
    began = Pose(*pose_from_odometry(outside.newest(topics.ODOM)))
    with Commanding(outside, Twist(0.3, 0.0, 0.0)):
        wait_until(lambda: velocity(outside).vx > 0.25, "it drives")
        wait_until(lambda: way(outside, began).x > 0.1, "it gets on")
    wait_until(lambda: abs(velocity(outside).vx) < 0.01, "nobody commands, it stands")
    assert abs(way(outside, began).y) < 0.05


def test_a_command_that_is_not_finite_is_none(sim, outside):
    with Commanding(outside, Twist(0.3, 0.0, 0.0)) as commanding:
        wait_until(lambda: velocity(outside).vx > 0.25, "it drives")
        commanding.command = Twist(float("nan"), 0.0, 0.0)
        wait_until(lambda: abs(velocity(outside).vx) < 0.01, "it stands")
        assert velocity(outside).is_finite


def test_pictures_are_drawn_for_those_who_look(sim, outside):
    time.sleep(0.3)
    assert sim.node._sequence == 0  # nobody looks
    outside.listen(topics.SIM_IMAGE)
    wait_until(lambda: len(outside.heard[topics.SIM_IMAGE.name]) >= 5, "pictures")
    pictures = outside.heard[topics.SIM_IMAGE.name]
    assert pixels_from_image(pictures[-1]).shape == (96, 192, 3)
    assert pixels_from_image(pictures[-1]).std() > 5.0
    stamps = [stamp_ns(picture) for picture in pictures]
    assert stamps == sorted(set(stamps))
    assert 0 <= time.monotonic_ns() - from_wire(stamps[-1]) < 10e9


def test_another_scene_is_loaded_and_an_unknown_one_changes_nothing(sim, outside, world):
    outside.publish(topics.SIM_SCENE, string(json.dumps({"scenario": "hidden", "seed": 4})))
    wait_until(lambda: {"loaded": "hidden", "seed": 4} in verdicts(outside), "it says so")
    assert (world.scene.scenario, world.scene.seed) == ("hidden", 4)
    outside.publish(topics.SIM_SCENE, string(json.dumps({"scenario": "the moon", "seed": 4})))
    outside.publish(topics.SIM_SCENE, string("no JSON"))
    wait_until(lambda: sim.transport.failures == 1, "refused")
    before = len(outside.heard[topics.ODOM.name])
    wait_until(lambda: len(outside.heard[topics.ODOM.name]) > before + 5, "it plays on")
    assert world.scene.scenario == "hidden"


def test_a_drive_is_judged_once_when_control_says_that_it_ended(sim, outside):
    outside.publish(topics.ACTIVE_INSTRUCTION, string(STAY))
    wait_until(lambda: sim.node._judge is not None, "it follows")
    end_of(outside, STAY, age_s=30.0)  # said before this instruction
    end_of(outside, "go to the cup")  # of another one
    time.sleep(0.3)
    assert verdicts(outside) == []
    end_of(outside, STAY)
    wait_until(lambda: verdicts(outside), "the verdict")
    end_of(outside, STAY)
    time.sleep(0.3)
    (verdict,) = verdicts(outside)
    assert verdict["success"] is True
    assert verdict["failure"] is None
    assert verdict["instruction"] == STAY
    assert verdict["touched"] is None
    assert 0.0 < verdict["duration_s"] < 60.0
    assert verdict["path_m"] < 0.05


def test_what_control_ended_is_no_success(sim, outside):
    outside.publish(topics.ACTIVE_INSTRUCTION, string(STAY))
    wait_until(lambda: sim.node._judge is not None, "it follows")
    end_of(outside, STAY, ending="stopped", status="")
    wait_until(lambda: verdicts(outside), "the verdict")
    assert verdicts(outside)[0]["success"] is False
    assert verdicts(outside)[0]["failure"] == "did not end in time"


def test_the_second_instruction_is_judged_from_where_the_robot_stands_then(sim, outside):
    began = Pose(*pose_from_odometry(outside.newest(topics.ODOM)))
    with Commanding(outside, Twist(0.5, 0.0, 0.5)):
        wait_until(lambda: way(outside, began).x > 0.4, "it has gone some way")
    wait_until(lambda: abs(velocity(outside).vx) < 0.01 and abs(velocity(outside).wz) < 0.01, "it stands")
    outside.publish(topics.ACTIVE_INSTRUCTION, string(STAY))
    wait_until(lambda: sim.node._judge is not None, "it follows")
    end_of(outside, STAY)
    wait_until(lambda: verdicts(outside), "the verdict")
    assert verdicts(outside)[0]["path_m"] < 0.05
    assert verdicts(outside)[0]["success"] is True


def test_words_that_it_does_not_understand_are_not_judged(sim, outside):
    outside.publish(topics.ACTIVE_INSTRUCTION, string("sing me a song"))
    time.sleep(0.3)
    assert sim.node._judge is None
    assert sim.transport.failures == 0


def test_it_says_what_it_plays_and_how_fast(sim, outside):
    wait_until(lambda: outside.newest(topics.DIAGNOSTICS), "a diagnosis")
    told = diagnoses(outside.newest(topics.DIAGNOSTICS))[0]
    assert (told.values["scenario"], told.values["seed"]) == ("distractors", "1")
    assert told.message.endswith("of life's pace")
