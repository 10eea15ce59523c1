"""A robot of processes for drills, soak and latencies: ``mobile-vla up``, and an operator who talks to it."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from typing_extensions import Self

from mobile_vla.core import MobileVLAError
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import diagnoses, empty, string
from mobile_vla.ros.topics import DIAGNOSTICS, INSTRUCTION, RESUME, SAFETY, SIM_SCENE, SIM_VERDICT
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.safety import SafetyState

START_S = 90.0
_STARTED = re.compile(r"(\w+) started, process (\d+)")


class DrillError(MobileVLAError):
    """The robot did not do what a drill needs before its fault, so there is no result."""


def wait_until(holds: Callable[[], object], limit_s: float, what: str) -> None:
    """Poll until ``holds``; DrillError naming ``what`` when it has not come true after ``limit_s``."""
    end_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end_s:
            raise DrillError(f"within {limit_s:g} s this did not happen: {what}")
        time.sleep(0.01)


def end_politely() -> None:
    """Let SIGTERM and Ctrl-C end this program as an exception does, so that what it started ends with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)


def wire_words(domain: int) -> list[str]:
    """How every process of a drill speaks: on a domain of its own, on this machine alone."""
    return [f"--domain={domain}", "--localhost"]


class Process:
    """One process of ours: a module or a script under this Python. Killed at the end, whatever state it is in."""

    errors: int | None = None

    def __init__(self, *words: str, around: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> None:
        self.words, self._around, self._environment = words, around, environment
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        command = [*self._around, sys.executable, *self.words]
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=self._environment,
        )
        self._reader = threading.Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self.popen.pid

    def line(self, text: str) -> None:
        """What it prints; to be replaced where that matters."""

    def tell(self, word: str) -> None:
        """A line to its standard input."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(word + "\n")
        self.popen.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.popen.kill()
        self._end()

    def close(self, limit_s: float = 20.0) -> None:
        """SIGTERM, then SIGKILL."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.popen.kill()
        self._end()

    def _end(self) -> None:
        self.popen.wait()
        self._reader.join(5.0)
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self, pipe) -> None:
        for text in pipe:
            self.line(text.rstrip("\n"))


class Node(Process):
    """``mobile-vla node NAME``, started without ``up``."""

    def __init__(self, name: str, *words: str, around=(), environment=None) -> None:
        super().__init__("-m", "mobile_vla", "node", name, *words, around=around, environment=environment)


class Up(Process):
    """``mobile-vla up``; ``pids`` follows its children, ``said`` is what it and they printed."""

    errors = subprocess.STDOUT

    def __init__(self, *words: str) -> None:
        self.pids: dict[str, int] = {}
        self.said: list[str] = []
        super().__init__("-m", "mobile_vla", "up", *words)

    def line(self, text: str) -> None:
        """Remember it, and the process number in it."""
        self.said.append(text)
        started = _STARTED.match(text)
        if started is not None:
            self.pids[started[1]] = int(started[2])


class Operator:
    """Speaks to the robot and hears how it does. ``safety`` and ``verdict`` are the newest; ``heard``: when a node
    last said that it lives, on the monotonic clock."""

    def __init__(self, domain: int, localhost: bool = True) -> None:
        self.safety: dict[str, str] = {}
        self.safety_ns = 0
        self.verdict: dict[str, object] = {}
        self.heard: dict[str, int] = {}
        self.health: dict[str, tuple[int, str]] = {}
        self._transport = connect(NodeConfig("drill_operator", domain=domain, localhost_only=localhost))
        self._instruction = self._transport.publisher(INSTRUCTION)
        self._resume, self._scene = self._transport.publisher(RESUME), self._transport.publisher(SIM_SCENE)
        self._transport.subscribe(SAFETY, self._on_safety)
        self._transport.subscribe(SIM_VERDICT, self._on_verdict)
        self._transport.subscribe(DIAGNOSTICS, self._on_diagnostics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def state(self) -> str:
        """Of the safety layer."""
        return self.safety.get("state", "")

    @property
    def running(self) -> bool:
        """The safety layer lets the robot drive."""
        return self.state == SafetyState.RUNNING

    @property
    def stopped(self) -> bool:
        """The safety layer waits for a person."""
        return self.state in (SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP)

    def alive_since(self, name: str, stamp_ns: int) -> bool:
        """The node has said so since then."""
        return self.heard.get(name, 0) > stamp_ns

    def wait_for(self, *nodes: str, since_ns: int = 0, limit_s: float = START_S) -> None:
        """Until each of these has said that it lives."""
        wait_until(
            lambda: all(self.alive_since(name, since_ns) for name in nodes), limit_s, f"{', '.join(nodes)} came up"
        )

    def say(self, text: str) -> None:
        """Tell it where to go; DrillError when it is not accepted within seconds."""
        wait_until(lambda: self._instruction.readers > 0, 10.0, "control listens")
        self._instruction.publish(string(text))
        wait_until(lambda: self.safety.get("instruction") == text, 10.0, f"control accepted {text!r}")

    def rest(self) -> None:
        """End what it does, undo a protective stop, and wait until it holds with nothing to do."""
        end_s = time.monotonic() + 20.0
        while self.state != SafetyState.HOLDING or self.safety.get("instruction"):
            if time.monotonic() > end_s:
                raise DrillError(f"the robot did not come to rest: {self.safety}")
            if self._instruction.readers and self.safety.get("instruction"):
                self._instruction.publish(string(""))
            elif self.state == SafetyState.PROTECTIVE_STOP:
                self._resume.publish(empty())
            time.sleep(0.25)

    def scene(self, scenario: str, seed: int) -> None:
        """Put the robot at the start of a scene."""
        wait_until(lambda: self._scene.readers > 0, 10.0, "the simulated robot listens")
        self.verdict = {}
        self._scene.publish(string(json.dumps({"scenario": scenario, "seed": seed})))
        wait_until(lambda: self.verdict.get("loaded") == scenario, 20.0, f"scene {scenario} {seed} was loaded")

    def _on_safety(self, received) -> None:
        self.safety_ns, self.safety = received.received_ns, dict(diagnoses(received.message)[0].values)

    def _on_verdict(self, received) -> None:
        self.verdict = json.loads(received.message.data)

    def _on_diagnostics(self, received) -> None:
        for diagnosis in diagnoses(received.message):
            name = diagnosis.name.rpartition("/")[2]
            self.heard[name] = received.received_ns
            self.health[name] = (diagnosis.level, diagnosis.message)
