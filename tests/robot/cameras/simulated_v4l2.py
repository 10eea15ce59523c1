"""A USB camera behind the kernel's ioctl interface, as a 64-bit Linux lays it out.

Offsets, sizes and numbers below were printed by a C program with <linux/videodev2.h> (sizeof, offsetof, the VIDIOC
macros), so they check the structures of ``v4l2.py`` rather than repeat them. The buffers lie in real shared memory.
"""

import errno
import mmap
import os
import struct
import threading
import time

import av
import numpy as np
import simplejpeg

from mobile_vla.robot.cameras.drawing import Drawing

QUERYCAP, ENUM_FMT, S_FMT, REQBUFS = 0x80685600, 0xC0405602, 0xC0D05605, 0xC0145608
QUERYBUF, QBUF, DQBUF, STREAMON, STREAMOFF = 0xC0585609, 0xC058560F, 0xC0585611, 0x40045612, 0x40045613
S_PARM, ENUM_FRAMESIZES = 0xC0CC5616, 0xC02C564A
SIZES = {QUERYCAP: 104, ENUM_FMT: 64, S_FMT: 208, REQBUFS: 20, QUERYBUF: 88, QBUF: 88, DQBUF: 88, STREAMON: 4}
SIZES |= {STREAMOFF: 4, S_PARM: 204, ENUM_FRAMESIZES: 44}

CAPTURE, STREAMING, DEVICE_CAPS, MPLANE, META = 0x1, 0x04000000, 0x80000000, 0x1000, 0x00800000
MONOTONIC, DAMAGED = 0x2000, 0x40
BUFFER_BYTES = 1 << 18


def code(text):
    return struct.unpack("<I", text.encode())[0]


class SimulatedCamera:
    """The hardware: one at a time may stream. ``offers``: sizes by pixel format."""

    def __init__(self, offers=None, rate_hz=50.0):
        self.offers = {"MJPG": [(96, 64), (160, 120)], "YUYV": [(96, 64)]} if offers is None else offers
        self.rate_hz = self.fastest_hz = rate_hz
        self.able = CAPTURE | STREAMING
        self.stamp_flags, self.stamp_offset_ns = MONOTONIC, 0
        self.damage, self.truncate = set(), set()  # numbers of pictures
        self.refuse = {}  # errno by request
        self.plugged = True
        self.open_error = None
        self.stride_padding = 0
        self.has_rate = True
        self.began_s = time.monotonic()
        self.streaming_by = None


class SimulatedKernel:
    """What ``v4l2.Kernel`` does, on a ``SimulatedCamera`` in place of a file in /dev."""

    def __init__(self, camera):
        self.camera = camera
        self.lock = threading.Lock()
        self.files = {}

    def open(self, path):
        if not self.camera.plugged:
            raise OSError(errno.ENOENT, "No such file or directory")
        if self.camera.open_error:
            raise OSError(self.camera.open_error, os.strerror(self.camera.open_error))
        descriptor = os.memfd_create("simulated-video")
        self.files[descriptor] = _OpenFile(self.camera, descriptor)
        return descriptor

    def ioctl(self, descriptor, request, argument):
        view = memoryview(argument).cast("B")
        assert len(view) == SIZES[request], f"{request:#x} with {len(view)} bytes"
        if request in self.camera.refuse:
            error = self.camera.refuse[request]
            raise OSError(error, os.strerror(error))
        self.files[descriptor].ioctl(request, view)

    def map(self, descriptor, length, offset):
        return mmap.mmap(descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)

    def wait(self, descriptor, timeout_s):
        return self.files[descriptor].wait(timeout_s)

    def close(self, descriptor):
        self.files.pop(descriptor).close()


class _OpenFile:
    def __init__(self, camera, descriptor):
        self.camera, self.descriptor = camera, descriptor
        self.queued, self.count, self.taken = [], 0, -1
        self.format, self.size = None, None

    def ioctl(self, request, view):
        if not self.camera.plugged:
            raise OSError(errno.ENODEV, "No such device")
        names = {QUERYCAP: "querycap", ENUM_FMT: "enum_fmt", S_FMT: "s_fmt", REQBUFS: "reqbufs", QUERYBUF: "querybuf"}
        names |= {QBUF: "qbuf", DQBUF: "dqbuf", STREAMON: "streamon", STREAMOFF: "streamoff", S_PARM: "s_parm"}
        names |= {ENUM_FRAMESIZES: "enum_framesizes"}
        getattr(self, names[request])(view)

    def querycap(self, view):
        struct.pack_into("<16s32s", view, 0, b"simulated", b"Simulated Webcam")
        struct.pack_into("<II", view, 84, CAPTURE | STREAMING | META | DEVICE_CAPS, self.camera.able)

    def enum_fmt(self, view):
        index, kind = struct.unpack_from("<II", view)
        if kind != 1 or index >= len(self.camera.offers):
            raise OSError(errno.EINVAL, "Invalid argument")
        struct.pack_into("<I", view, 44, code(list(self.camera.offers)[index]))

    def enum_framesizes(self, view):
        index, pixelformat = struct.unpack_from("<II", view)
        sizes = next(sizes for name, sizes in self.camera.offers.items() if code(name) == pixelformat)
        if sizes == "any":
            struct.pack_into("<I", view, 8, 2 if index == 0 else 3)
            return
        if index >= len(sizes):
            raise OSError(errno.EINVAL, "Invalid argument")
        struct.pack_into("<III", view, 8, 1, *sizes[index])

    def s_fmt(self, view):
        width, height, wanted, _field = struct.unpack_from("<IIII", view, 8)
        name = next((name for name in self.camera.offers if code(name) == wanted), next(iter(self.camera.offers)))
        sizes = [(width, height)] if self.camera.offers[name] == "any" else self.camera.offers[name]
        width, height = min(sizes, key=lambda size: abs(size[0] - width) + abs(size[1] - height))
        row = {"MJPG": 0, "NV12": width, "YUYV": 2 * width}.get(name, 3 * width)
        self.format, self.size = name, (width, height)
        self.stride = row + self.camera.stride_padding if row else 0
        struct.pack_into("<IIIIII", view, 8, width, height, code(name), 1, self.stride, BUFFER_BYTES)

    def s_parm(self, view):
        numerator, denominator = struct.unpack_from("<II", view, 12)
        self.camera.rate_hz = min(denominator / numerator, self.camera.fastest_hz)
        capability = 0x1000 if self.camera.has_rate else 0
        struct.pack_into("<IIII", view, 4, capability, 0, 1000, round(1000 * self.camera.rate_hz))

    def reqbufs(self, view):
        if self.camera.streaming_by not in (None, self):
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.count, kind, memory = struct.unpack_from("<III", view)
        assert (kind, memory) == (1, 1)
        os.ftruncate(self.descriptor, self.count * BUFFER_BYTES)

    def querybuf(self, view):
        (index,) = struct.unpack_from("<I", view)
        struct.pack_into("<I", view, 64, index * BUFFER_BYTES)
        struct.pack_into("<I", view, 72, BUFFER_BYTES)

    def qbuf(self, view):
        index, kind = struct.unpack_from("<II", view)
        (memory,) = struct.unpack_from("<I", view, 60)
        assert (kind, memory) == (1, 1)
        assert index not in self.queued
        self.queued.append(index)

    def streamon(self, view):
        if self.camera.streaming_by not in (None, self):
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.camera.streaming_by = self
        self.taken = self.newest()

    def streamoff(self, view):
        if self.camera.streaming_by is self:
            self.camera.streaming_by = None

    def newest(self):
        return int((time.monotonic() - self.camera.began_s) * self.camera.rate_hz)

    def wait(self, timeout_s):
        deadline_s = time.monotonic() + timeout_s
        while self.camera.plugged and self.newest() <= self.taken:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.002)
        return True

    def dqbuf(self, view):
        number = self.newest()
        if number <= self.taken:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        number = max(self.taken + 1, number - len(self.queued) + 1)
        self.taken = number
        data = self.encoded(number)
        index = self.queued.pop(0)
        os.pwrite(self.descriptor, data, index * BUFFER_BYTES)
        stamp_ns = round((self.camera.began_s + number / self.camera.rate_hz) * 1e9) + self.camera.stamp_offset_ns
        flags = self.camera.stamp_flags | (DAMAGED if number in self.camera.damage else 0)
        struct.pack_into("<IIII", view, 0, index, 1, len(data), flags)
        struct.pack_into("<qq", view, 24, *divmod(stamp_ns // 1000, 10**6))
        struct.pack_into("<I", view, 56, number & 0xFFFFFFFF)

    def encoded(self, number):
        pixels = Drawing(*self.size, seed=1).picture(number)
        data = self.as_format(pixels)
        return data[: len(data) // 3] if number in self.camera.truncate else data

    def as_format(self, pixels):
        if self.format == "MJPG":
            return simplejpeg.encode_jpeg(pixels, quality=90)
        if self.format == "RGB3":
            rows = pixels.reshape(len(pixels), -1)
        elif self.format == "BGR3":
            rows = pixels[:, :, ::-1].reshape(len(pixels), -1)
        else:
            name = {"YUYV": "yuyv422", "NV12": "nv12"}[self.format]
            rows = av.VideoFrame.from_ndarray(pixels, format="rgb24").to_ndarray(format=name)
            rows = rows.reshape(len(rows), -1)
        return np.pad(rows, ((0, 0), (0, self.stride - rows.shape[1]))).tobytes()

    def close(self):
        if self.camera.streaming_by is self:
            self.camera.streaming_by = None
        os.close(self.descriptor)
