import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.robot.bases import feetech
from mobile_vla.robot.bases.feetech import Fault, Status, StatusReader, packet


def status(servo, data=b"", error=0):
    """As a servo answers: the error stands where a question has its instruction."""
    return packet(servo, error, data)


statuses = st.tuples(st.integers(0, 253), st.binary(max_size=20), st.integers(0, 63))


def test_packets_are_those_of_the_makers_examples():
    """Ping of servo 1, and a read of two bytes from 56 (Feetech, "communication protocol")."""
    assert packet(1, feetech.PING) == bytes.fromhex("FF FF 01 02 01 FB")
    assert packet(1, feetech.READ, bytes((56, 2))) == bytes.fromhex("FF FF 01 04 02 38 02 BE")


def test_a_sync_write_says_size_and_each_servo():
    message = feetech.sync_write(46, {7: b"\x01\x02", 9: b"\x03\x04"})
    assert message[2:-1] == bytes((0xFE, 10, 0x83, 46, 2, 7, 1, 2, 9, 3, 4))


@given(st.integers(-32767, 32767))
def test_sign_and_magnitude_come_back(value):
    data = feetech.signed_bytes(value)
    assert feetech.signed_value(data) == value
    assert (data[1] >> 7) == (value < 0)


@pytest.mark.parametrize("value", [32768, -32768])
def test_what_does_not_fit_is_refused(value):
    with pytest.raises(ValueError, match="does not fit"):
        feetech.signed_bytes(value)


def test_too_long_a_packet_is_refused():
    assert packet(1, 3, bytes(248))
    with pytest.raises(ValueError, match="do not fit"):
        packet(1, 3, bytes(249))


@given(st.lists(statuses, max_size=8), st.lists(st.integers(1, 30), min_size=1))
def test_answers_are_found_however_they_are_cut(answers, cuts):
    stream = b"".join(status(*answer) for answer in answers)
    reader, found, k = StatusReader(), [], 0
    while stream:
        size = cuts[k % len(cuts)]
        found += reader.feed(stream[:size])
        stream, k = stream[size:], k + 1
    assert found == [Status(servo, error, data) for servo, data, error in answers]


@given(st.binary(max_size=60).filter(lambda noise: b"\xff" not in noise), statuses)
def test_noise_before_an_answer_is_skipped(noise, answer):
    servo, data, error = answer
    assert StatusReader().feed(noise + status(*answer)) == [Status(servo, error, data)]


@given(statuses, st.integers(0, 100), st.integers(1, 255))
def test_a_changed_byte_is_never_believed(answer, where, change):
    good = status(*answer)
    broken = bytearray(good)
    broken[where % len(good)] ^= change
    servo, data, error = answer
    assert Status(servo, error, data) not in StatusReader().feed(bytes(broken))


@given(st.binary(max_size=2000))
def test_no_stream_is_an_error_nor_kept_for_ever(noise):
    reader = StatusReader()
    reader.feed(noise)
    assert len(reader._buffer) < 260


def test_a_third_ff_is_the_beginning_of_the_true_header():
    assert StatusReader().feed(b"\xff" + status(7, b"ab")) == [Status(7, 0, b"ab")]


def test_error_bits_have_names():
    assert Status(7, 0b100101, b"").faults == (Fault.VOLTAGE, Fault.TEMPERATURE, Fault.OVERLOAD)
