"""A robot without hardware on a ManualClock, and a stick that follows a script."""

import threading
import time

import numpy as np

from mobile_vla.core import NS_PER_S, ActionContract, Frame, ManualClock
from mobile_vla.data import EpisodeWriter
from mobile_vla.record.hands import HandLoop
from mobile_vla.record.plan import Cell, Plan, Words
from mobile_vla.record.session import RecordSession, SessionConfig
from mobile_vla.safety import SafetyConfig, Supervisor
from mobile_vla.teleop import NO_SHARES, StickState
from robot.simple import CountingCamera, FollowingBase

SHAPE = (8, 16, 3)
CONTRACT = ActionContract()
LIMIT_S = 60.0


class NoisyCamera(CountingCamera):
    """10 frames a second of noise, bright enough not to be black."""

    def __init__(self, clock, rate_hz=10.0, shape=SHAPE):
        super().__init__(clock, rate_hz)
        self.shape = shape
        self.rng = np.random.default_rng(1)
        self.frozen = None
        self.failure = None

    def read(self, timeout_s):
        if self.failure is not None:
            raise self.failure
        frame = super().read(timeout_s)
        if frame is None:
            return None
        pixels = self.frozen if self.frozen is not None else self.rng.integers(30, 220, self.shape, dtype=np.uint8)
        return Frame(pixels, frame.capture_ns, frame.clock, frame.camera, frame.sequence)


class ScriptedStick:
    """Step k of the loop reads ``script[k]``: (shares, buttons) or None for a stick that is gone; then it is over."""

    name = "script"

    def __init__(self, clock, over, script=()):
        self.clock, self.over, self.script, self.step = clock, over, list(script), 0

    def open(self):
        pass

    def close(self):
        pass

    def read(self):
        said = self.script[self.step] if self.step < len(self.script) else (NO_SHARES, ())
        self.step += 1
        if self.step >= len(self.script):
            self.over.set()
        if said is None:
            return StickState(stamp_ns=self.clock.now_ns())
        shares, buttons = said
        return StickState(shares, any(shares), frozenset(buttons), self.clock.now_ns(), True)


def still(steps, *buttons):
    """Untouched for so many steps; the buttons are pressed in the first."""
    return [(NO_SHARES, buttons), *[(NO_SHARES, ())] * (steps - 1)]


def push(steps, *buttons, shares=(1.0, 0.0, 0.0)):
    return [(shares, buttons), *[(shares, ())] * (steps - 1)]


class Rig:
    """Everything that a HandLoop needs, in the time of one clock."""

    def __init__(self, script=(), camera=True, base=None, safety=None):
        self.clock = ManualClock()
        self.over = threading.Event()
        self.stick = ScriptedStick(self.clock, self.over, script)
        self.base = base or FollowingBase(self.clock)
        self.base.open()
        self.camera = NoisyCamera(self.clock) if camera else None
        if self.camera:
            self.camera.open()
        self.supervisor = Supervisor(config=safety or SafetyConfig())
        self.steps, self.said = [], []
        self.loop = HandLoop(
            self.stick, self.base, self.supervisor, self.clock, CONTRACT, self.camera, self.listen, self.said.append
        )

    def listen(self, step):
        self.steps.append(step)

    def run(self):
        self.loop.run(self.over)
        return self.steps


class Audience:
    def __init__(self):
        self.said, self.reports, self.statuses = [], [], []

    def say(self, sentence):
        self.said.append(sentence)

    def show(self, step, status):
        self.statuses.append(status)

    def report(self, report):
        self.reports.append(report)


def cell(name, count=2, distance="close"):
    words = tuple(Words(f"{name} {language}", language, None, "own") for language in ("en", "ko"))
    return Cell(name, distance, count, words)


PLAN = Plan((cell("a"), cell("b")))


class SessionRig(Rig):
    """A rig that records into ``root``. Before each step it waits for the disk, so that scripts know where they are."""

    def __init__(self, root, script=(), plan=PLAN, config=None, pilot=None, first=None, guard=None, **settings):
        super().__init__(script, **settings)
        self.audience = Audience()
        self.writer = EpisodeWriter(root, CONTRACT, SHAPE, {"clock": "simulation"}, min_free_bytes=0)
        self.session = RecordSession(
            self.loop,
            self.writer,
            plan,
            self.audience,
            self.over,
            config=config or SessionConfig(),
            pilot=pilot(self) if pilot else None,
            first=first,
            guard=guard,
        )

    def listen(self, step):
        deadline = time.monotonic() + LIMIT_S
        while self.session._saving is not None and not self.session._saving.done():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        super().listen(step)
        self.session.step(step)

    def run(self):
        try:
            self.loop.run(self.over)
        finally:
            self.summary = self.session.finish()
            self.writer.close()
        return self.summary


PERIOD_NS = NS_PER_S // 10
