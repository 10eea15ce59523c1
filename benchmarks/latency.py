"""From the camera's stamp to the command: over four processes, in one process, and beside a bare DDS round trip.

The camera is the test pattern, the base is the one of numbers. Two policies: one that drives straight on and takes 3 ms
on each of 30 frames a second, and the shipped one, which decides on 5 frames a second. Then the jitter of the control
loop, idle and beside two processes that use all they get: how late each step began, and by how much the time between
two steps differed from the period. At last what a policy says that is slower than its rate.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drill_robot import DrillError, Node, Operator, Process, end_politely, wait_until, wire_words
from drill_stub import StraightOn
from latency_dds import round_trips_ms
from machine import describe
from mobile_vla.core import Instruction, MonotonicClock, Policy
from mobile_vla.policy.weights import SHIPPED, load_policy
from mobile_vla.robot.bases.ideal import Ideal
from mobile_vla.robot.cameras.pattern import Pattern
from mobile_vla.runtime import DriveConfig, DriveLoop, Tick
from mobile_vla.safety import SafetyState, Supervisor

HERE = Path(__file__).resolve().parent
CONTROL_HZ = 50.0
WORDS = "go to the red cup"
SETTLE_S = 3.0
SPEND_S = 0.003
BUSY = "while True: pass"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
PARTS = ("wire", "straight", "shipped", "jitter", "slow")


class Control(Process):
    """``latency_control.py``; ``noted`` asks it for what came since the last time.

    ``unprivileged``: root's runs as nobody, without the right to precedence; needs util-linux. Others have no more.
    """

    def __init__(self, domain: int, unprivileged: bool = False) -> None:
        self._answers: list[str] = []
        around = NOBODY if unprivileged and os.geteuid() == 0 else ()
        super().__init__(str(HERE / "latency_control.py"), f"--domain={domain}", around=around)

    def line(self, text: str) -> None:
        """An answer."""
        self._answers.append(text)

    def noted(self) -> dict[str, list[float]]:
        """See ``latency_control``."""
        return self._ask("now")

    def precedence(self) -> str:
        """What its control thread was granted."""
        return self._ask("precedence")

    def _ask(self, word: str) -> Any:
        count = len(self._answers)
        self.tell(word)
        wait_until(lambda: len(self._answers) > count, 30.0, "the control node answered")
        return json.loads(self._answers[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera")
    parser.add_argument("--domain", type=int, default=94)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--unprivileged", action="store_true", help="measure the jitter of a control node of nobody's")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    end_politely()
    torch.set_num_threads(1)
    if not options.json:
        describe()
    width, height = map(int, options.size.split("x"))
    camera = Pattern(width=width, height=height, rate_hz=options.rate)
    seconds, domain = options.seconds, options.domain
    stub = [str(HERE / "drill_stub.py"), f"--domain={domain}", f"--rate-hz={options.rate}"]
    found: dict[str, list[float]] = {}
    slow = None
    parts = options.only or PARTS
    if "wire" in parts:
        found["bare DDS, image there and back"] = round_trips_ms(domain, width, height, options.rate, seconds / 2)
    if "straight" in parts:
        four = _four(domain, camera, Process, [*stub, f"--spend-ms={1e3 * SPEND_S}"], seconds)
        found["four processes, straight on: stamp to chunk"] = four["taken_ms"]
        found["four processes, straight on: stamp to command"] = four["used_ms"]
        straight = StraightOn(options.rate, SPEND_S, 0.3)
        found["one process, straight on: stamp to command"] = _one(camera, straight, seconds)
    if "shipped" in parts:
        four = _four(domain, camera, Node, ["inference", *wire_words(domain)], 2 * seconds)
        found["four processes, shipped policy: stamp to chunk"] = four["taken_ms"]
        found["four processes, shipped policy: stamp to command"] = four["used_ms"]
        found["one process, shipped policy: stamp to command"] = _one(camera, load_policy(SHIPPED), 2 * seconds)
    if "jitter" in parts:
        for busy, beside in ((0, "idle"), (2, "two busy processes")):
            precedence, late, period = _jitter(domain, busy, seconds, options.unprivileged)
            found[f"{precedence}, {beside}: step late by"] = late
            found[f"{precedence}, {beside}: period error"] = period
    if "slow" in parts:
        slow = _slow(domain, camera, [*stub[:2], "--rate-hz=5", "--spend-ms=300"])
    if options.json:
        print(json.dumps({"ms": {name: _quantiles(values) for name, values in found.items()}, "slow": slow}))
        return 0
    print(f"{f'{options.size}, {options.rate:g} Hz':52}{'p50':>8}{'p99':>8}{'max':>8} ms")
    for name, values in found.items():
        q = _quantiles(values)
        print(f"{name:52}{q['p50']:8.2f}{q['p99']:8.2f}{q['max']:8.2f}   ({len(values)} times)")
    if slow is not None:
        print(f"a policy of 300 ms at 5 Hz says of itself, at level {slow[0]}: {slow[1]}")
    return 0


def _quantiles(values: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(values), "times": len(values)}


def _up(stack: ExitStack, domain: int, camera: Pattern, kind: Callable[..., Process], inference: list[str]):
    settings = [f"camera.{key}={getattr(camera, key)}" for key in ("width", "height", "rate_hz")]
    operator = stack.enter_context(Operator(domain))
    control = Control(domain)
    stack.callback(control.close)
    nodes = [
        Node("camera", *wire_words(domain), "camera.kind=pattern", "base.kind=ideal", *settings),
        kind(*inference),
        Node("monitoring", *wire_words(domain)),
    ]
    for node in nodes:
        stack.callback(node.close)
    operator.wait_for("control", "camera", "inference", "monitoring")
    time.sleep(1.0)
    return operator, control


def _four(domain: int, camera: Pattern, kind: Callable[..., Process], inference: list[str], seconds: float):
    """What control noted while the robot was told to go on and on."""
    with ExitStack() as stack:
        operator, control = _up(stack, domain, camera, kind, inference)
        operator.say(WORDS)
        time.sleep(SETTLE_S)
        control.noted()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if not operator.safety.get("instruction"):  # the policy has found the cup, or that there is none
                operator.say(WORDS)
            time.sleep(0.1)
        return control.noted()


def _one(camera: Pattern, policy: Policy, seconds: float) -> list[float]:
    """The same in ``DriveLoop.run_threaded``: the first command after each decision."""
    clock = MonotonicClock()
    device, base = camera.build(clock), Ideal().build(clock)
    delays: list[float] = []
    seen = [0]

    def note(tick: Tick) -> None:
        if tick.frame is not None and tick.frame.capture_ns != seen[0]:
            seen[0] = tick.frame.capture_ns
            delays.append((clock.now_ns() - tick.frame.capture_ns) / 1e6)

    def drive(seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0.2:  # the policy may find the cup, or that there is none
            config = DriveConfig(time_limit_s=left_s, control_rate_hz=CONTROL_HZ)
            loop = DriveLoop(device, base, policy, Supervisor(), clock, config, note)
            outcome = loop.run_threaded(Instruction(WORDS))
            if outcome.error is not None:
                raise outcome.error

    device.open()
    base.open()
    try:
        drive(SETTLE_S)
        delays.clear()
        drive(seconds)
    finally:
        device.close()
        base.close()
    return delays


def _jitter(domain: int, busy: int, seconds: float, unprivileged: bool) -> tuple[str, list[float], list[float]]:
    """What precedence the control thread of 50 Hz has, how late its steps were, and the errors of its period."""
    with ExitStack() as stack:
        control = Control(domain, unprivileged)
        stack.callback(control.close)
        stack.enter_context(Operator(domain)).wait_for("control")
        for _ in range(busy):
            process = subprocess.Popen([sys.executable, "-c", BUSY])
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(SETTLE_S)
        control.noted()
        time.sleep(seconds)
        noted = control.noted()
        return control.precedence(), noted["late_ms"], noted["period_ms"]


def _slow(domain: int, camera: Pattern, inference: list[str]) -> tuple[int, str]:
    """Level and sentence of the inference node on /diagnostics."""
    with ExitStack() as stack:
        operator, _ = _up(stack, domain, camera, Process, inference)
        operator.say(WORDS)
        wait_until(lambda: operator.health["inference"][0] > 0, 30.0, "the slow policy was reported")
        if operator.state not in (SafetyState.RUNNING, SafetyState.HOLDING):
            raise DrillError(f"the robot is in {operator.state}")
        return operator.health["inference"]


if __name__ == "__main__":
    raise SystemExit(main())
