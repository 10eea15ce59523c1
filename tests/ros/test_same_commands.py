"""One process or four: the same frames and the same measured velocities give the same commands, to the bit."""

import numpy as np

from mobile_vla.core import ActionChunk, ActionContract, Grounding, Status, Step

from .two_ways import compare


class Listening:
    """A policy without torch whose velocities depend on every pixel, on the measured velocity and on all before."""

    contract = ActionContract()

    def reset(self, instruction):
        return float(len(instruction.text))

    def step(self, observation, state):
        state = 0.5 * state + float(observation.frame.pixels.astype(np.float64).mean())
        v = observation.velocity
        row = np.array([state / 700.0, v.vx / 3.0 + v.vy, v.wz / 7.0])
        velocities = (row * np.linspace(1.0, 0.3, self.contract.horizon)[:, None]).astype(np.float32)
        chunk = ActionChunk(velocities, observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, Grounding(0.5, 0.1, 1.0, (0.1, 0.2, 0.3, 0.4), Status.DRIVING), state)


def test_a_policy_is_shown_the_same_and_its_chunks_arrive_whole(namespace, domain):
    compare(Listening(), namespace, domain)
