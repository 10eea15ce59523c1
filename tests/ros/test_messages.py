"""Messages: what goes in comes out, to the bit, and what is no message is refused."""

import contextlib
import math
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mobile_vla.core import ActionChunk, Frame, Grounding, Status, Twist
from mobile_vla.ros import messages, topics
from mobile_vla.ros.messages import Level, TransportError

STAMPS = st.integers(0, (1 << 31) * 10**9 - 1)
ANY = st.floats()
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CHUNK = "trajectory_msgs/msg/MultiDOFJointTrajectory"
PICTURES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))


def wire(type_name, message):
    return messages.deserialise(type_name, messages.serialise(type_name, message))


def frame(pixels):
    return Frame(pixels, 5, "monotonic", "front", 7)


def bits(value):
    return struct.pack("<d", value)


def same_twist(one, two):
    return [bits(v) for v in (one.vx, one.vy, one.wz)] == [bits(v) for v in (two.vx, two.vy, two.wz)]


@given(ANY, ANY, ANY, STAMPS)
def test_twists_come_back_to_the_bit(vx, vy, wz, stamp):
    velocity = Twist(vx, vy, wz)
    plain = wire("geometry_msgs/msg/Twist", messages.twist(velocity))
    assert same_twist(messages.twist_from_message(plain), velocity)
    assert (plain.linear.z, plain.angular.x, plain.angular.y) == (0.0, 0.0, 0.0)
    stamped = wire("geometry_msgs/msg/TwistStamped", messages.twist_stamped(velocity, stamp))
    assert same_twist(messages.twist_from_message(stamped), velocity)
    assert messages.stamp_ns(stamped) == stamp
    assert stamped.header.frame_id == "base_link"


@given(FINITE, FINITE, st.floats(-3.14, 3.14), FINITE, STAMPS)
def test_odometry_comes_back(x, y, yaw, speed, stamp):
    velocity = Twist(speed, -speed, 0.5)
    message = wire(topics.ODOM.type, messages.odometry(velocity, (x, y, yaw), stamp))
    assert same_twist(messages.twist_from_message(message), velocity)
    back = messages.pose_from_odometry(message)
    assert back[:2] == (x, y)
    assert back[2] == pytest.approx(yaw, abs=1e-9)
    assert (message.header.frame_id, message.child_frame_id, messages.stamp_ns(message)) == ("odom", "base_link", stamp)


@given(PICTURES, STAMPS)
def test_images_come_back_whole(pixels, stamp):
    message = wire(topics.IMAGE.type, messages.image_message(frame(pixels), stamp, "camera"))
    back = messages.frame_from_image(message, capture_ns=9, clock="monotonic", camera="front", sequence=1)
    np.testing.assert_array_equal(back.pixels, pixels)
    assert (back.capture_ns, back.clock, back.camera, back.sequence) == (9, "monotonic", "front", 1)
    assert (message.encoding, message.step, messages.stamp_ns(message)) == ("rgb8", 3 * pixels.shape[1], stamp)
    back.pixels[:] = 0  # they belong to the frame: not a view of the message


@given(PICTURES, st.integers(0, 5))
def test_other_encodings_and_padded_rows_are_read(pixels, padding):
    height, width, _ = pixels.shape
    message = messages.image_message(frame(pixels), 0, "camera")
    message.encoding, message.step = "bgr8", 3 * width + padding
    rows = np.pad(pixels[:, :, ::-1].reshape(height, -1), ((0, 0), (0, padding)))
    message.data = rows.reshape(-1)
    np.testing.assert_array_equal(messages.pixels_from_image(wire(topics.IMAGE.type, message)), pixels)
    message.encoding, message.step, message.data = "mono8", width, np.ascontiguousarray(pixels[:, :, 0]).reshape(-1)
    grey = messages.pixels_from_image(wire(topics.IMAGE.type, message))
    np.testing.assert_array_equal(grey, np.repeat(pixels[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("encoding", "bayer_rggb8", "encoded as 'bayer_rggb8'"),
        ("height", 5, "cannot have"),
        ("width", 0, "cannot have"),
        ("step", 3, "cannot have"),
    ],
)
def test_an_image_that_contradicts_itself_is_refused(field, value, sentence):
    message = messages.image_message(frame(np.zeros((4, 4, 3), np.uint8)), 0, "camera")
    setattr(message, field, value)
    with pytest.raises(TransportError, match=sentence):
        messages.pixels_from_image(message)


def test_a_jpeg_comes_back_nearly_and_a_png_exactly():
    rows, columns = np.mgrid[0:48, 0:64]
    pixels = np.stack([rows * 4, columns * 3, rows + columns], axis=2).astype(np.uint8)
    message = wire(topics.IMAGE_COMPRESSED.type, messages.compressed_message(frame(pixels), 3, "camera", quality=95))
    back = messages.frame_from_image(message, capture_ns=9, clock="monotonic", camera="front", sequence=1)
    assert message.format == "jpeg"
    assert np.abs(back.pixels.astype(int) - pixels).max() < 24
    smaller = messages.compressed_message(frame(pixels), 3, "camera", quality=20)
    assert len(smaller.data) < len(message.data)
    file = BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    message.data = np.frombuffer(file.getvalue(), np.uint8)
    np.testing.assert_array_equal(messages.pixels_from_compressed(message), pixels)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff\xe0junk", b"\x89PNG\r\n\x1a\njunk"])
def test_data_that_is_no_picture_is_refused(data):
    message = messages.compressed_message(frame(np.zeros((4, 4, 3), np.uint8)), 0, "camera")
    message.data = np.frombuffer(data, np.uint8)
    with pytest.raises(TransportError, match="compressed image"):
        messages.pixels_from_compressed(message)


def test_a_picture_that_is_cut_off_is_refused():
    file = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, format="PNG")
    message = messages.compressed_message(frame(np.zeros((4, 4, 3), np.uint8)), 0, "camera")
    message.data = np.frombuffer(file.getvalue()[:2000], np.uint8)
    with pytest.raises(TransportError, match="damaged"):
        messages.pixels_from_compressed(message)


def test_a_small_file_that_claims_an_enormous_picture_is_refused_unread():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    message = messages.compressed_message(frame(np.zeros((4, 4, 3), np.uint8)), 0, "camera")
    message.data = np.frombuffer(png, np.uint8)
    with pytest.raises(TransportError):
        messages.pixels_from_compressed(message)


def test_camera_info_says_whether_the_camera_was_calibrated():
    plain = wire(topics.CAMERA_INFO.type, messages.camera_info(640, 480, 5, "camera"))
    assert (plain.width, plain.height, plain.k[0], plain.distortion_model) == (640, 480, 0.0, "")
    matrix = [500.0, 0.0, 320.0, 0.0, 501.0, 240.0, 0.0, 0.0, 1.0]
    known = wire(topics.CAMERA_INFO.type, messages.camera_info(640, 480, 5, "camera", matrix, [0.1, 0, 0, 0, 0]))
    assert list(known.k) == matrix
    assert list(known.p) == [500.0, 0.0, 320.0, 0.0, 0.0, 501.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert (list(known.d), known.distortion_model) == ([0.1, 0, 0, 0, 0], "plumb_bob")
    with pytest.raises(TransportError, match="nine numbers"):
        messages.camera_info(640, 480, 5, "camera", [1.0])


@given(st.lists(st.floats(-1, 1, width=32), max_size=8), st.lists(st.integers(0, 1), max_size=12), STAMPS)
def test_a_gamepad_comes_back(axes, buttons, stamp):
    message = wire(topics.JOY.type, messages.joy(axes, buttons, stamp))
    assert (list(message.axes), list(message.buttons), messages.stamp_ns(message)) == (axes, buttons, stamp)


@given(TEXT, st.booleans())
def test_small_ones_come_back(text, value):
    assert wire("std_msgs/msg/String", messages.string(text)).data == text
    assert wire("std_msgs/msg/Bool", messages.boolean(value)).data is value
    wire("std_msgs/msg/Empty", messages.empty())


ROWS = st.integers(1, 20).flatmap(lambda rows: hnp.arrays(np.float32, (rows, 3), elements=st.floats(width=32)))


@given(ROWS, STAMPS, st.floats(0.5, 1000.0))
def test_chunks_come_back_to_the_bit(velocities, stamp, rate_hz):
    chunk = ActionChunk(velocities, 123, rate_hz)
    back = messages.chunk_from_message(wire(CHUNK, messages.chunk_message(chunk, stamp)))
    assert back.velocities.dtype == np.float32
    finite = ~np.isnan(velocities)
    np.testing.assert_array_equal(back.velocities[finite].view(np.uint32), velocities[finite].view(np.uint32))
    assert np.isnan(back.velocities[~finite]).all()
    assert (back.stamp_ns, back.period_ns) == (stamp, chunk.period_ns)


@pytest.mark.parametrize("rate_hz", [5.0, 10.0, 30.0, 50.0, 60.0])
def test_the_usual_rates_come_back_exactly(rate_hz):
    chunk = ActionChunk(np.zeros((8, 3), np.float32), 0, rate_hz)
    assert messages.chunk_from_message(messages.chunk_message(chunk, 0)).rate_hz == rate_hz


def _chunk():
    return messages.chunk_message(ActionChunk(np.ones((4, 3), np.float32), 0, 10.0), 0)


def _uneven(message):
    message.points[2].time_from_start.nanosec += 1


def _no_end(message):
    message.points.pop()


def _no_rows(message):
    del message.points[1:]


def _endless(message):
    message.points = [messages._point(number, message.points[0].velocities) for number in range(2000)]


def _no_velocity(message):
    message.points[1].velocities = []


def _all_at_once(message):
    for point in message.points:
        point.time_from_start.nanosec = 0


@pytest.mark.parametrize("spoil", [_uneven, _no_end, _no_rows, _endless, _no_velocity, _all_at_once])
def test_a_trajectory_that_is_no_chunk_is_refused(spoil):
    message = _chunk()
    spoil(message)
    with pytest.raises(TransportError, match="chunk"):
        messages.chunk_from_message(message)


def test_a_velocity_too_great_for_32_bits_becomes_infinite_and_is_left_to_safety():
    message = _chunk()
    message.points[0].velocities[0].linear.x = 1e300
    assert math.isinf(messages.chunk_from_message(message).velocities[0, 0])


GROUNDINGS = st.builds(
    Grounding, st.floats(0, 1), FINITE, ANY, st.tuples(FINITE, FINITE, FINITE, FINITE), st.sampled_from(Status)
)


@given(GROUNDINGS, TEXT, FINITE, STAMPS)
def test_beliefs_come_back_to_the_bit(belief, text, spent_ms, stamp):
    message = wire(topics.BELIEF.type, messages.belief_message(belief, text, spent_ms, stamp))
    back, words, milliseconds = messages.belief_from_message(message)
    assert repr(back) == repr(belief)
    assert (words, repr(milliseconds), messages.stamp_ns(message)) == (text, repr(spent_ms), stamp)


@pytest.mark.parametrize("key", ["visibility", "box", "instruction", None])
def test_an_array_that_is_no_belief_is_refused(key):
    belief = Grounding(0.5, 0.0, 1.0, (0.0, 0.0, 1.0, 1.0), Status.DRIVING)
    message = messages.belief_message(belief, "go", 1.0, 0)
    if key is None:
        message.status[0].message = "dancing"
    else:
        message.status[0].values = [pair for pair in message.status[0].values if pair.key != key]
    with pytest.raises(TransportError, match="a belief cannot be read"):
        messages.belief_from_message(message)
    with pytest.raises(TransportError, match="is not a belief"):
        messages.belief_from_message(messages.diagnostics(Level.OK, "control", "", {}, 0))


@given(st.sampled_from(Level), TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=5), STAMPS)
def test_diagnostics_come_back(level, name, sentence, values, stamp):
    message = wire(topics.DIAGNOSTICS.type, messages.diagnostics(level, name, sentence, values, stamp))
    (found,) = messages.diagnoses(message)
    assert (found.level, found.name, found.message, found.values) == (level, name, sentence, values)
    assert messages.stamp_ns(message) == stamp


def test_a_scan_comes_back_with_what_lies_outside_its_limits_marked():
    ranges = [0.05, 0.5, 3.0, math.inf, -math.inf, math.nan]
    message = messages.scan_message(
        ranges, angle_min_rad=-1.0, angle_step_rad=0.5, range_min_m=0.1, range_max_m=2.0, stamp_ns=5, frame_id="laser"
    )
    scan = messages.scan_from_message(wire(topics.SCAN.type, message))
    np.testing.assert_allclose(scan.angles_rad, [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(scan.ranges_m, [math.nan, 0.5, math.nan, math.inf, -math.inf, math.nan])
    assert (scan.frame_id, scan.stamp_ns) == ("laser", 5)
    assert message.angle_max == 1.5


@pytest.mark.parametrize("stamp", [-1, (1 << 31) * 10**9])
def test_a_stamp_that_ros_cannot_say_is_refused(stamp):
    with pytest.raises(TransportError, match="is no ROS time"):
        messages.time_message(stamp)


def test_a_type_that_nobody_knows_is_refused():
    for action in (
        lambda: messages.serialise("a/msg/B", messages.empty()),
        lambda: messages.deserialise("a/msg/B", b"\0\1\0\0"),
        lambda: messages.type_hash("a/msg/B"),
    ):
        with pytest.raises(TransportError, match="'a/msg/B' is not a message type"):
            action()


@pytest.mark.parametrize("broken", [messages.empty(), messages.string(5), messages.string("\ud800"), None])
def test_a_message_with_a_wrong_field_is_refused(broken):
    with pytest.raises(TransportError, match="cannot be written as std_msgs/msg/String"):
        messages.serialise("std_msgs/msg/String", broken)


SAMPLES = {
    topics.IMAGE.type: messages.image_message(frame(np.zeros((2, 2, 3), np.uint8)), 0, "camera"),
    CHUNK: _chunk(),
    topics.ODOM.type: messages.odometry(Twist(1, 2, 3), (1, 2, 3), 4),
    topics.DIAGNOSTICS.type: messages.diagnostics(Level.WARN, "a", "b", {"c": "d"}, 5),
    topics.JOY.type: messages.joy([0.5], [1], 6),
}


@settings(max_examples=300)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_bytes_give_a_message_or_our_error_and_nothing_else(type_name, data):
    whole = bytearray(messages.serialise(type_name, SAMPLES[type_name]))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    readers = {
        topics.IMAGE.type: messages.pixels_from_image,
        CHUNK: messages.chunk_from_message,
        topics.ODOM.type: messages.pose_from_odometry,
        topics.DIAGNOSTICS.type: messages.diagnoses,
        topics.JOY.type: messages.stamp_ns,
    }
    with contextlib.suppress(TransportError):
        readers[type_name](messages.deserialise(type_name, cut))


@given(st.sampled_from(sorted({topic.type for topic in topics.TOPICS})), st.binary(max_size=200))
def test_any_bytes_give_a_message_or_our_error(type_name, data):
    with contextlib.suppress(TransportError):
        messages.deserialise(type_name, b"\0\1\0\0" + data)


def test_bytes_in_the_other_byte_order_are_read():
    message = messages.string("hello")
    big = bytes(messages.TYPES.serialize_cdr(message, "std_msgs/msg/String", little_endian=False))
    assert messages.deserialise("std_msgs/msg/String", big).data == "hello"
