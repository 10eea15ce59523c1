"""The control path in steady state: nothing grows, no array is touched, and frames are handed over as they are."""

import gc
import os
import sys
import threading
import tracemalloc

import numpy as np

from mobile_vla.core import (
    NS_PER_S,
    ActionChunk,
    ActionContract,
    Frame,
    Grounding,
    Instruction,
    ManualClock,
    MonotonicClock,
    Status,
    Step,
    Twist,
)
from mobile_vla.runtime import DriveConfig, DriveLoop, Ending
from mobile_vla.runtime.realtime import Precedence, attainable
from mobile_vla.safety import SafetyState, Supervisor
from robot.simple import CountingCamera

GO = Instruction("go")
STEPS = 1000
A_FEW = 30
"""Blocks that the interpreter's own caches and free lists may take or give back meanwhile."""


class Forgetful:
    """A base and a policy that keep nothing of what they are given."""

    command_timeout_s = 0.5

    def __init__(self, seen=lambda observation: None):
        self.contract = ActionContract()
        self.twist = Twist(0.0, 0.0, 0.0)
        self.seen = seen

    def open(self):
        pass

    def close(self):
        pass

    def send(self, twist):
        self.twist = twist
        return twist

    def velocity(self):
        return self.twist

    def stop(self):
        self.twist = Twist(0.0, 0.0, 0.0)

    def reset(self, instruction):
        return None

    def step(self, observation, state):
        self.seen(observation)
        velocities = np.full((self.contract.horizon, 3), 0.1, dtype=np.float32)
        chunk = ActionChunk(velocities, observation.frame.capture_ns, self.contract.rate_hz)
        return Step(chunk, Grounding(1.0, 0.0, 1.0, (0.0, 0.0, 1.0, 1.0), Status.DRIVING), state)


def drives(clock, observe, robot=None, camera=None, **config):
    robot = robot or Forgetful()
    camera = camera or CountingCamera(clock)
    camera.open()
    return DriveLoop(camera, robot, robot, Supervisor(), clock, DriveConfig(**config), observe)


def test_a_thousand_steps_leave_no_more_blocks_than_there_were():
    blocks = []
    steps = [0]

    def observe(tick):
        steps[0] += 1
        if steps[0] % STEPS == 500:  # warm: the logs of the last seconds are full
            assert tick.state is SafetyState.RUNNING
            gc.collect()
            blocks.append(sys.getallocatedblocks())

    loop = drives(ManualClock(), observe, control_rate_hz=50.0, time_limit_s=(3 * STEPS + 600) / 50)
    assert loop.run_blocking(GO).ending is Ending.TIME_LIMIT
    print(blocks)
    assert len(blocks) == 4
    assert max(blocks[1:]) - blocks[1] <= A_FEW
    assert abs(blocks[-1] - blocks[1]) <= A_FEW


class Watched(np.ndarray):
    """Notes who reads it."""

    readers = 0

    def __getitem__(self, key):
        Watched.readers += 1
        return super().__getitem__(key)


def test_a_control_step_touches_no_array_and_asks_for_no_large_piece_of_memory():
    clock = ManualClock()
    ticks = []
    loop = drives(clock, ticks.append, control_rate_hz=50.0)
    drive = loop._begin(GO)
    used = []

    def note(frame, event, arg):
        owner = getattr(arg, "__self__", None)
        module = str(getattr(arg, "__module__", ""))
        if event == "c_call" and (module.startswith("numpy") or isinstance(owner, np.ndarray)):
            used.append(arg)
        elif event == "call" and f"{os.sep}numpy{os.sep}" in frame.f_code.co_filename:
            used.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)

    peaks = []
    tracemalloc.start()
    try:
        for step in range(100):
            if step % 5 == 0:  # a decision, which may do as it likes
                pixels = np.full((2, 2, 3), step, dtype=np.uint8)
                drive.decider.consider(Frame(pixels, clock.now_ns(), clock.name, "front", step))
                newest = drive.queue._newest
                velocities = newest.chunk.velocities.view(Watched)
                object.__setattr__(newest.chunk, "velocities", velocities)
                Watched.readers = 0
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            sys.setprofile(note)
            loop._control_step(drive, lambda: None)
            sys.setprofile(None)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            assert Watched.readers == 0
            clock.advance(NS_PER_S // 50)
    finally:
        sys.setprofile(None)
        tracemalloc.stop()
    assert {tick.state for tick in ticks[50:]} == {SafetyState.RUNNING}
    assert used == []
    assert max(peaks[20:]) < 8192


class Keeping(CountingCamera):
    """Keeps what it gave."""

    def __init__(self, clock):
        super().__init__(clock, rate_hz=50.0)
        self.given = {}

    def read(self, timeout_s):
        frame = super().read(timeout_s)
        if frame is not None:
            self.given[frame.sequence] = frame.pixels
        return frame


def test_the_policy_gets_the_very_memory_that_the_camera_gave():
    clock = MonotonicClock()
    camera = Keeping(clock)
    decided, shown = [], []

    def seen(observation):
        frame = observation.frame
        decided.append(np.shares_memory(frame.pixels, camera.given[frame.sequence]))

    def observe(tick):
        if tick.frame is not None:
            shown.append(np.shares_memory(tick.frame.pixels, camera.given[tick.frame.sequence]))
        if len(decided) >= 5:
            loop.request_stop()

    loop = drives(clock, observe, Forgetful(seen), camera, control_rate_hz=50.0, time_limit_s=60.0)
    assert loop.run_threaded(GO).ending is Ending.REQUESTED
    assert shown
    assert all(decided + shown)


def policy_and_nice():
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.getpriority(
        os.PRIO_PROCESS, threading.get_native_id()
    )


def test_the_control_thread_alone_takes_precedence_and_gives_it_back():
    before = policy_and_nice(), gc.isenabled(), sys.getswitchinterval()
    thinking, controlling, collecting = set(), set(), set()

    def observe(tick):
        controlling.add(policy_and_nice())
        collecting.add(gc.isenabled())
        if thinking:
            loop.request_stop()

    robot = Forgetful(lambda observation: thinking.add(policy_and_nice()))
    loop = drives(MonotonicClock(), observe, robot, control_rate_hz=50.0, time_limit_s=60.0)
    assert loop.run_threaded(GO).ending is Ending.REQUESTED
    assert thinking == {before[0]}
    assert collecting == {False}
    if attainable() is Precedence.REAL_TIME:
        assert {policy for policy, _ in controlling} == {os.SCHED_FIFO}
    else:
        assert {policy for policy, _ in controlling} == {os.SCHED_OTHER}
    assert (policy_and_nice(), gc.isenabled(), sys.getswitchinterval()) == before


def test_a_simulated_drive_leaves_the_process_as_it_is():
    seen = set()
    clock = ManualClock()
    before = policy_and_nice(), gc.isenabled()
    loop = drives(clock, lambda tick: seen.add((policy_and_nice(), gc.isenabled())), time_limit_s=1.0)
    loop.run_blocking(GO)
    assert seen == {before}
