"""What the simulated device of test_usb.py cannot show: the real system calls, and the sentences for their errors."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from mobile_vla.core import CameraError
from mobile_vla.robot.cameras.v4l2 import Kernel, VideoDevice, explain

from . import simulated_v4l2 as sim

HERE = Path("/dev/video-simulated")


def test_the_kernel_maps_memory_that_both_sides_see():
    kernel = Kernel()
    descriptor = os.memfd_create("shared")
    os.ftruncate(descriptor, 2 * mmap.PAGESIZE)
    with kernel.map(descriptor, 100, mmap.PAGESIZE) as mapped:
        os.pwrite(descriptor, b"picture", mmap.PAGESIZE)
        assert mapped[:7] == b"picture"
    kernel.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_kernel_waits_until_there_is_something_to_fetch():
    kernel = Kernel()
    reader, writer = os.pipe()
    assert not kernel.wait(reader, 0.01)
    os.write(writer, b"x")
    assert kernel.wait(reader, 10.0)
    os.close(reader)
    os.close(writer)


def test_the_kernel_opens_without_blocking(tmp_path):
    os.mkfifo(tmp_path / "device")
    descriptor = Kernel().open(tmp_path / "device")
    assert not os.get_blocking(descriptor)
    assert not os.get_inheritable(descriptor)
    Kernel().close(descriptor)


def test_a_driver_that_reports_what_it_does_not_have_is_asked_again_later():
    hardware = sim.SimulatedCamera()
    kernel = sim.SimulatedKernel(hardware)
    device = VideoDevice(HERE, kernel)
    device.start(96, 64, 50.0, ("MJPG",))
    kernel.wait = lambda descriptor, timeout_s: True
    pictures = [device.next(0.0) for _ in range(200)]
    assert None in pictures
    assert any(pictures)
    device.close()
    device.close()
    assert not kernel.files


def test_a_device_that_was_not_started_gives_nothing():
    device = VideoDevice(HERE, sim.SimulatedKernel(sim.SimulatedCamera()))
    with pytest.raises(CameraError, match="is closed"):
        device.next(0.0)
    device.close()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errno.ENOENT, "there is no camera /dev/video-simulated: "),
        (errno.ENXIO, "there is no camera"),
        (errno.EBUSY, "fuser -v /dev/video-simulated"),
        (errno.EACCES, "usermod -aG video"),
        (errno.EPERM, "usermod -aG video"),
        (errno.ENODEV, "plug it in again"),
        (errno.EIO, "plug it in again"),
        (errno.EPROTO, "plug it in again"),
        (errno.ENOSPC, "use another port"),
        (errno.ENOTTY, "does not answer as a camera does"),
        (errno.EINVAL, "does not answer as a camera does"),
        (errno.ENOMEM, "Cannot allocate memory; plug it in again, and see dmesg"),
    ],
)
def test_each_refusal_names_the_device_and_the_remedy(error, remedy):
    sentence = explain(OSError(error, os.strerror(error)), HERE)
    assert str(HERE) in sentence
    assert remedy in sentence
