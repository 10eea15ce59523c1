import struct
import uuid

import can
import pytest

from mobile_vla.core import BaseError
from mobile_vla.robot.bases import can_bus
from mobile_vla.robot.bases.can_bus import CanBus, can_fault, kernel_frame


def interface(folder, name, kind="280", flags="0x40c1"):
    device = folder / name
    device.mkdir()
    (device / "type").write_text(f"{kind}\n")
    (device / "flags").write_text(f"{flags}\n")


def test_an_interface_that_is_up_is_sound(tmp_path):
    interface(tmp_path, "can0")
    assert can_fault("can0", False, tmp_path) is None


def test_one_that_is_down_comes_with_the_line_that_brings_it_up(tmp_path):
    interface(tmp_path, "can0", flags="0x40c0")
    assert "sudo ip link set can0 up type can bitrate 500000`" in can_fault("can0", False, tmp_path)
    assert "dbitrate 2000000 fd on`" in can_fault("can0", True, tmp_path)


def test_one_that_is_not_there_names_those_that_are(tmp_path):
    interface(tmp_path, "lo", kind="772")
    assert "no CAN interface is here" in can_fault("can0", False, tmp_path)
    interface(tmp_path, "can1")
    assert can_fault("can0", False, tmp_path).endswith("there is can1")
    assert "is no CAN interface" in can_fault("lo", False, tmp_path)


def test_this_machine_is_asked_before_a_socket_is_opened():
    with pytest.raises(BaseError, match="there is no CAN interface nocan7"):
        CanBus("socketcan", "nocan7", False)


@pytest.mark.parametrize("is_fd", [False, True])
def test_a_frame_for_the_kernel_is_laid_out_as_in_linux_can_h(is_fd):
    message = can.Message(arbitration_id=0x10, data=b"\x07abc", is_extended_id=False, is_fd=is_fd)
    frame = kernel_frame(message)
    assert len(frame) == (72 if is_fd else 16)
    assert struct.unpack("=IB", frame[:5]) == (0x10, 4)
    assert frame[8:12] == b"\x07abc"
    assert not any(frame[5:8] + frame[12:])


def test_a_bus_that_is_closed_says_so_and_closes_twice():
    bus = CanBus("virtual", "test_can_bus", False)
    bus.close()
    bus.close()
    with pytest.raises(BaseError, match="takes no frame"):
        bus.send(can.Message(arbitration_id=1))


@pytest.mark.parametrize(
    ("code", "words"),
    [(105, "check the power of the base"), (100, "went down"), (19, "plug the CAN adapter in")],
)
def test_why_a_frame_was_not_sent_is_said(code, words):
    from mobile_vla.robot.bases.can_bus import _why_not_sent

    assert words in _why_not_sent("can0", can.CanOperationError("no", code))


@pytest.fixture
def interface_that_is_up(monkeypatch):
    """A name for a CAN interface that is sound; what is opened behind it is a bus of python-can's own."""
    open_bus = can.Bus
    monkeypatch.setattr(can_bus, "can_fault", lambda channel, fd: None)
    monkeypatch.setattr(can, "Bus", lambda interface, channel, fd: open_bus(interface="virtual", channel=channel))
    return f"can_{uuid.uuid4().hex[:8]}"


def test_an_interface_is_driven_by_one_at_a_time(interface_that_is_up):
    first = CanBus("socketcan", interface_that_is_up, False)
    with pytest.raises(BaseError, match=f"{interface_that_is_up} is driven by this process already"):
        CanBus("socketcan", interface_that_is_up, False)
    first.close()
    CanBus("socketcan", interface_that_is_up, False).close()


def test_an_interface_that_could_not_be_opened_is_free_again(interface_that_is_up, monkeypatch):
    def fail(**_):
        raise OSError("no")

    with monkeypatch.context() as patched:
        patched.setattr(can, "Bus", fail)
        with pytest.raises(BaseError, match="cannot be opened"):
            CanBus("socketcan", interface_that_is_up, False)
    CanBus("socketcan", interface_that_is_up, False).close()
