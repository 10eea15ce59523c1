"""A process that does not belong to the robot and writes on its topics: floods, and chunks that are not numbers.

It says "ready" when its topics are read. Words on standard input: "chunk_flood", "instruction_flood", "nan", "quiet".
Its chunks are well made: fresh stamps, each with a belief of the same stamp under the active instruction. Only their
number or their values are wrong.
"""

import argparse
import itertools
import math
import sys
import threading
import time

import numpy as np

from mobile_vla.core import ActionChunk, Grounding, Status
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import belief_message, chunk_message, string
from mobile_vla.ros.topics import ACTIVE_INSTRUCTION, BELIEF, CHUNK, INSTRUCTION
from mobile_vla.ros.transport import NodeConfig

ROWS, RATE_HZ = 8, 10.0
AHEAD = Grounding(0.9, 0.0, 2.0, (0.4, 0.4, 0.6, 0.6), Status.DRIVING)
WORDS = ("go to the red cup", "go to the blue cone")


class Foreigner:
    """Does one thing at a time, as fast as it can."""

    def __init__(self, domain: int) -> None:
        self.mode = "quiet"
        self.sent = 0
        self._text = ""
        transport = connect(NodeConfig("drill_foreigner", domain=domain, localhost_only=True))
        self._chunks, self._beliefs = transport.publisher(CHUNK), transport.publisher(BELIEF)
        self._instruction = transport.publisher(INSTRUCTION)
        transport.subscribe(ACTIVE_INSTRUCTION, self._on_active)
        self._filled = threading.Condition()

    def set(self, mode: str) -> None:
        """Do this from now on."""
        with self._filled:
            if mode == "quiet":
                print(f"sent {self.sent}", flush=True)
            self.mode, self.sent = mode, 0
            self._filled.notify()

    def run(self) -> None:
        """For ever."""
        while not (self._chunks.readers and self._beliefs.readers and self._instruction.readers):
            time.sleep(0.05)
        print("ready", flush=True)
        for number in itertools.count():
            with self._filled:
                self._filled.wait_for(lambda: self.mode != "quiet")
                mode = self.mode
            if mode == "instruction_flood":
                self._instruction.publish(string(WORDS[number % len(WORDS)]))
            else:
                self._chunk(0.3 if mode == "chunk_flood" else math.nan)
            self.sent += 1
            if mode == "nan":
                self.set("quiet")

    def _chunk(self, vx: float) -> None:
        velocities = np.full((ROWS, 3), 0.0, np.float32)
        velocities[:, 0] = vx
        now_ns = time.time_ns()
        self._beliefs.publish(belief_message(AHEAD, self._text, 1.0, now_ns))
        self._chunks.publish(chunk_message(ActionChunk(velocities, now_ns, RATE_HZ), now_ns))

    def _on_active(self, received) -> None:
        self._text = received.message.data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", type=int, required=True)
    options = parser.parse_args()
    foreigner = Foreigner(options.domain)
    threading.Thread(target=foreigner.run, daemon=True).start()
    for line in sys.stdin:
        foreigner.set(line.strip())


if __name__ == "__main__":
    main()
