from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.robot.bases.line_protocol import (
    Complaint,
    Identity,
    LineReader,
    TwistReport,
    WheelReport,
    checksum,
    line,
    parsed,
)

from .devices import crc

int32 = st.integers(-(2**31), 2**31 - 1)
REPORT = TwistReport((1, -2, 3), (4, 5, -6), 70, 8)


@given(st.binary(max_size=200))
def test_the_checksum_is_the_one_of_the_document(data):
    assert checksum(b"123456789") == 0x29B1
    assert checksum(data) == crc(data)


@given(st.tuples(*[int32] * 6), st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_what_a_base_says_is_read(numbers, stamp, sequence):
    text = line("O", *numbers, stamp, sequence)
    assert LineReader().feed(text) == [TwistReport(numbers[:3], numbers[3:], stamp, sequence)]


def test_every_kind_of_line_is_read():
    assert parsed(line("I", 1, "wheels", 4, 400, "mine").strip()) == Identity(1, "wheels", 4, 400, "mine")
    assert parsed(line("M", 1, 2, 3, 4, 50, 6).strip() + b"\r") == WheelReport((1, 2), (3, 4), 50, 6)
    assert parsed(line("E", "fault", "motor", 2).strip()) == Complaint("fault", "motor 2")
    assert Complaint("estop", "").stops
    assert not Complaint("syntax", "").stops


@given(st.integers(0, 200), st.integers(0, 7))
def test_a_changed_bit_is_never_believed(where, bit):
    good = line("O", 1, -2, 3, 4, 5, -6, 70, 8)
    broken = bytearray(good)
    broken[where % len(broken)] ^= 1 << bit
    reports = LineReader().feed(bytes(broken) + line("O", 0, 0, 0, 0, 0, 0, 0, 0))
    assert REPORT not in reports or bytes(broken) == good or bytes(broken).upper() == good.upper()
    assert all(report in (REPORT, TwistReport((0, 0, 0), (0, 0, 0), 0, 0)) for report in reports)


@settings(derandomize=True)  # a CRC of 16 bits passes one damaged line in 65536
@given(st.lists(st.integers(0, 10_000), max_size=30), st.randoms(use_true_random=False))
def test_lost_bytes_cost_the_lines_that_they_were_of(lost, random):
    stream = b"".join(line("O", k, 0, 0, 0, 0, 0, k, k) for k in range(40))
    lost = {each % len(stream) for each in lost}
    left = bytes(byte for k, byte in enumerate(stream) if k not in lost)
    reader, found = LineReader(), []
    while left:
        size = random.randint(1, 50)
        found += reader.feed(left[:size])
        left = left[size:]
    assert all(report.velocity[0] == report.stamp_ms == report.sequence for report in found)
    assert len(found) >= 40 - 2 * len(lost)


@given(st.binary(max_size=300))
def test_noise_is_never_an_error_and_never_kept_for_long(noise):
    reader = LineReader()
    reader.feed(noise)
    reader.feed(b"x" * 5000)
    assert len(reader._buffer) <= 160
    assert reader.feed(b"\n" + line("O", 1, -2, 3, 4, 5, -6, 70, 8)) == [REPORT]


def test_lines_of_the_wrong_shape_are_skipped():
    for words in (["O", 1], ["M", 1, 2, 3], ["I", "x", "y", 1, 2, "z"], ["O", *[2**40] * 8], ["X", 1], ["E"]):
        assert LineReader().feed(line(*words)) == []
