"""One bag: pictures of every encoding, stamps of either byte order, and files that are damaged or foreign."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcap.writer import Writer as McapWriter

from mobile_vla.core import DatasetError, Twist
from mobile_vla.data.imports.bag_file import (
    COMPRESSED,
    ENCODINGS,
    IMAGE,
    ODOMETRY,
    TWIST,
    BagFile,
    Raw,
    bags_of,
    header_stamp,
    numbers_of,
    pixels_of,
)
from mobile_vla.ros import messages as m

from . import bags

COLOURS = np.array([[[10, 120, 240], [250, 5, 60]], [[1, 2, 3], [90, 80, 70]]], np.uint8)


def image(encoding, padding=0):
    """COLOURS in ``encoding``, each row with some bytes after it."""
    channels, order = ENCODINGS[encoding]
    pixels = COLOURS[:, :, ::-1] if order == "bgr" else COLOURS
    if channels == 4:
        pixels = np.concatenate([pixels, np.full((2, 2, 1), 255, np.uint8)], axis=2)
    if channels == 1:
        pixels = pixels[:, :, :1]
    rows = np.concatenate([pixels.reshape(2, -1), np.full((2, padding), 7, np.uint8)], axis=1)
    data = np.ascontiguousarray(rows).reshape(-1)
    message = m.ros.sensor_msgs__msg__Image(m.header(5), 2, 2, encoding, 0, rows.shape[1], data)
    return Raw("/cam", IMAGE, 0, 5, m.serialise(IMAGE, message))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
def test_the_encoding_of_a_message_can_be_believed(encoding, padding):
    np.testing.assert_array_equal(pixels_of(image(encoding, padding), "encoding"), COLOURS)


@pytest.mark.parametrize("encoding", ["rgb8", "8UC3", "8UC4"])
def test_the_mapping_goes_before_the_encoding(encoding):
    np.testing.assert_array_equal(pixels_of(image(encoding), "rgb"), COLOURS)
    np.testing.assert_array_equal(pixels_of(image(encoding), "bgr"), COLOURS[:, :, ::-1])


def test_grey_is_the_same_in_every_channel():
    np.testing.assert_array_equal(pixels_of(image("mono8"), "encoding"), np.repeat(COLOURS[:, :, :1], 3, axis=2))


def test_an_encoding_without_an_order_or_unknown_is_refused():
    with pytest.raises(ValueError, match=r"names no order: write camera\.channel_order"):
        pixels_of(image("8UC3"), "encoding")
    message = m.ros.sensor_msgs__msg__Image(m.header(0), 1, 1, "16UC1", 0, 2, np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match="its encoding is '16UC1'"):
        pixels_of(Raw("/cam", IMAGE, 0, 0, m.serialise(IMAGE, message)), "rgb")


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_picture_with_too_few_or_too_many_bytes_is_refused(size):
    message = m.ros.sensor_msgs__msg__Image(m.header(0), 2, 2, "rgb8", 0, 6, np.zeros(size, np.uint8))
    with pytest.raises(ValueError, match="2x2 rgb8 in rows of 6 bytes cannot have"):
        pixels_of(Raw("/cam", IMAGE, 0, 0, m.serialise(IMAGE, message)), "rgb")


@given(st.binary(max_size=80))
def test_bytes_that_are_no_picture_are_refused_with_a_sentence(data):
    for kind in (IMAGE, COMPRESSED):
        with pytest.raises(ValueError):
            pixels_of(Raw("/cam", kind, 0, 0, b"\x00\x01\x00\x00" + data), "encoding")


@given(stamp=st.integers(0, (1 << 31) * 10**9 - 1), little=st.booleans())
def test_a_stamp_is_read_from_the_bytes_of_either_order(stamp, little):
    message = m.odometry(Twist(1.0, 2.0, 3.0), (0.0, 0.0, 0.0), stamp)
    data = bytes(m.TYPES.serialize_cdr(message, ODOMETRY, little_endian=little))
    assert header_stamp(data) == stamp
    assert numbers_of(Raw("/odom", ODOMETRY, 0, stamp, data)) == [1.0, 2.0, 0.0, 0.0, 0.0, 3.0]


def test_a_bag_that_was_cut_or_never_finished_is_named(tmp_path):
    path = bags.write_by_mcap(tmp_path / "drive", bags.drive(seconds=1.0))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"drive\.mcap cannot be read .*ros2 bag reindex"):
        BagFile(path)
    folder = bags.write_by_sqlite(tmp_path / "folder", bags.drive(seconds=1.0))
    (database,) = folder.glob("*.db3")
    database.write_bytes(database.read_bytes()[:5000])
    with pytest.raises(DatasetError, match="folder cannot be read"), BagFile(folder) as bag:
        list(bag.messages([bags.CMD]))


def test_a_message_without_room_for_its_stamp_is_refused(tmp_path):
    with (tmp_path / "short.mcap").open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros2", library="test")
        definition = m.TYPES.generate_msgdef(ODOMETRY, ros_version=2)[0].encode()
        channel = writer.register_channel("/odom", "cdr", writer.register_schema(ODOMETRY, "ros2msg", definition))
        writer.add_message(channel, 1, b"\x00\x01\x00\x00\x01", 1)
        writer.finish()
    with (
        BagFile(tmp_path / "short.mcap") as bag,
        pytest.raises(DatasetError, match=r"short\.mcap cannot be read"),
    ):
        list(bag.messages(["/odom"]))


def test_a_type_with_other_fields_than_ours_is_not_used(tmp_path):
    with (tmp_path / "odd.mcap").open("wb") as file:
        writer = McapWriter(file)
        writer.start(profile="ros2", library="test")
        channel = writer.register_channel(
            "/cmd_vel", "cdr", writer.register_schema(TWIST, "ros2msg", b"float64 forward\nfloat64 turn\n")
        )
        writer.add_message(channel, 1, b"\x00\x01\x00\x00" + bytes(16), 1)
        writer.finish()
    with BagFile(tmp_path / "odd.mcap") as bag:
        (part,) = bag.parts()
        assert part.role.value == "not used"
        with pytest.raises(DatasetError, match="no topic /cmd_vel that can be imported"):
            list(bag.messages(["/cmd_vel"]))


def test_bags_are_found_in_a_folder(tmp_path):
    with pytest.raises(DatasetError, match="holds no bag"):
        bags_of(tmp_path)
    lone = bags.write_by_mcap(tmp_path / "lone", bags.drive(seconds=0.2))
    folder = bags.write_by_rosbags(tmp_path / "folder", bags.drive(seconds=0.2))
    assert bags_of(tmp_path) == [folder, lone]
    assert bags_of(folder) == [folder]
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match="is no bag"):
        bags_of(tmp_path / "notes.txt")
