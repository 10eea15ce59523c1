import threading
import time

import pytest

from mobile_vla.core import Twist
from mobile_vla.ros import topics
from mobile_vla.ros.messages import Level, camera_info, diagnoses, diagnostics, odometry, string
from mobile_vla.ros.nodes.monitoring import Freshness, Line, MonitoringNode, Snapshot
from mobile_vla.ros.wire_time import to_wire

from .world import LIMIT_S, Outside, Running, wait_until

GO = "go to the red cup"


def message_of(topic):
    now_ns = to_wire(time.monotonic_ns())
    if topic is topics.CAMERA_INFO:
        return camera_info(160, 96, now_ns, "camera")
    if topic is topics.ODOM:
        return odometry(Twist(0.1, 0.0, 0.0), (0.0, 0.0, 0.0), now_ns)
    if topic in (topics.SAFETY, topics.BELIEF):
        return diagnostics(Level.OK, "any", "driving", {"state": "running"}, now_ns)
    raise AssertionError(topic)


class Robot:
    """Publishes what a robot does, each topic with its period; ``period_s`` may be changed under way, None: silent."""

    def __init__(self, outside):
        self._outside = outside
        self.period_s = {topics.CAMERA_INFO: 0.03, topics.ODOM: 0.02, topics.SAFETY: 0.1}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-robot", daemon=True)

    def _run(self):
        due = {}
        while not self._over.wait(0.005):
            now = time.monotonic()
            for topic, period_s in list(self.period_s.items()):
                if now >= due.get(topic.name, 0.0):
                    due[topic.name] = now + period_s
                    self._outside.publish(topic, message_of(topic))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)


@pytest.fixture
def outside(namespace, domain):
    with Outside(namespace, domain) as outside:
        outside.listen(topics.DIAGNOSTICS)
        yield outside


@pytest.fixture
def shown():
    return []


@pytest.fixture
def monitoring(shown, outside, namespace, domain):
    with Running("monitoring", namespace, domain, lambda transport: MonitoringNode(transport, shown.append)) as running:
        yield running.node


def line(monitoring, topic):
    return next(line for line in monitoring.snapshot().topics if line.topic is topic)


def say_of(outside, name, level=Level.OK, message="fine"):
    outside.publish(topics.DIAGNOSTICS, diagnostics(level, name, message, {"a": "b"}, to_wire(time.monotonic_ns())))


def test_a_robot_of_which_nothing_is_heard_is_in_error(monitoring, shown):
    wait_until(lambda: len(shown) >= 2, "it shows once a second")
    assert shown[0].level is Level.WARN
    assert {line.freshness for line in shown[0].topics} == {Freshness.STARTING, Freshness.IDLE}
    wait_until(lambda: shown[-1].level is Level.ERROR, "it has waited long enough")
    assert {line.topic.name: line.freshness for line in shown[-1].topics} == {
        topics.CAMERA_INFO.name: Freshness.SILENT,
        topics.CHUNK.name: Freshness.IDLE,
        topics.BELIEF.name: Freshness.IDLE,
        topics.ODOM.name: Freshness.SILENT,
        topics.SAFETY.name: Freshness.SILENT,
    }
    assert shown[-1].safety is None


def test_a_robot_that_waits_for_words_is_well_and_then_its_chunks_are_missed(monitoring, outside, namespace):
    with Robot(outside):
        say_of(outside, f"{namespace}/control")
        wait_until(lambda: monitoring.snapshot().level is Level.OK, "all fresh")
        assert monitoring.snapshot().safety.values["state"] == "running"
        assert line(monitoring, topics.CHUNK).freshness is Freshness.IDLE
        wait_until(lambda: 25.0 < line(monitoring, topics.ODOM).rate_hz < 60.0, "about fifty a second")
        outside.publish(topics.ACTIVE_INSTRUCTION, string(GO))
        wait_until(lambda: line(monitoring, topics.CHUNK).freshness is Freshness.SILENT, "no chunk comes")
        assert monitoring.snapshot().instruction == GO
        assert monitoring.snapshot().level is Level.ERROR
        wait_until(lambda: "inference/chunk silent" in own_words(outside, namespace), "it says so on the wire")


def own_words(outside, namespace):
    found = [each for message in outside.heard[topics.DIAGNOSTICS.name] for each in message.status]
    return " | ".join(each.message for each in found if each.name == f"{namespace}/monitoring")


def test_what_stops_is_stale_and_what_limps_is_slow(monitoring, outside):
    with Robot(outside) as robot:
        wait_until(lambda: line(monitoring, topics.ODOM).freshness is Freshness.OK, "fresh")
        del robot.period_s[topics.ODOM]
        wait_until(lambda: line(monitoring, topics.ODOM).freshness is Freshness.STALE, "stale")
        assert line(monitoring, topics.ODOM).age_s > topics.ODOM.stale_after_s
        assert monitoring.snapshot().level is Level.ERROR
        robot.period_s[topics.CAMERA_INFO] = 0.2
        wait_until(lambda: line(monitoring, topics.CAMERA_INFO).freshness is Freshness.SLOW, "slow")


def test_a_pause_between_two_instructions_does_not_make_the_second_look_slow(monitoring, outside):
    with Robot(outside) as robot:
        robot.period_s[topics.BELIEF] = 0.1
        outside.publish(topics.ACTIVE_INSTRUCTION, string(GO))
        wait_until(lambda: line(monitoring, topics.BELIEF).freshness is Freshness.OK, "beliefs come")
        del robot.period_s[topics.BELIEF]
        outside.publish(topics.ACTIVE_INSTRUCTION, string(""))
        wait_until(lambda: line(monitoring, topics.BELIEF).freshness is Freshness.IDLE, "idle")
        time.sleep(6.0)  # with it the mean rate since the first belief would be below the half of the nominal one
        outside.publish(topics.ACTIVE_INSTRUCTION, string("go to the ball"))
        wait_until(lambda: monitoring.snapshot().instruction == "go to the ball", "told")
        robot.period_s[topics.BELIEF] = 0.1
        seen = []

        def look():
            seen.append(line(monitoring, topics.BELIEF).freshness)
            return seen[-1] is Freshness.OK

        wait_until(look, "fresh again")
        time.sleep(0.5)
        look()
        assert Freshness.SLOW not in seen


def test_nodes_that_limp_or_fall_silent_are_named(monitoring, outside, namespace):
    with Robot(outside):
        say_of(outside, f"{namespace}/inference", Level.WARN, "too slow")
        wait_until(lambda: monitoring.snapshot().nodes, "a node")
        assert monitoring.snapshot().nodes[f"{namespace}/inference"].message == "too slow"
        wait_until(lambda: monitoring.snapshot().silent_nodes == (f"{namespace}/inference",), "silent")
        assert monitoring.snapshot().level is Level.ERROR
        say_of(outside, f"{namespace}/inference", Level.ERROR, "broken")
        wait_until(lambda: not monitoring.snapshot().silent_nodes, "it speaks again")
        assert monitoring.snapshot().level is Level.ERROR


def test_of_another_robots_nodes_it_knows_nothing(monitoring, outside, namespace):
    say_of(outside, "/another_robot/control", Level.ERROR)
    say_of(outside, f"{namespace}/deeper/control", Level.ERROR)
    say_of(outside, "lidar: motor")
    wait_until(lambda: monitoring.snapshot().nodes, "what may be ours")
    assert set(monitoring.snapshot().nodes) == {"lidar: motor"}


def test_only_an_operators_station_has_a_heartbeat(shown, outside, namespace, domain):
    outside.listen(topics.HEARTBEAT)
    with Running("monitoring", namespace, domain, lambda transport: MonitoringNode(transport, shown.append)):
        wait_until(lambda: len(shown) >= 2, "it shows")
    assert outside.heard[topics.HEARTBEAT.name] == []
    with Running("station", namespace, domain, lambda transport: MonitoringNode(transport, shown.append, True)):
        wait_until(lambda: len(outside.heard[topics.HEARTBEAT.name]) >= 5, "its heart beats")


@pytest.mark.parametrize(
    ("freshness", "level"),
    [
        (Freshness.OK, Level.OK),
        (Freshness.IDLE, Level.OK),
        (Freshness.SLOW, Level.WARN),
        (Freshness.STARTING, Level.WARN),
        (Freshness.STALE, Level.ERROR),
        (Freshness.SILENT, Level.ERROR),
    ],
)
def test_the_worst_line_makes_the_level(freshness, level):
    lines = (Line(topics.ODOM, Freshness.OK, 50.0, 0.0, 50.0), Line(topics.CHUNK, freshness, 5.0, 0.1, 5.0))
    assert Snapshot(lines, {}, (), None, "").level is level


@pytest.mark.parametrize(
    ("state", "level"),
    [
        ("running", Level.OK),
        ("holding", Level.OK),
        ("protective_stop", Level.ERROR),
        ("emergency_stop", Level.ERROR),
    ],
)
def test_a_robot_that_waits_for_a_person_is_in_error(state, level):
    safety = diagnoses(diagnostics(Level.OK, "control/safety", "", {"state": state}, 0))[0]
    assert Snapshot((), {}, (), safety, "").level is level


def test_the_stop_is_told_on_the_wire_with_its_sentence(monitoring, outside, namespace):
    stop = {"state": "protective_stop"}

    def told():
        now_ns = to_wire(time.monotonic_ns())
        outside.publish(topics.SAFETY, diagnostics(Level.OK, "control/safety", "the camera hangs", stop, now_ns))
        return "protective_stop: the camera hangs" in own_words(outside, namespace)

    wait_until(told, "it says so")
