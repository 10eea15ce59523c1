"""The judge: asks every watchdog about one step. It keeps no state of the robot; the supervisor does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S, Twist
from mobile_vla.safety.clearance import Clearance, Room
from mobile_vla.safety.config import SafetyConfig
from mobile_vla.safety.envelope import Limits
from mobile_vla.safety.states import Finding, Reason
from mobile_vla.safety.watchdog import AgeWatch, CommandRate, judge_observation


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one step is judged by. Every stamp is on the clock of the step's ``now_ns``.

    ``command``: the velocity wanted now, None for nothing. ``capture_ns``: capture of the observation behind it, None
    before the first. ``command_ns``: when the newest chunk or operator's message arrived, None before the first or
    where the stream is not watched. ``manual``: a person drives, so the age of the command counts and not that of the
    observation. ``idle``: nothing is asked of the robot; it holds for as long as that lasts. ``frame_repeated``: since
    that capture the camera gave only repeats. ``emergency_stop``: the button is pressed now. ``feedback_ns``: when the
    base last measured its velocity, None when that is not watched in this step. ``heartbeat_ns``: last sign of life of
    the operator's station, None before the first. ``commands_received``: chunks or messages since the last step.
    ``clearance``: newest reading of the range sensor.
    """

    command: Twist | None
    capture_ns: int | None = None
    command_ns: int | None = None
    manual: bool = False
    idle: bool = False
    frame_repeated: bool = False
    emergency_stop: bool = False
    feedback_ns: int | None = None
    heartbeat_ns: int | None = None
    commands_received: int = 0
    clearance: Clearance | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """When a step is. ``elapsed_ns``: since the last step, the nominal period where the clock failed.

    ``not_run_ns``: since the last step that drove, None where that does not count.
    """

    now_ns: int
    elapsed_ns: int
    clock_failed: bool
    not_run_ns: int | None


class Judge:
    """Holds the inputs of each step against the limits of a ``SafetyConfig``."""

    def __init__(self, limits: Limits, config: SafetyConfig) -> None:
        self._config = config
        self._limits = limits
        tolerance_s, clearance = config.future_tolerance_s, config.clearance
        self._observation = AgeWatch(config.stale_after_s, tolerance_s)
        self._commands = AgeWatch(config.command_after_s, tolerance_s)
        self._feedback = AgeWatch(config.feedback_after_s, tolerance_s)
        heartbeat_after_s = config.heartbeat_after_s
        self._heartbeat = None if heartbeat_after_s is None else AgeWatch(heartbeat_after_s, tolerance_s)
        self._range = None if clearance is None else AgeWatch(clearance.stale_after_s, tolerance_s)
        self._room = None if clearance is None else Room(clearance, limits)
        self._rate = CommandRate()

    def worst(self, moment: Moment, inputs: Inputs) -> Finding | None:
        """The most severe finding; among equals the first, in the order of the methods below."""
        findings = (*self._of_station(moment, inputs), *self._of_loop(moment, inputs), *self._of_data(moment, inputs))
        return max(findings, key=lambda finding: finding.reason.state.severity, default=None)

    def share(self, now_ns: int, inputs: Inputs, velocity: Twist) -> float:
        """The share of the command, 0 to 1, that the room round the robot allows; to ask when nothing was found.

        ``velocity``: what the robot does now, which may lead elsewhere than the command, and lasts while it changes.
        """
        if self._room is None or inputs.clearance is None or inputs.command is None:
            return 1.0
        age_s = (now_ns - inputs.clearance.stamp_ns) / NS_PER_S
        wanted = self._limits.fit(inputs.command)
        return min(self._room.share(inputs.clearance, twist, age_s) for twist in (wanted, velocity))

    def _of_station(self, moment: Moment, inputs: Inputs) -> Iterator[Finding]:
        """What the operator's station says."""
        if inputs.emergency_stop:
            yield Finding(Reason.EMERGENCY_STOP, "the emergency stop is pressed")
        if self._heartbeat is None:
            return
        if inputs.heartbeat_ns is None:
            yield Finding(Reason.NO_HEARTBEAT, "there is no sign of life of the operator's station yet")
        elif not moment.clock_failed:
            distrusted = self._heartbeat.distrusted(moment.now_ns, inputs.heartbeat_ns)
            if distrusted is not None:
                yield Finding(Reason.HEARTBEAT_LOST, f"the operator's last sign of life is {distrusted}")

    def _of_loop(self, moment: Moment, inputs: Inputs) -> Iterator[Finding]:
        """What goes on in the control loop and its base, whether or not anything is asked of the robot."""
        command, config = inputs.command, self._config
        if command is not None and not all(map(math.isfinite, (command.vx, command.vy, command.wz))):
            yield Finding(Reason.NON_FINITE_COMMAND, f"the command {command} is not finite")
        if inputs.feedback_ns is not None and not moment.clock_failed:
            distrusted = self._feedback.distrusted(moment.now_ns, inputs.feedback_ns)
            if distrusted is not None:
                yield Finding(Reason.FEEDBACK_LOST, f"the base's last measured velocity is {distrusted}")
        count = self._rate.count(moment.now_ns, inputs.commands_received)
        if count > config.max_commands_per_s:
            many = f"{count} commands came within a second, more than {config.max_commands_per_s:g}"
            yield Finding(Reason.COMMAND_FLOOD, many)
        if moment.not_run_ns is not None and moment.not_run_ns > config.hold_limit_s * NS_PER_S:
            waited = f"{moment.not_run_ns / NS_PER_S:.3f} s, more than {config.hold_limit_s:.3f} s"
            yield Finding(Reason.HELD_TOO_LONG, f"the robot has not driven for {waited}")
        if moment.clock_failed:
            # No age is to be believed either, so none is judged: a frame may only seem to come from the future.
            yield Finding(Reason.CLOCK_NOT_ADVANCING, "the clock stood still or went back since the last step")
        if moment.elapsed_ns > config.late_step_s * NS_PER_S:
            late = f"{moment.elapsed_ns / NS_PER_S:.3f} s, more than {config.late_step_s:.3f} s"
            yield Finding(Reason.LOOP_LATE, f"this step came {late} after the one before")
        if inputs.idle:
            yield Finding(Reason.IDLE, "nothing is asked of the robot")

    def _of_data(self, moment: Moment, inputs: Inputs) -> Iterator[Finding]:
        """What the command rests on, while something is asked and ages can be known."""
        if inputs.idle or moment.clock_failed:
            return
        now_ns = moment.now_ns
        if not inputs.manual:
            observation = judge_observation(self._observation, now_ns, inputs.capture_ns, inputs.frame_repeated)
            if observation is not None:
                yield observation
        if inputs.command_ns is not None:
            distrusted = self._commands.distrusted(now_ns, inputs.command_ns)
            if distrusted is not None:
                yield Finding(Reason.COMMAND_TOO_OLD, f"the newest command is {distrusted}")
        if inputs.command is None or (inputs.manual and inputs.command_ns is None):
            yield Finding(Reason.NO_COMMAND, "there is no command for now")
        if self._range is not None:
            if inputs.clearance is None:
                yield Finding(Reason.RANGE_TOO_OLD, "there is no reading of the range sensor yet")
            else:
                distrusted = self._range.distrusted(now_ns, inputs.clearance.stamp_ns)
                if distrusted is not None:
                    yield Finding(Reason.RANGE_TOO_OLD, f"the newest reading of the range sensor is {distrusted}")
