from pathlib import Path

import pytest

from mobile_vla.ros import topics
from mobile_vla.ros.topics import TOPICS, Qos, Topic


def test_every_topic_of_the_module_is_in_the_table_once():
    named = [value for value in vars(topics).values() if isinstance(value, Topic)]
    assert sorted(named, key=lambda topic: topic.name) == sorted(TOPICS, key=lambda topic: topic.name)
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_what_can_be_stale_has_a_rate_and_time_for_more_than_one_message(topic):
    if topic.stale_after_s is not None:
        assert topic.rate_hz is not None
        assert topic.stale_after_s > 2 / topic.rate_hz
    else:
        assert topic.rate_hz is None


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_all_types_are_standard_ones_of_ros(topic):
    package, kind, _ = topic.type.split("/")
    assert kind == "msg"
    assert package in {
        "diagnostic_msgs",
        "geometry_msgs",
        "nav_msgs",
        "sensor_msgs",
        "std_msgs",
        "trajectory_msgs",
    }


def test_what_comes_late_and_must_not_be_missed_is_latched():
    assert {topic.name for topic in TOPICS if topic.qos is Qos.LATCHED} == {
        "control/instruction",
        "inference/contract",
        "sim/verdict",
    }


def test_the_manual_has_the_table_as_it_is():
    manual = (Path(__file__).parents[2] / "docs" / "robot.md").read_text(encoding="utf-8")
    assert topics.as_markdown() in manual, (
        "paste: python -c 'from mobile_vla.ros import topics; print(topics.as_markdown())'"
    )
