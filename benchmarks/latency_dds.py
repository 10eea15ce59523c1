"""A bare DDS round trip of one image between two processes: Cyclone DDS, set up as our transport is.

No message is made or read, no thread hands anything on: bytes are written, and taken as soon as the wait ends.
"""

import argparse
import sys
import time

import numpy as np
from cyclonedds import _clayer
from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from drill_robot import Process, wait_until
from mobile_vla.core import NS_PER_S, Frame, MonotonicClock
from mobile_vla.ros import idl, naming
from mobile_vla.ros.dds import _qos, _write
from mobile_vla.ros.domain import join_domain
from mobile_vla.ros.inbox import PROFILES
from mobile_vla.ros.messages import image_message, serialise
from mobile_vla.ros.topics import IMAGE

WAIT_NS = NS_PER_S // 10
_ANY = ViewState.Any | InstanceState.Any | SampleState.Any


class Bare:
    """Writes ``out`` and reads ``back``, raw images both."""

    def __init__(self, domain: int, out: str, back: str) -> None:
        join_domain(domain, localhost_only=True)
        self._participant = DomainParticipant(domain)
        profile, kind = PROFILES[IMAGE.qos], idl.struct(IMAGE.type)
        topics = [Topic(self._participant, naming.wire_topic(name), kind) for name in (out, back)]
        self.writer = DataWriter(self._participant, topics[0], _qos(profile, reliable=True, depth=1))
        self._reader = DataReader(self._participant, topics[1], _qos(profile, reliable=False, depth=1))
        self._waitset = WaitSet(self._participant)
        self._waitset.attach(ReadCondition(self._reader, _ANY))

    def write(self, data: bytes) -> None:
        """Send it."""
        _write(self.writer, data)

    def take(self, limit_s: float) -> bytes | None:
        """The next message, None when none comes in time."""
        end_ns = time.monotonic_ns() + round(limit_s * NS_PER_S)
        while time.monotonic_ns() < end_ns:
            self._waitset.wait(WAIT_NS)
            found = _clayer.ddspy_take(self._reader._ref, _ANY, 1)
            for data, info in found if not isinstance(found, int) else ():
                if info.valid_data:
                    return bytes(data)
        return None


def round_trips_ms(domain: int, width: int, height: int, rate_hz: float, seconds: float) -> list[float]:
    """There and back of one picture, ``rate_hz`` times a second; those lost are left out."""
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = serialise(IMAGE.type, image_message(Frame(pixels, 0, MonotonicClock.name, "front", 1), NS_PER_S, "camera"))
    echo = Process(__file__, f"--domain={domain}")
    try:
        bare = Bare(domain, "/there", "/back")
        wait_until(lambda: bare.writer.get_publication_matched_status().current_count > 0, 30.0, "the echo was found")
        time.sleep(1.0)
        spent, next_s = [], time.monotonic()
        for _ in range(round(seconds * rate_hz)):
            began_ns = time.monotonic_ns()
            bare.write(data)
            if bare.take(0.5) is not None:
                spent.append((time.monotonic_ns() - began_ns) / 1e6)
            next_s += 1 / rate_hz
            time.sleep(max(0.0, next_s - time.monotonic()))
        return spent
    finally:
        echo.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="send back what comes")
    parser.add_argument("--domain", type=int, required=True)
    options = parser.parse_args()
    bare = Bare(options.domain, "/back", "/there")
    while True:
        data = bare.take(1.0)
        if data is not None:
            bare.write(data)


if __name__ == "__main__":
    sys.exit(main())
