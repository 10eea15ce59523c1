"""The same frames and measured velocities through the loop of one process, and through nodes and messages."""

import threading
import time

import numpy as np

from mobile_vla.core import NS_PER_S, ActionChunk, Frame, Instruction, MonotonicClock, Twist
from mobile_vla.ros.messages import chunk_from_message, odometry, string
from mobile_vla.ros.nodes.camera import CameraNode
from mobile_vla.ros.nodes.inference import InferenceNode
from mobile_vla.ros.topics import ACTIVE_INSTRUCTION, CHUNK, IMAGE, ODOM
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime import ChunkQueue
from mobile_vla.runtime.decide import Decider, VelocityLog
from mobile_vla.safety import FrameWatch, Inputs, Supervisor

from .nodes.world import Outside, Running, wait_until

COUNT = 12
WORDS = "go to the red cup"
PERIOD_NS = NS_PER_S // 5
STAMP_SPREAD_NS = 1_000_000
"""A stamp that crossed two processes is as exact as a reading of two clocks: mostly 0.1 us, more on a busy machine."""


class Noting:
    """Passes everything to ``policy``, and keeps what it was shown."""

    def __init__(self, policy):
        self._policy, self.contract = policy, policy.contract
        self.shown = []

    def reset(self, instruction):
        return self._policy.reset(instruction)

    def step(self, observation, state):
        self.shown.append(observation)
        return self._policy.step(observation, state)


class Recording:
    """A camera that plays recorded frames, one each time it is let go on."""

    name, rate_hz = "front", 30.0

    def __init__(self, frames):
        self._frames = iter(frames)
        self._turn = threading.Semaphore(0)

    def next(self):
        self._turn.release()

    def open(self):
        pass

    def close(self):
        pass

    def read(self, timeout_s):
        return next(self._frames, None) if self._turn.acquire(timeout=timeout_s) else None


class Chunks:
    """Keeps what it is offered."""

    def __init__(self):
        self.all = []

    def offer(self, chunk):
        self.all.append(chunk)
        return True

    def clear(self):
        pass


def recorded():
    """Frames at the policy's rate, the last of a moment ago; the velocity measured 20 ms before each."""
    chance = np.random.default_rng(7)
    began_ns = time.monotonic_ns() - COUNT * PERIOD_NS
    frames = [
        Frame(
            chance.integers(0, 256, (48, 64, 3), dtype=np.uint8) // (1 + number % 3),
            began_ns + number * PERIOD_NS,
            MonotonicClock.name,
            "front",
            number + 1,
        )
        for number in range(COUNT)
    ]
    return frames, [Twist(*chance.uniform(-0.5, 0.5, 3).tolist()) for _ in frames]


def in_one_process(policy, frames, velocities):
    log, chunks = VelocityLog(200), Chunks()
    decider = Decider(policy, Instruction(WORDS), chunks, log, FrameWatch(), clock=MonotonicClock.name)
    for frame, velocity in zip(frames, velocities, strict=True):
        log.add(frame.capture_ns - NS_PER_S // 50, velocity)
        decider.consider(frame)
    return chunks.all


def over_the_wire(policy, frames, velocities, namespace, domain):
    camera = Recording(frames)
    with Outside(namespace, domain) as outside:
        outside.listen(CHUNK)
        with (
            Running("inference", namespace, domain, lambda wire: InferenceNode(wire, policy, "test")) as inference,
            Running("camera", namespace, domain, lambda wire: CameraNode(wire, camera)) as eye,
        ):
            outside.publish(ACTIVE_INSTRUCTION, string(WORDS))
            assert eye.transport.wait_for_readers(IMAGE, 1, 60.0)
            wait_until(lambda: inference.node._decider is not None, "the instruction arrived")
            heard = outside.heard[CHUNK.name]
            for number, (frame, velocity) in enumerate(zip(frames, velocities, strict=True)):
                moved_ns = to_wire(frame.capture_ns - NS_PER_S // 50)
                outside.publish(ODOM, odometry(velocity, (0.0, 0.0, 0.0), moved_ns))
                log = inference.node._velocities
                wait_until(lambda log=log, n=number: len(log._entries) > n, "the velocity arrived")
                camera.next()
                wait_until(lambda n=number: len(heard) > n, f"chunk {number + 1} of {COUNT} arrived")
        return [chunk_from_message(message) for message in heard]


def commands(chunks):
    """What queue and supervisor make of them at 50 Hz, on a clock that begins with the first frame."""
    queue, supervisor, sent = ChunkQueue(), Supervisor(), []
    for number, chunk in enumerate(chunks):
        captured_ns = number * PERIOD_NS
        queue.offer(ActionChunk(chunk.velocities, captured_ns, chunk.rate_hz))
        for step in range(10):
            now_ns = captured_ns + NS_PER_S // 100 + step * NS_PER_S // 50
            plan = queue.plan(now_ns)
            sent.append(supervisor.step(now_ns, Inputs(plan.twist, plan.capture_ns)).twist)
    return sent


def compare(policy, namespace, domain):
    frames, velocities = recorded()
    noting = Noting(policy)
    there = over_the_wire(noting, frames, velocities, namespace, domain)
    for shown, frame, velocity in zip(noting.shown, frames, velocities, strict=True):
        assert shown.frame.pixels.tobytes() == frame.pixels.tobytes()
        assert shown.velocity == velocity
        assert abs(shown.frame.capture_ns - frame.capture_ns) < STAMP_SPREAD_NS
    here = in_one_process(policy, [shown.frame for shown in noting.shown], velocities)
    assert len(here) == len(there) == COUNT
    assert len({chunk.velocities.tobytes() for chunk in here}) == COUNT  # each frame and velocity tells
    for one, other in zip(here, there, strict=True):
        assert one.velocities.tobytes() == other.velocities.tobytes()
        assert one.rate_hz == other.rate_hz
    assert commands(here) == commands(there)
    assert any(command != Twist(0.0, 0.0, 0.0) for command in commands(here))
    for one, other in zip(in_one_process(policy, frames, velocities), there, strict=True):
        np.testing.assert_allclose(one.velocities, other.velocities, atol=1e-4)
