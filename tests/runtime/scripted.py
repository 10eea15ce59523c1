"""A policy that does what a test says, and frames to show it."""

import numpy as np

from mobile_vla.core import ActionChunk, ActionContract, Frame, Grounding, Status, Step, Twist


class ScriptedPolicy:
    """Drives ``twist`` and reports ``status(step)``; its state is (instruction text, number of the step)."""

    def __init__(
        self,
        twist=Twist(0.3, 0.0, 0.0),  # noqa: B008
        status=lambda step: Status.DRIVING,
        during_step=lambda: None,
        stamp_offset_ns=0,
        chunk_rate_hz=None,
        contract=None,
    ):
        self.contract = contract or ActionContract()
        self.twist, self.status, self.during_step = twist, status, during_step
        self.stamp_offset_ns = stamp_offset_ns
        self.chunk_rate_hz = chunk_rate_hz or self.contract.rate_hz
        self.observations, self.states = [], []

    def reset(self, instruction):
        return (instruction.text, 0)

    def step(self, observation, state):
        self.observations.append(observation)
        self.states.append(state)
        self.during_step()
        text, step = state
        status = self.status(step)
        twist = Twist(0.0, 0.0, 0.0) if status.is_final or text == "stop" else self.twist
        velocities = np.tile(twist.as_array(), (self.contract.horizon, 1))
        chunk = ActionChunk(velocities, observation.frame.capture_ns + self.stamp_offset_ns, self.chunk_rate_hz)
        return Step(chunk, Grounding(1.0, 0.0, 1.0, (0.0, 0.0, 1.0, 1.0), status), (text, step + 1))


def frame_at(capture_ns, sequence, clock="simulation"):
    pixels = np.frombuffer(sequence.to_bytes(12, "little"), dtype=np.uint8).reshape(2, 2, 3)
    return Frame(pixels, capture_ns, clock, "front", sequence)
