"""The episode that is being recorded: which frames it takes, what is asked for after each, and who asked."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import NS_PER_S, ZERO_TWIST, ActionContract, Frame, Twist
from mobile_vla.data import Recording, schema
from mobile_vla.record.checks import Facts, Report, check
from mobile_vla.record.drivers import EXTRA_FRAMES_BY, Driver, driver_of_episode, frames_by
from mobile_vla.record.film import Strip
from mobile_vla.record.sampler import FrameSampler
from mobile_vla.robot.cameras.health import HealthWatch

EXTRA_CHECKS = "checks"
"""Beside an episode: "passed", or the names of the checks that were bad and with which it was kept all the same."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One control step. ``frame``: a new one of the camera, with the velocity measured at its capture; else None.

    ``wanted``: what was asked for in this step, before the safety layer. ``running``: it let the robot move.
    ``stopped``: why it stopped the robot until somebody acts, else None; a released stick is no such stop.
    """

    frame: Frame | None
    measured: Twist
    wanted: Twist | None
    driver: Driver
    running: bool
    stopped: str | None = None


class Draft:
    """Feeds a ``Recording`` of the data set; call ``step`` once a control step and ``end`` once.

    A frame's ``action`` is what was asked for in the step that read it. Its ``action.chunk`` is what the operator asked
    for from there on, one row a control step, zero after the end of the episode, since the robot was stopped then; it
    is left empty where another drove in any of these steps. So a frame is handed on ``horizon`` steps after it came.
    """

    def __init__(self, recording: Recording, contract: ActionContract) -> None:
        self._recording, self._contract = recording, contract
        self._sampler = FrameSampler(contract.frame_rate_hz, slack_s=0.5 / contract.rate_hz)
        self._health = HealthWatch()
        self._waiting: deque[tuple[int, dict[str, Any]]] = deque()
        self._actions: list[NDArray[np.float32]] = []
        self._by: list[Driver] = []
        self._frames: list[tuple[int, NDArray[np.float32], NDArray[np.float32], Driver]] = []
        self._asked = self._held = 0
        self._stop: str | None = None

    @property
    def frames(self) -> int:
        """Taken so far."""
        return len(self._frames)

    @property
    def steps(self) -> int:
        """Control steps so far."""
        return len(self._actions)

    @property
    def lasted_s(self) -> float:
        """From the first frame to the last."""
        return (self._frames[-1][0] - self._frames[0][0]) / NS_PER_S if self._frames else 0.0

    @property
    def size_bytes(self) -> int:
        """Of the images that were coded so far."""
        return sum(map(len, self._recording.jpegs))

    @property
    def coded_frames(self) -> int:
        """Frames that ``size_bytes`` counts."""
        return self._recording.length

    @property
    def recording(self) -> Recording:
        """What it feeds."""
        return self._recording

    def step(self, moment: Moment) -> None:
        """One control step. DatasetError when a frame does not fit the data set."""
        limits = self._contract.limits_array
        action = np.clip((moment.wanted or ZERO_TWIST).as_array(), -limits, limits)
        frame = moment.frame
        if frame is not None and self._sampler.takes(frame):
            self._health.look(frame)
            measured = moment.measured.as_array()
            self._frames.append((frame.capture_ns, action, measured, moment.driver))
            row = {
                schema.IMAGE_FRONT: frame.pixels,
                schema.STATE: measured,
                schema.ACTION: action,
                schema.CAPTURE_NS: frame.capture_ns,
                schema.SEQUENCE: frame.sequence,
            }
            self._waiting.append((len(self._actions), row))
        self._actions.append(action)
        self._by.append(moment.driver)
        if action.any():
            self._asked += 1
            self._held += not moment.running
        self._stop = self._stop or moment.stopped
        self._hand_on()

    def end(self) -> Report:
        """Nothing more comes: note who drove, and judge the episode."""
        horizon = self._contract.horizon
        drivers = [driver for _, _, _, driver in self._frames]
        self._actions += [ZERO_TWIST.as_array()] * horizon
        self._by += [Driver.OPERATOR] * horizon
        self._hand_on()
        self._recording.note(
            **{schema.EXTRA_DRIVER: driver_of_episode(drivers), EXTRA_FRAMES_BY: frames_by(drivers)},
        )
        empty = np.zeros((0, 3), dtype=np.float32)
        facts = Facts(
            contract=self._contract,
            capture_ns=np.array([stamp for stamp, _, _, _ in self._frames], dtype=np.int64),
            actions=np.stack([action for _, action, _, _ in self._frames]) if self._frames else empty,
            measured=np.stack([measured for _, _, measured, _ in self._frames]) if self._frames else empty,
            health=self._health.summary,
            held_share=self._held / self._asked if self._asked else 0.0,
            stop=self._stop,
        )
        report = check(facts)
        self._recording.note(**{EXTRA_CHECKS: "passed" if report.keep else ", ".join(report.bad)})
        return report

    def strip(self) -> Strip:
        """What a film is made of, after ``end``."""
        columns = self._recording.columns()
        return Strip(
            list(self._recording.jpegs),
            columns[schema.ACTION],
            columns[schema.STATE],
            [driver for _, _, _, driver in self._frames],
        )

    def _hand_on(self) -> None:
        horizon = self._contract.horizon
        while self._waiting and self._waiting[0][0] + horizon <= len(self._actions):
            start, row = self._waiting.popleft()
            if all(driver is Driver.OPERATOR for driver in self._by[start : start + horizon]):
                row[schema.ACTION_CHUNK] = np.concatenate(self._actions[start : start + horizon])
            self._recording.add(row)
