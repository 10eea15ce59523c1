"""Writes down what the base is told, what it measures and what the safety layer says, in a process of its own.

One line each on standard output: a letter (c command, o odometry, s safety), the moment it came in ns on the monotonic
clock, then the velocity, or state, reason and the forward velocity that control sent.
"""

import argparse
import signal
import sys
import threading

from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import diagnoses, twist_from_message
from mobile_vla.ros.topics import CMD_VEL, ODOM, SAFETY
from mobile_vla.ros.transport import NodeConfig, Received


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", type=int, required=True)
    parser.add_argument("--localhost", action="store_true", default=None)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def velocity(letter: str):
        def write(received: Received) -> None:
            v = twist_from_message(received.message)
            sys.stdout.write(f"{letter} {received.received_ns} {v.vx!r} {v.vy!r} {v.wz!r}\n")
            sys.stdout.flush()

        return write

    def safety(received: Received) -> None:
        values = diagnoses(received.message)[0].values
        twist = " ".join(values[key] for key in ("vx_mps", "vy_mps", "wz_radps"))
        sys.stdout.write(f"s {received.received_ns} {twist} {values['state']} {values['reason']}\n")
        sys.stdout.flush()

    config = NodeConfig("drill_recorder", domain=options.domain, localhost_only=options.localhost)
    transport = connect(config)
    transport.subscribe(CMD_VEL, velocity("c"))
    transport.subscribe(ODOM, velocity("o"))
    transport.subscribe(SAFETY, safety)
    stop.wait()
    transport.close()


if __name__ == "__main__":
    main()
