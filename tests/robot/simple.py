"""The simplest camera and base that conform, on a ManualClock: what the tests of the loop drive."""

import math

import numpy as np

from mobile_vla.core import NS_PER_S, ZERO_TWIST, CameraError, Frame


class CountingCamera:
    """Takes a picture whenever its period has passed; each has its number in its first pixels."""

    def __init__(self, clock, rate_hz=5.0, name="front"):
        self.clock, self.rate_hz, self.name = clock, rate_hz, name
        self.opened = False
        self.next_ns = 0
        self.sequence = 0

    def open(self):
        self.opened = True

    def close(self):
        self.opened = False

    def read(self, timeout_s):
        if not self.opened:
            raise CameraError(f"camera {self.name} is closed: open it first")
        now_ns = self.clock.now_ns()
        if now_ns < self.next_ns:
            return None
        self.next_ns = now_ns + round(NS_PER_S / self.rate_hz)
        self.sequence += 1
        pixels = np.zeros((2, 2, 3), dtype=np.uint8)
        pixels.flat[:4] = np.frombuffer(self.sequence.to_bytes(4, "little"), dtype=np.uint8)
        return Frame(pixels, now_ns, self.clock.name, self.name, self.sequence)


class FollowingBase:
    """Moves as it is told, at once, and keeps what it was told."""

    command_timeout_s = 0.5

    def __init__(self, clock):
        self.clock = clock
        self.sent = []
        self.stops = 0
        self._velocity = ZERO_TWIST
        self._sent_ns = 0

    def open(self):
        self._velocity = ZERO_TWIST

    def close(self):
        self.stop()

    def send(self, twist):
        if not all(map(math.isfinite, (twist.vx, twist.vy, twist.wz))):
            self.stop()
            raise ValueError(f"{twist} is not finite")
        self.sent.append(twist)
        self._velocity, self._sent_ns = twist, self.clock.now_ns()
        return twist

    def velocity(self):
        timed_out = self.clock.now_ns() - self._sent_ns > self.command_timeout_s * NS_PER_S
        return ZERO_TWIST if timed_out else self._velocity

    def stop(self):
        self.stops += 1
        self._velocity = ZERO_TWIST

    @property
    def is_stopped(self):
        return self._velocity == ZERO_TWIST
