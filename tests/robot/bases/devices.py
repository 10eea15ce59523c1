"""Devices that answer as the real ones do, over a pseudo-terminal or a virtual bus, and misbehave when told to.

They share no code with the drivers: protocols are written a second time, and the motion of the body is solved from the
places of the wheels, so that a driver with a wrong sign drives them the wrong way.
"""

import contextlib
import math
import os
import random
import select
import threading
import time
import tty

import can
import numpy as np

from mobile_vla.core import Twist


class Body:
    """Wheels at known places on a rigid body, each following its goal with a first-order lag.

    ``wheels``: (x, y, rolls, grips) with the direction of rolling for positive speeds, and the direction in which the
    contact does not slip (the same for an omni wheel; the axis of the roller for a mecanum wheel), angles in degrees.
    """

    def __init__(self, wheels, wheel_radius_m, lag_s=0.04):
        self.lag_s = lag_s
        rows, self.along = [], []
        for x, y, rolls, grips in wheels:
            gx, gy = math.cos(math.radians(grips)), math.sin(math.radians(grips))
            rows.append((gx, gy, x * gy - y * gx))
            self.along.append(wheel_radius_m * math.cos(math.radians(rolls - grips)))
        self.rows = np.array(rows)
        self.goals = np.zeros(len(rows))
        self._speeds = np.zeros(len(rows))
        self.angles = np.zeros(len(rows))
        self.x = self.y = self.yaw = 0.0
        self._then = time.monotonic()
        self._lock = threading.RLock()

    @classmethod
    def omni(cls, mounts_deg, base_radius_m, wheel_radius_m):
        wheels = []
        for mount in mounts_deg:
            x, y = math.cos(math.radians(mount)), math.sin(math.radians(mount))
            wheels.append((base_radius_m * x, base_radius_m * y, mount + 90, mount + 90))
        return cls(wheels, wheel_radius_m)

    @classmethod
    def mecanum(cls, half_length_m, half_width_m, wheel_radius_m):
        """Front left, front right, rear left, rear right; roller axes at the floor -45, 45, 45, -45 degrees."""
        x, y = half_length_m, half_width_m
        return cls([(x, y, 0, -45), (x, -y, 0, 45), (-x, y, 0, 45), (-x, -y, 0, -45)], wheel_radius_m)

    def drive(self, goals_radps):
        with self._lock:
            self.play()
            self.goals = np.array(goals_radps, dtype=float)

    def play(self):
        with self._lock:
            now = time.monotonic()
            left = now - self._then
            self._then = now
            while left > 0:
                step = min(left, 0.005)
                left -= step
                self._speeds = self.goals + (self._speeds - self.goals) * math.exp(-step / self.lag_s)
                self.angles = self.angles + self._speeds * step
                vx, vy, wz = self.at(self._speeds)
                c, s = math.cos(self.yaw + wz * step / 2), math.sin(self.yaw + wz * step / 2)
                self.x += (c * vx - s * vy) * step
                self.y += (s * vx + c * vy) * step
                self.yaw += wz * step

    def at(self, speeds_radps):
        """vx, vy, wz with the wheels turning so."""
        return np.linalg.lstsq(self.rows, np.multiply(speeds_radps, self.along), rcond=None)[0]

    @property
    def speeds(self):
        self.play()
        return self._speeds

    @property
    def twist(self):
        with self._lock:
            self.play()
            return Twist(*map(float, self.at(self._speeds)))


class PtyDevice:
    """A device on a pseudo-terminal that a symbolic link at ``path`` points to, as udev does.

    ``lose``: share of the bytes lost, each way. ``late_s``: how late it answers. ``unplug`` and ``plug``.
    """

    period_s = 0.01

    def __init__(self, path, seed=0):
        self.path = str(path)
        self.random = random.Random(seed)
        self.lose, self.late_s = 0.0, 0.0
        self.mute = False
        self.master = self.slave = None
        self._due = []
        self._over = threading.Event()
        self._lock = threading.RLock()
        self.plug()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def plug(self):
        with self._lock:
            self.master, self.slave = os.openpty()
            tty.setraw(self.slave)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
            os.symlink(os.ttyname(self.slave), self.path)
            self.plugged()

    def unplug(self):
        with self._lock:
            if self.master is not None:
                os.unlink(self.path)
                os.close(self.slave)
                os.close(self.master)
                self.master = self.slave = None
                self._due = []

    def close(self):
        self._over.set()
        self._thread.join(5)
        self.unplug()

    def plugged(self):
        """Power on."""

    def received(self, data):
        raise NotImplementedError

    def tick(self):
        """Something to do now and then."""

    def answer(self, data):
        """What is lost is lost now, what is late goes out later."""
        if not self.mute:
            self._due.append((time.monotonic() + self.late_s, self._lossy(data)))

    def _lossy(self, data):
        return bytes(byte for byte in data if self.random.random() >= self.lose)

    def _run(self):
        while not self._over.wait(0.001):
            with self._lock:
                if self.master is None:
                    continue
                if select.select([self.master], [], [], 0)[0]:
                    with contextlib.suppress(OSError):
                        self.received(self._lossy(os.read(self.master, 4096)))
                self.tick()
                now = time.monotonic()
                for at, data in list(self._due):
                    if at <= now:
                        self._due.remove((at, data))
                        with contextlib.suppress(OSError):
                            os.write(self.master, data)


class LekiwiDevice(PtyDevice):
    """Three STS3215 in one chain, their memory as from the factory: position mode, locked, no torque."""

    def __init__(self, path, seed=0, lag_s=0.04, ids=(7, 8, 9)):
        self.ids = ids
        self.body = Body.omni((60, 180, -60), 0.125, 0.05)
        self.body.lag_s = lag_s
        self.memory = {servo: bytearray(128) for servo in ids}
        for memory in self.memory.values():
            memory[55] = 1
        self.eeprom_writes = 0
        self.error = 0
        self.absent = set()
        self.buffer = b""
        super().__init__(path, seed)

    def plugged(self):
        """Switched off and on: what is not in the EEPROM is forgotten."""
        for memory in self.memory.values():
            memory[40] = 0
            memory[46:48] = bytes(2)
        self._apply()

    def received(self, data):
        self.buffer += data
        while True:
            begin = self.buffer.find(b"\xff\xff")
            if begin < 0 or len(self.buffer) < begin + 4:
                return
            self.buffer = self.buffer[begin:]
            end = 4 + self.buffer[3]
            if len(self.buffer) < end:
                return
            whole, rest = self.buffer[:end], self.buffer[end:]
            if sum(whole[2:]) & 0xFF != 0xFF:
                self.buffer = self.buffer[1:]
                continue
            self.buffer = rest
            self._obey(whole[2], whole[4], whole[5:-1])

    def _obey(self, target, instruction, rest):
        targets = [s for s in self.ids if target in (s, 0xFE) and s not in self.absent]
        if instruction == 0x01:
            for servo in targets:
                self._reply(servo)
        elif instruction == 0x02:
            for servo in targets:
                self._reply(servo, self._recall(servo, rest[0], rest[1]))
        elif instruction == 0x03:
            for servo in targets:
                self._remember(servo, rest[0], rest[1:])
                self._reply(servo)
        elif instruction == 0x82:
            for servo in rest[2:]:
                if servo in self.ids and servo not in self.absent:
                    self._reply(servo, self._recall(servo, rest[0], rest[1]))
        elif instruction == 0x83:
            address, size = rest[0], rest[1]
            for k in range(2, len(rest), size + 1):
                if rest[k] in self.ids and rest[k] not in self.absent:
                    self._remember(rest[k], address, rest[k + 1 : k + 1 + size])

    def _reply(self, servo, data=b""):
        body = bytes([servo, len(data) + 2, self.error]) + data
        self.answer(b"\xff\xff" + body + bytes([255 - sum(body) % 256]))

    def _recall(self, servo, address, size):
        memory, wheel = self.memory[servo], self.ids.index(servo)
        steps = 4096 / math.tau
        speed = round(float(self.body.speeds[wheel]) * steps)
        memory[56:58] = (math.floor(self.body.angles[wheel] * steps) % 4096).to_bytes(2, "little")
        memory[58:60] = (abs(speed) + 32768 * (speed < 0)).to_bytes(2, "little")
        return bytes(memory[address : address + size])

    def _remember(self, servo, address, data):
        memory = self.memory[servo]
        if address < 40:
            if memory[55]:
                return
            self.eeprom_writes += 1
        memory[address : address + len(data)] = data
        self._apply()

    def _apply(self):
        goals = []
        for servo in self.ids:
            memory = self.memory[servo]
            raw = int.from_bytes(memory[46:48], "little")
            turns = memory[33] == 1 and memory[40] == 1
            goals.append((-(raw & 0x7FFF) if raw & 0x8000 else raw) * math.tau / 4096 * turns)
        self.body.drive(goals)


class SerbotDevice:
    """A motor board on python-can's virtual bus. Without a timeout of its own: that is all we may count on."""

    def __init__(self, channel, base_radius_m=0.12, wheel_radius_m=0.05, gain=6.0, dead_band=20, timeout_s=None):
        self.body = Body.omni((60, -60, 180), base_radius_m, wheel_radius_m)
        self.gain, self.dead_band, self.timeout_s = gain, dead_band, timeout_s
        self.frames = []
        self.lose, self.random = 0.0, random.Random(1)
        self._bus = can.Bus(interface="virtual", channel=channel)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self):
        self._over.set()
        self._thread.join(5)
        self._bus.shutdown()

    def _run(self):
        while not self._over.is_set():
            message = self._bus.recv(0.01)
            if message is None or self.random.random() < self.lose:
                continue
            self.frames.append(message)
            if message.arbitration_id == 0x010 and len(message.data) == 4 and message.data[0] == 7:
                self.body.drive([self._speed(byte - 100) for byte in message.data[1:]])

    def _speed(self, units):
        return math.copysign(max(0.0, abs(units) - self.dead_band) / self.gain, units)


class SerialDevice(PtyDevice):
    """A firmware as docs/serial-protocol.md asks for. ``mode`` twist: it knows its own kinematics."""

    def __init__(self, path, body, mode="twist", seed=0, timeout_ms=700, version=1):
        self.body, self.mode, self.timeout_ms, self.version = body, mode, timeout_ms, version
        self.buffer = b""
        self.obeys = True
        self.trouble = None
        self.timed_out = False
        self.starts_after_s = 0.0
        super().__init__(path, seed)

    def plugged(self):
        self.began = time.monotonic()
        self.sequence, self.commanded, self.reported, self.troubled = 0, None, 0.0, 0.0
        self.buffer = b""
        self.body.drive([0.0] * len(self.body.goals))

    reset = plugged

    @property
    def runs(self):
        return time.monotonic() - self.began >= self.starts_after_s

    def received(self, data):
        if not self.runs:
            return
        self.buffer += data
        *lines, self.buffer = self.buffer.split(b"\n")
        for each in lines:
            self._obey(each)

    def tick(self):
        now = time.monotonic()
        if not self.runs:
            return
        if self.commanded is not None and now - self.commanded > self.timeout_ms / 1000:
            self.body.drive([0.0] * len(self.body.goals))
            self.commanded, self.timed_out = None, True
        if self.trouble and now - self.troubled > 0.2:
            self.troubled = now
            self.say("E", self.trouble)
        if now - self.reported > 0.02:
            self.report()

    def _obey(self, text):
        body, _, proof = text.partition(b"*")
        if proof != b"%04X" % crc(body):
            self.say("E checksum")
            return
        kind, *numbers = body.decode().split()
        numbers = [int(number) for number in numbers]
        if kind == "?":
            self.say("I", self.version, self.mode, len(self.body.goals), self.timeout_ms, "simulated")
        elif not self.obeys:
            return
        elif kind == "S":
            self.take([0.0] * len(self.body.goals), numbers[-1])
        elif kind == "V" and self.mode == "twist" and len(numbers) == 4:
            wanted = np.array(numbers[:3]) / 1000
            self.take(self.body.rows @ wanted / self.body.along, numbers[-1])
        elif kind == "W" and self.mode == "wheels" and len(numbers) == len(self.body.goals) + 1:
            self.take([number / 1000 for number in numbers[:-1]], numbers[-1])
        else:
            self.say("E syntax")

    def take(self, goals, sequence):
        self.body.drive([0.0] * len(self.body.goals) if self.trouble else goals)
        self.commanded, self.sequence = time.monotonic(), sequence
        self.report()

    def report(self):
        self.reported = time.monotonic()
        stamp, body = round((self.reported - self.began) * 1000), self.body
        if self.mode == "twist":
            twist = body.twist
            measured = [twist.vx, twist.vy, twist.wz, body.x, body.y, body.yaw]
            self.say("O", *(round(1000 * value) for value in measured), stamp, self.sequence)
        else:
            speeds = [round(1000 * speed) for speed in body.speeds]
            angles = [(round(1000 * angle) + 2**31) % 2**32 - 2**31 for angle in body.angles]
            self.say("M", *speeds, *angles, stamp, self.sequence)

    def say(self, *words):
        text = " ".join(map(str, words)).encode()
        self.answer(text + b"*%04X\n" % crc(text))


def crc(data):
    """CRC-16/CCITT-FALSE, bit by bit, as a firmware does it."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ 0x1021 if register & 0x8000 else register << 1) & 0xFFFF
    return register
