"""Random steps through the supervisor, and a second opinion on each: is every limit kept, is every state right?

    .venv/bin/python benchmarks/safety_steps.py            at least 1,000,000 steps, made by hypothesis
    .venv/bin/python benchmarks/safety_steps.py --steps N  another number

Prints the number of steps and sequences, the worst use of each limit (1 is the limit itself), and the violations.
"""

import argparse
import json
import math
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_vla.core import NS_PER_S, ZERO_TWIST, SafetyLatchedError, Twist
from mobile_vla.safety import (
    Clearance,
    ClearanceConfig,
    Inputs,
    Limits,
    Reason,
    SafetyConfig,
    SafetyState,
    Supervisor,
)
from mobile_vla.safety.states import TRANSITIONS

ROUNDING = 1e-9
S = NS_PER_S
R, H, P, E = SafetyState

WHEELED = Limits(
    wheel_matrix=((-17.3, 10.0, 2.5), (0.0, -20.0, 2.5), (17.3, 10.0, 2.5)),
    wheel_speed=(9.0, 10.0, 9.5),
    wheel_acceleration=(20.0, 25.0, 22.0),
    wheel_braking=(40.0, 45.0, 50.0),
)
SOFT = Limits(acceleration=(0.5, 0.4, 1.0), jerk=(1.0, 2.0, 3.0), braking=(0.9, 0.8, 2.0))
ALL_LIMITS = (Limits(), WHEELED, SOFT)
CONFIGS = (
    SafetyConfig(),
    SafetyConfig(heartbeat_after_s=0.4, recover_steps=1, hold_limit_s=0.7, max_commands_per_s=60.0),
    SafetyConfig(recover_steps=5, period_s=0.02, late_step_s=0.25, clearance=ClearanceConfig(0.2, 0.1)),
)
FREE = Clearance(np.array([0.0]), np.array([9.0]), 0)
WALLED_IN = Clearance(np.arange(0, 6.3, 0.1), np.full(63, 0.21), 0)
CORRIDOR = Clearance(np.array([0.0, 1.57, -1.57, 3.14]), np.array([0.9, 0.5, 0.4, 0.3]), 0)


@dataclass(frozen=True)
class Step:
    """What comes in one step: ages in ns (None: no stamp), and what somebody calls just before it."""

    tick_ns: int
    command: Twist | None
    age_ns: int | None = 0
    command_age_ns: int | None = None
    feedback_age_ns: int | None = None
    heartbeat_age_ns: int | None = 0
    range_age_ns: int | None = 0
    clearance: Clearance = FREE
    received: int = 1
    manual: bool = False
    idle: bool = False
    repeated: bool = False
    button: bool = False
    call: str = ""
    moving: bool = False

    def inputs(self, now_ns: int) -> Inputs:
        def stamp(age_ns: int | None) -> int | None:
            return None if age_ns is None else now_ns - age_ns

        range_ns = stamp(self.range_age_ns)
        return Inputs(
            self.command,
            capture_ns=stamp(self.age_ns),
            command_ns=stamp(self.command_age_ns),
            manual=self.manual,
            idle=self.idle,
            frame_repeated=self.repeated,
            emergency_stop=self.button,
            feedback_ns=stamp(self.feedback_age_ns),
            heartbeat_ns=stamp(self.heartbeat_age_ns),
            commands_received=self.received,
            clearance=None if range_ns is None else replace(self.clearance, stamp_ns=range_ns),
        )


AGES = (None, 0, S // 5, 2 * S // 5, 2 * S // 5 + 1, S // 2, S // 2 + 1, 3 * S, -S // 100, -S // 100 - 1, -S)
TROUBLES = [
    *({"age_ns": age} for age in AGES),
    *({"command_age_ns": age} for age in AGES),
    *({"feedback_age_ns": age} for age in AGES),
    *({"heartbeat_age_ns": age} for age in AGES),
    *({"range_age_ns": age} for age in AGES),
    *({"clearance": clearance} for clearance in (WALLED_IN, CORRIDOR, CORRIDOR)),
    *({"received": received} for received in (0, 5, 30, 101)),
    {"manual": True, "command_age_ns": 0},
    {"manual": True},
    {"idle": True},
    {"repeated": True, "age_ns": S},
    {"button": True},
    *({"call": call, "moving": moving} for call in ("rearm", "resume") for moving in (True, False, False)),
    *({"call": call} for call in ("begin", "emergency_stop", "stop", "rearm", "resume", "resume")),
    *({"tick_ns": tick} for tick in (0, -S // 10, 50_000, 100_000, S // 5 + 1, S, 60 * S)),
    *(
        {"command": command}
        for command in (None, Twist(math.nan, 0, 0), Twist(0, math.inf, 0), Twist(1e300, -1e300, 0))
    ),
]
SPEEDS = st.integers(-30, 30).map(lambda tenths: tenths / 10)
COMMANDS = st.one_of(
    st.sampled_from([Twist(0.5, 0.0, 0.1), Twist(-0.3, 0.6, 9.0), ZERO_TWIST]), st.builds(Twist, SPEEDS, SPEEDS, SPEEDS)
)
TICKS = st.sampled_from([S // 10] * 5 + [S // 50] * 4 + [S // 500, S // 5, S // 7])
STEPS = st.builds(
    lambda tick_ns, command, troubles: replace(
        Step(tick_ns, command), **{k: v for t in troubles for k, v in t.items()}
    ),
    TICKS,
    COMMANDS,
    st.one_of(st.just(()), st.just(()), st.lists(st.sampled_from(TROUBLES), max_size=3)),
)
WAYS = {(before, after) for (before, _), after in TRANSITIONS.items()}
RUNS = st.lists(st.tuples(STEPS, st.sampled_from([1, 1, 2, 3, 5, 8, 13, 55])), max_size=40)
"""Every step is repeated some times, so that ramps, holds and stops get the time that they need."""


@dataclass
class Tally:
    """What was seen over many sequences."""

    steps: int = 0
    sequences: int = 0
    moving: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    states: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    ways: Counter = field(default_factory=Counter)

    def within(self, name: str, value: float, limit: float, slack: float = 0.0) -> None:
        """``slack`` is what rounding to double precision may add to ``value``."""
        assert value <= limit * (1 + ROUNDING) + slack, f"{name}: {value} is more than {limit}"
        self.worst[name] = max(self.worst.get(name, 0.0), value / limit)


class Witness:
    """Drives one supervisor and knows, by a second and plainer account, what it must do."""

    def __init__(self, limits: Limits, config: SafetyConfig, tally: Tally) -> None:
        self.limits, self.config, self.tally = limits, config, tally
        self.supervisor = Supervisor(limits, config)
        self.now_ns = 0
        self.first = True
        self.state = H
        self.pressed = False
        self.good = 0
        self.not_run_ns: int | None = None
        self.arrivals: list[tuple[int, int]] = []
        self.rest_s = self.stop_s = 0.0
        self.before, self.before_acceleration, self.before_dt = np.zeros(3), np.zeros(3), math.inf
        tally.sequences += 1

    def step(self, step: Step) -> None:
        self.now_ns += step.tick_ns
        before_state = self.state
        self._call(step)
        failed = not self.first and step.tick_ns < 100_000
        period_ns = round(self.config.period_s * S)
        elapsed_ns = period_ns if failed or self.first else step.tick_ns
        self.first = False
        expected = self._expect(step, elapsed_ns, failed)
        called_state, self.state = self.state, expected
        safe = self.supervisor.step(self.now_ns, step.inputs(self.now_ns))
        self.tally.steps += 1
        self.tally.states[safe.state] += 1
        self.tally.reasons[safe.reason] += 1
        self.tally.ways[before_state, called_state] += 1
        self.tally.ways[called_state, safe.state] += 1
        if safe.reason is Reason.OBSTACLE:
            assert expected is R or expected is H
            assert self.config.clearance is not None
            self.good, self.state, expected = 0, H, H
        if safe.state is R:
            self.not_run_ns = 0
        assert safe.state is expected is self.supervisor.state, f"{safe.state} ({safe.reason}), not {expected}"
        assert safe.reason.state is safe.state
        assert safe.sentence
        for way in ((before_state, called_state), (called_state, safe.state)):
            assert way[0] is way[1] or way in WAYS, f"there is no way {way}"
        self._require_limits(np.array([safe.twist.vx, safe.twist.vy, safe.twist.wz]), elapsed_ns / S, safe.state)

    def _call(self, step: Step) -> None:
        measured = Twist(0.2, 0.0, 0.0) if step.moving else ZERO_TWIST
        rests = not step.moving and not self.before.any()
        if step.call == "stop":
            self.supervisor.stop(Reason.NODE_LOST, "because")
            self.state = max(self.state, P, key=lambda state: state.severity)
        elif step.call == "emergency_stop":
            self.supervisor.emergency_stop()
            self.state = E
        elif step.call == "begin":
            self._try(lambda: self.supervisor.begin(), self.state.is_stop)
            if not self.state.is_stop:
                self.state, self.good, self.not_run_ns, self.first = H, 0, None, True
                self.before, self.before_acceleration, self.before_dt = np.zeros(3), np.zeros(3), math.inf
        elif step.call == "rearm":
            granted = self.state is E and rests and not self.pressed
            self._try(lambda: self.supervisor.rearm(measured), self.state is E and not granted)
            self.state = P if granted else self.state
        elif step.call == "resume":
            granted = self.state is P and rests
            self._try(lambda: self.supervisor.resume(measured), self.state.is_stop and not granted)
            if granted:
                self.state, self.good, self.not_run_ns = H, 0, None
        assert self.supervisor.state is self.state, f"{self.supervisor.state} after {step.call!r}, not {self.state}"

    def _try(self, call, refused: bool) -> None:
        try:
            call()
            granted = True
        except SafetyLatchedError:
            granted = False
        assert granted is not refused, f"granted: {granted}, though it must be {not refused}"

    def _expect(self, step: Step, elapsed_ns: int, failed: bool) -> SafetyState:
        """The state that this step must lead to, were nothing in the way."""
        config, command = self.config, step.command
        ahead_ns = round(config.future_tolerance_s * S)

        def bad(age_ns: int | None, limit_s: float) -> bool:
            return age_ns is not None and not -ahead_ns <= age_ns <= round(limit_s * S)

        self.arrivals = [(at, n) for at, n in self.arrivals if self.now_ns - S < at <= self.now_ns]
        self.arrivals.append((self.now_ns, step.received))
        self.not_run_ns = None if step.idle or self.not_run_ns is None else self.not_run_ns + elapsed_ns
        self.pressed = step.button
        watched = config.heartbeat_after_s is not None
        emergency = step.button or (
            watched and not failed and bad(step.heartbeat_age_ns, config.heartbeat_after_s or 1)
        )
        asked = not step.idle and not failed
        protective = (
            (command is not None and not all(map(math.isfinite, (command.vx, command.vy, command.wz))))
            or (not failed and bad(step.feedback_age_ns, config.feedback_after_s))
            or sum(n for _, n in self.arrivals) > config.max_commands_per_s
            or (self.not_run_ns is not None and self.not_run_ns > config.hold_limit_s * S)
            or (asked and not step.manual and step.age_ns is not None and step.age_ns < -ahead_ns)
        )
        ranges = config.clearance is not None
        holding = (
            not asked
            or elapsed_ns > config.late_step_s * S
            or (watched and step.heartbeat_age_ns is None)
            or (not step.manual and (step.age_ns is None or bad(step.age_ns, config.stale_after_s)))
            or bad(step.command_age_ns, config.command_after_s)
            or command is None
            or (step.manual and step.command_age_ns is None)
            or (ranges and (step.range_age_ns is None or bad(step.range_age_ns, 0.5)))
        )
        if emergency or self.state is E:
            found = E
        elif protective or self.state is P:
            found = P
        else:
            found = H if holding else R
        self.good = self.good + 1 if not (emergency or protective or holding or self.state.is_stop) else 0
        return H if found is R and self.good < config.recover_steps else found

    def _require_limits(self, now: np.ndarray, dt_s: float, state: SafetyState) -> None:
        limits, tally = self.limits, self.tally
        braking = state.is_stop
        dt_s = dt_s if braking else min(dt_s, limits.longest_step_s)
        acceleration = (now - self.before) / dt_s
        slack = ROUNDING / dt_s
        strength = limits.braking if braking else limits.acceleration
        for axis, name in enumerate(("x", "y", "yaw")):
            tally.within(f"speed {name}", abs(now[axis]), limits.speed[axis])
            kind = "braking" if braking else "acceleration"
            tally.within(f"{kind} {name}", abs(acceleration[axis]), strength[axis], slack)
            if not braking and self.before_dt < math.inf:
                jerk = abs(acceleration[axis] - self.before_acceleration[axis]) / ((dt_s + self.before_dt) / 2)
                tally.within(f"jerk {name}", jerk, limits.jerk[axis], slack / dt_s)
        tally.within("planar speed", math.hypot(now[0], now[1]), limits.planar_speed)
        if limits.wheel_matrix:
            matrix = np.array(limits.wheel_matrix)
            caps = limits.wheel_braking if braking else limits.wheel_acceleration
            for speed, cap in zip(np.abs(matrix @ now), limits.wheel_speed, strict=True):
                tally.within("wheel speed", speed, cap)
            for change, cap in zip(np.abs(matrix @ acceleration), caps, strict=True):
                tally.within("wheel braking" if braking else "wheel acceleration", change, cap, slack * 100)
        self.rest_s = 0.0 if state is R else self.rest_s + dt_s
        self.stop_s = self.stop_s + dt_s if braking else 0.0
        if braking:
            assert (np.abs(now) <= np.abs(self.before) + ROUNDING).all(), "a stop speeds nothing up"
        if self.rest_s > limits.ramp_time_s + 3 * limits.longest_step_s or self.stop_s > limits.stop_time_s + ROUNDING:
            assert not now.any(), f"still moving {self.rest_s} s after it was told to come to rest"
        tally.moving += bool(now.any())
        self.before, self.before_dt = now, dt_s
        self.before_acceleration = np.zeros(3) if braking else acceleration


def drive(limits: Limits, config: SafetyConfig, run: list[tuple[Step, int]], tally: Tally) -> None:
    """One sequence of steps from rest; AssertionError where a limit or a state is not what it must be.

    Now and then somebody ends a stop, else most of a sequence would be spent in the first one.
    """
    witness, stopped = Witness(limits, config, tally), 0
    for step, times in run:
        for again in range(times):
            stopped = stopped + 1 if witness.state.is_stop else 0
            help_ = ("rearm" if witness.state is E else "resume") if stopped % 8 == 7 else ""
            witness.step(replace(step, call=help_ or ("" if again else step.call)))


SEQUENCES = (st.sampled_from(ALL_LIMITS), st.sampled_from(CONFIGS), RUNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    tally, violations, began = Tally(), [], time.monotonic()

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(*SEQUENCES)
    def batch(limits: Limits, config: SafetyConfig, run: list[tuple[Step, int]]) -> None:
        drive(limits, config, run, tally)

    while tally.steps < arguments.steps and not violations:
        try:
            batch()
        except AssertionError as error:
            violations.append(str(error))
    result = {
        "steps": tally.steps,
        "sequences": tally.sequences,
        "steps that moved": tally.moving,
        "violations": violations,
        "seconds": round(time.monotonic() - began, 1),
        "worst use of a limit": {name: round(value, 6) for name, value in sorted(tally.worst.items())},
        "steps in each state": dict(tally.states),
        "steps for each reason": dict(tally.reasons.most_common()),
        "changes of state": {f"{a} -> {b}": n for (a, b), n in sorted(tally.ways.items()) if a is not b},
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            if isinstance(value, dict):
                print(name, *(f"  {key:30} {amount:>12}" for key, amount in value.items()), sep="\n")
            else:
                print(f"{name:32} {value if value != [] else 0:>12}")
    raise SystemExit(bool(violations))


if __name__ == "__main__":
    main()
