"""The inference node with a policy that drives straight on and takes as long as it is told to."""

import argparse
import signal
import threading
import time
from dataclasses import replace

import numpy as np

from mobile_vla.core import ActionChunk, ActionContract, Grounding, Instruction, Observation, Status, Step
from mobile_vla.ros.connect import connect
from mobile_vla.ros.nodes.inference import InferenceNode
from mobile_vla.ros.transport import NodeConfig

AHEAD = Grounding(0.9, 0.0, 2.0, (0.4, 0.4, 0.6, 0.6), Status.DRIVING)


class StraightOn:
    """Wants ``vx_mps`` forward on every frame, ``rate_hz`` frames a second, after ``spend_s`` (of sleep)."""

    def __init__(self, rate_hz: float, spend_s: float, vx_mps: float) -> None:
        self.contract = replace(ActionContract(), frame_rate_hz=rate_hz)
        self._spend_s, self._vx_mps = spend_s, vx_mps

    def reset(self, instruction: Instruction) -> None:
        """It has no state."""

    def step(self, observation: Observation, state: None) -> Step:
        """See the class."""
        time.sleep(self._spend_s)
        velocities = np.zeros((self.contract.horizon, 3), np.float32)
        velocities[:, 0] = self._vx_mps
        chunk = ActionChunk(velocities, observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, AHEAD, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", type=int, required=True)
    parser.add_argument("--rate-hz", type=float, default=5.0)
    parser.add_argument("--spend-ms", type=float, default=3.0)
    parser.add_argument("--vx", type=float, default=0.3)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    transport = connect(NodeConfig("inference", domain=options.domain, localhost_only=True))
    policy = StraightOn(options.rate_hz, options.spend_ms / 1e3, options.vx)
    InferenceNode(transport, policy, "straight on").run(stop)
    transport.close()


if __name__ == "__main__":
    main()
