"""The control node with the base of numbers, keeping every delay and every lateness instead of the newest few.

On a line of standard input it prints, as JSON, what it noted since the line before: "taken_ms", camera stamp to the
arrival of the chunk; "used_ms", camera stamp to the first command that rests on the frame; "late_ms", how much later
than asked each control step began; "period_ms", by how much the time since the step before differs from 20 ms.
With the word "precedence" on the line, what the control thread was granted, see ``runtime.realtime``.
"""

import argparse
import json
import signal
import sys
import threading
from collections import deque

from mobile_vla.core import MonotonicClock
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import stamp_ns
from mobile_vla.ros.nodes.control import ControlNode
from mobile_vla.ros.topics import CHUNK
from mobile_vla.ros.transport import NodeConfig, Received
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime.mission import MissionConfig
from mobile_vla.safety import Supervisor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", type=int, required=True)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    transport = connect(NodeConfig("control", domain=options.domain, localhost_only=True))
    node = ControlNode(transport, Ideal().build(MonotonicClock()), Supervisor(), MissionConfig(time_limit_s=3600.0))
    kept: dict[str, deque[float]] = {name: deque() for name in ("taken_ms", "used_ms", "late_ms", "period_ms")}
    node._delays_ms, node._lateness_ms, node._period_errors_ms = kept["used_ms"], kept["late_ms"], kept["period_ms"]

    def on_chunk(received: Received) -> None:
        kept["taken_ms"].append((received.received_ns - from_wire(stamp_ns(received.message))) / 1e6)

    transport.subscribe(CHUNK, on_chunk)

    def answer() -> None:
        for line in sys.stdin:
            if line.strip() == "precedence":
                print(json.dumps(node._precedence), flush=True)
                continue
            values = {}
            for name, noted in kept.items():
                values[name] = [noted.popleft() for _ in range(len(noted))]
            print(json.dumps(values), flush=True)

    threading.Thread(target=answer, daemon=True).start()
    node.run(stop)
    transport.close()


if __name__ == "__main__":
    main()
