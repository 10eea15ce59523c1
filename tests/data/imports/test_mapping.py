"""Every answer is asked for; each error names the key, what the source has, and the line to add."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from mobile_vla.core import ConfigError
from mobile_vla.data.imports import read_mapping, template
from mobile_vla.data.imports.contents import Contents, Part, Role
from mobile_vla.data.imports.mapping import AxisSource, ImportMapping

from . import bags

NUMBERS = ("x.vel", "y.vel", "theta.vel")
CONTENTS = {
    "lerobot": Contents(
        "lerobot",
        Path("drives"),
        3,
        (
            Part("images.front", Role.CAMERA, "video 48x64x3"),
            Part("action", Role.NUMBERS, "float32 3", NUMBERS),
            Part("task", Role.TEXT, "2 instructions"),
        ),
        30.0,
    ),
    "hdf5": Contents(
        "hdf5",
        Path("drives"),
        3,
        (
            Part("images", Role.CAMERA, "uint8 18x720x1280x3"),
            Part("action", Role.NUMBERS, "float32 18x3", ("0", "1", "2")),
            Part("words", Role.TEXT, "text scalar"),
        ),
    ),
    "bag": Contents(
        "bag",
        Path("drives"),
        1,
        (
            Part(bags.IMAGE, Role.CAMERA, "sensor_msgs/msg/Image, 100 messages, 25 Hz"),
            Part(bags.CMD, Role.NUMBERS, "geometry_msgs/msg/Twist", ("linear.x", "linear.y", "angular.z")),
            Part(bags.ODOM, Role.NUMBERS, "nav_msgs/msg/Odometry", ("linear.x", "linear.y", "angular.z")),
            Part(bags.WORDS, Role.TEXT, "std_msgs/msg/String"),
        ),
    ),
}


def axes(place, element, elements):
    units = (("m/s", "forward"), ("m/s", "left"), ("rad/s", "counter-clockwise"))
    return {
        axis: {place: "action", element: each, "unit": unit, "positive": positive}
        for axis, each, (unit, positive) in zip(("linear_x", "linear_y", "angular_z"), elements, units, strict=True)
    }


CONTRACT = {"limits": [0.6, 0.6, 1.5], "rate_hz": 10, "horizon": 8, "frame_rate_hz": 5}
FULL = {
    "lerobot": {
        "contract": CONTRACT,
        "camera": {"column": "images.front", "channel_order": "rgb"},
        "action": axes("column", "name", NUMBERS),
        "state": "from_action",
        "instruction": {"task": True},
    },
    "hdf5": {
        "contract": CONTRACT,
        "source_rate_hz": 5,
        "camera": {"dataset": "images", "channel_order": "bgr"},
        "action": axes("dataset", "index", (0, 1, 2)),
        "state": axes("dataset", "index", (2, 1, 0)),
        "instruction": {"dataset": "words"},
    },
    "bag": bags.mapping(),
}


def at(values, path):
    for key in path.split("."):
        values = values[key]
    return values


def put(values, path, value):
    *parents, last = path.split(".")
    for key in parents:
        values = values.setdefault(key, {})
    values[last] = value


def leaves(values, path=""):
    for key, value in values.items():
        full = f"{path}.{key}" if path else key
        yield full
        if isinstance(value, dict):
            yield from leaves(value, full)


@pytest.mark.parametrize("kind", FULL)
def test_a_full_mapping_is_taken(kind):
    mapping = ImportMapping.of(FULL[kind], CONTENTS[kind])
    assert mapping.contract.limits == (0.6, 0.6, 1.5)
    assert mapping.actions[2].factor == 1.0
    assert mapping.digest == ImportMapping.of(copy.deepcopy(FULL[kind]), CONTENTS[kind]).digest


@pytest.mark.parametrize("kind", FULL)
def test_whatever_is_left_out_is_asked_for_by_name(kind):
    for path in leaves(FULL[kind]):
        values = copy.deepcopy(FULL[kind])
        parent, _, key = path.rpartition(".")
        del (at(values, parent) if parent else values)[key]
        with pytest.raises(ConfigError) as caught:
            ImportMapping.of(values, CONTENTS[kind])
        assert (path if "instruction." not in path else "instruction") in str(caught.value)
        assert "`" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FULL)
def test_who_answers_what_is_asked_comes_to_the_end(kind):
    values, asked = {}, []
    while len(asked) < 60:
        try:
            ImportMapping.of(values, CONTENTS[kind])
            break
        except ConfigError as error:
            found = re.search(r"does not say ([\w.]+)|must say ([\w.]+)", str(error))
            asked.append(found[1] or found[2])
            answer = at(FULL[kind], asked[-1])
            put(values, asked[-1], {} if isinstance(answer, dict) and asked[-1] != "instruction" else answer)
    assert values == FULL[kind]


@pytest.mark.parametrize("kind", FULL)
def test_the_template_asks_every_question_and_answers_none(kind):
    values = yaml.safe_load(template(CONTENTS[kind]))
    assert set(values) == set(FULL[kind]) | ({"state_timeout_s"} if kind == "bag" else set())
    with pytest.raises(ConfigError, match=r"does not say contract\.limits"):
        ImportMapping.of(values, CONTENTS[kind])


@pytest.mark.parametrize("kind", FULL)
def test_an_unknown_key_is_named_with_the_nearest(kind):
    with pytest.raises(ConfigError, match=r"unknown key outsid; did you mean outside\?"):
        ImportMapping.of({**FULL[kind], "outsid": "clip"}, CONTENTS[kind])
    values = copy.deepcopy(FULL[kind])
    values["action"]["linear_x"]["units"] = "m/s"
    with pytest.raises(ConfigError, match=r"unknown key action.linear_x.units; did you mean action.linear_x.unit\?"):
        ImportMapping.of(values, CONTENTS[kind])


def test_what_is_missing_is_asked_for_with_what_the_source_has():
    values = copy.deepcopy(FULL["lerobot"])
    del values["action"]["linear_y"]
    with pytest.raises(ConfigError) as caught:
        ImportMapping.of(values, CONTENTS["lerobot"])
    assert str(caught.value) == (
        "the mapping does not say action.linear_y; drives has action (float32 3: x.vel, y.vel, theta.vel); "
        "add the line `action: {linear_y: {column: ..., name: ..., unit: m/s, positive: left}}` or, for an axis that "
        "the base does not have, `linear_y: zero` (--show prints what the source has and a template)"
    )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("camera.channel_order", "RGB", "camera.channel_order is 'RGB' in the mapping: write rgb or bgr"),
        ("camera.column", "images.rear", "images.rear does not exist; drives has images.front"),
        ("camera.column", "action", r"action cannot be used for that \(float32 3\); drives has images.front"),
        ("action.linear_x.name", "z.vel", "action.linear_x.name is 'z.vel' in the mapping: action has x.vel"),
        ("action.linear_x.index", 0, "must say action.linear_x.name or action.linear_x.index, one of them"),
        ("action.linear_x.unit", "deg/s", "action.linear_x.unit is 'deg/s' in the mapping: write m/s or none"),
        ("action.angular_z.unit", "m/s", "action.angular_z.unit is 'm/s' in the mapping: write rad/s or deg/s or none"),
        ("action.angular_z.unit", "none", "does not say action.angular_z.scale"),
        ("action.linear_x.scale", 0.5, "action.linear_x.scale goes with `unit: none` alone"),
        ("action.linear_y.positive", "forward", "action.linear_y.positive is 'forward' in the mapping: write left or"),
        ("action.linear_y", "none", "has 'none' under action.linear_y: write keys and values"),
        ("action", dict.fromkeys(("linear_x", "linear_y", "angular_z"), "zero"), "all axes of action are zero"),
        ("contract.limits", [0.6, 0.6], "contract.limits is .* write three numbers"),
        ("contract.limits", [0.6, 0.6, -1], "limits must be positive"),
        ("contract.rate_hz", "fast", "contract.rate_hz is 'fast' in the mapping: write a number above zero"),
        ("contract.horizon", 2.5, "contract.horizon is 2.5 in the mapping: write a whole number"),
        ("every", 0, "every is 0 in the mapping: write a whole number of at least 1"),
        ("outside", "ignore", "outside is 'ignore' in the mapping: write error or clip"),
        ("instruction", {"task": True, "text": "stop"}, "instruction needs one of task, text"),
        ("instruction", {"topic": "/words"}, "instruction needs one of task, text"),
        ("instruction", {"task": True, "texts": ["a"]}, "instruction.texts needs `what: sentence`"),
        (
            "extras",
            {"import.key": "x"},
            "extras.import.key cannot be 'x': write a plain value under a name of your own",
        ),
        ("extras", "operator", "extras is 'operator'"),
    ],
)
def test_a_wrong_answer_is_named_with_what_may_be_written(path, value, said):
    values = copy.deepcopy(FULL["lerobot"])
    put(values, path, value)
    with pytest.raises(ConfigError, match=said):
        ImportMapping.of(values, CONTENTS["lerobot"])


def test_a_scale_and_a_sign_make_the_factor():
    values = copy.deepcopy(FULL["lerobot"])
    values["action"]["linear_y"] |= {"unit": "none", "scale": 0.26, "positive": "right"}
    values["action"]["linear_x"] = "zero"
    mapping = ImportMapping.of(values, CONTENTS["lerobot"])
    assert mapping.actions[:2] == (None, AxisSource("action", 1, -0.26))


def test_a_file_is_read_and_overridden(tmp_path):
    path = tmp_path / "mapping.yaml"
    path.write_text("contract: {horizon: 8, rate_hz: 10}\nevery: 2\n", encoding="utf-8")
    values = read_mapping(path, ["contract.horizon=4", "camera.channel_order=bgr", "contract.limits=[1, 1, 2]"])
    assert values == {
        "contract": {"horizon": 4, "rate_hz": 10, "limits": [1, 1, 2]},
        "every": 2,
        "camera": {"channel_order": "bgr"},
    }
    assert read_mapping(None, []) == {}


@pytest.mark.parametrize("override", ["horizon", "=4", "contract.=4", "every.rate=5", "every=[1"])
def test_an_override_that_cannot_be_is_named(tmp_path, override):
    path = tmp_path / "mapping.yaml"
    path.write_text("every: 2\n")
    with pytest.raises(ConfigError):
        read_mapping(path, [override])


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mapping\.yaml"):
        read_mapping(path, [])
    with pytest.raises(ConfigError, match="cannot read the mapping"):
        read_mapping(tmp_path / "nowhere.yaml", [])
