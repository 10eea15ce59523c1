"""The robots that the drills are done to, each with a recorder beside it.

``Simulated``: ``mobile-vla up`` with the simulated robot outside it, and a camera driver that can fail. ``Apart``: the
policy on another machine, which is a network namespace behind a cable of two virtual ends. ``Wheeled``: a LeKiwi on a
simulated servo bus, and a policy that drives straight on.
"""

import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Self

from drill_relay import TOPIC as CAMERA_TOPIC
from drill_robot import DrillError, Node, Operator, Process, Up, wait_until, wire_words
from mobile_vla.core import NS_PER_S
from mobile_vla.evaluate.plan import plan_episodes
from mobile_vla.language import Grammar

HERE = Path(__file__).resolve().parent
AT_SPEED_MPS = 0.2
SPEED_LIMIT_S = 8.0
TRIES = 8
ADDRESSES = ("10.213.7.1", "10.213.7.2")


class Sample(NamedTuple):
    """One line of the recorder; ``state`` and ``reason`` of the safety layer alone."""

    ns: int
    vx: float
    vy: float
    wz: float
    state: str = ""
    reason: str = ""

    @property
    def speed(self) -> float:
        """Planar, in m/s."""
        return float((self.vx**2 + self.vy**2) ** 0.5)

    @property
    def is_zero(self) -> bool:
        """No axis moves."""
        return self.vx == self.vy == self.wz == 0.0


class Recorder(Process):
    """``drill_recorder.py``; commands, odometry and safety as they came."""

    def __init__(self, *words: str) -> None:
        self.heard: dict[str, list[Sample]] = {"c": [], "o": [], "s": []}
        super().__init__(str(HERE / "drill_recorder.py"), *words)

    @property
    def speed(self) -> float:
        """As measured last."""
        return self.heard["o"][-1].speed if self.heard["o"] else 0.0

    def line(self, text: str) -> None:
        """Keep it."""
        letter, ns, *rest = text.split()
        self.heard[letter].append(Sample(int(ns), *map(float, rest[:3]), *rest[3:]))

    def since(self, letter: str, ns: int) -> list[Sample]:
        """What came after ``ns``."""
        samples = self.heard[letter]
        first = next((k for k in range(len(samples) - 1, -1, -1) if samples[k].ns <= ns), -1)
        return samples[first + 1 :]


class System:
    """A robot that is up, told where to go, and brought to rest again between two drills."""

    operator: Operator
    recorder: Recorder

    def __init__(self, domain: int) -> None:
        self.domain, self.words = domain, wire_words(domain)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Bring it up."""
        raise NotImplementedError

    def own(self, process):
        """End it with the system."""
        self._stack.callback(process.close)
        return process

    def hear(self, *words: str, localhost: bool = True) -> None:
        """Recorder and operator."""
        self.recorder = self.own(Recorder(*words))
        self.operator = self._stack.enter_context(Operator(self.domain, localhost))

    def drive(self, chance: random.Random) -> None:
        """Bring it to driving at speed: at rest, a new scene and instruction, and on to a random moment."""
        for _ in range(TRIES):
            self.operator.rest()
            self.begin(chance)
            try:
                wait_until(lambda: self.at_speed, SPEED_LIMIT_S, "the robot drove at speed")
            except DrillError:
                continue
            time.sleep(chance.uniform(0.0, 1.0))
            if self.at_speed:
                return
        raise DrillError(f"the robot did not drive at speed in {TRIES} scenes")

    @property
    def at_speed(self) -> bool:
        """It drives, by its safety layer and by what its base measures."""
        return self.operator.running and self.recorder.speed > AT_SPEED_MPS

    def told_since(self, ns: int) -> list[Sample]:
        """Commands to the base."""
        return self.recorder.since("c", ns)

    def begin(self, chance: random.Random) -> None:
        """A scene, and words for it."""
        episode = chance.choice(EPISODES)
        self.operator.scene(episode.scenario, episode.seed)
        self.operator.say(episode.words)


class Simulated(System):
    """See the module. Children of ``up`` may be killed and stopped, the simulation and the camera's driver too."""

    def start(self) -> None:
        """Simulation, camera driver, the processes of ``up``, and a foreigner who is quiet."""
        self.sim = self.own(Node("sim", *self.words))
        self.hear(*self.words)
        self.operator.wait_for("sim")
        self.relay = self.own(Process(str(HERE / "drill_relay.py"), f"--domain={self.domain}"))
        self.foreigner = self.own(Foreigner(str(HERE / "drill_foreign.py"), f"--domain={self.domain}"))
        camera = ("camera.kind=topic", f"camera.topic={CAMERA_TOPIC}", "camera.rate_hz=20")
        self.up = self.own(Up(*self.words, *camera, "base.kind=cmd_vel"))
        self.operator.wait_for("control", "camera", "inference")
        wait_until(lambda: self.foreigner.is_ready, 60.0, "the foreigner was ready")
        time.sleep(1.0)  # messages in the first second after matching may be lost (field notes, section 9)

    def signal_child(self, name: str, number: signal.Signals) -> None:
        """To a child of ``up``."""
        os.kill(self.up.pids[name], number)

    def wait_for_restart(self, name: str, killed_ns: int) -> None:
        """Until it says again that it lives; what the old process said is not later than a second after its end."""
        self.operator.wait_for(name, since_ns=killed_ns + NS_PER_S)


class Apart(System):
    """See the module. Needs root."""

    def start(self) -> None:
        """Cable and namespace, simulation, camera and control here, inference there."""
        self.room, self.cable = f"drill{os.getpid()}", f"dr{os.getpid() % 10**6}"
        near, far = f"{self.cable}a", f"{self.cable}b"
        ip("netns", "add", self.room)
        self._stack.callback(ip, "netns", "delete", self.room)
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.room)
        for end, address, around in ((near, ADDRESSES[0], ()), (far, ADDRESSES[1], ("-n", self.room))):
            ip(*around, "address", "add", f"{address}/24", "dev", end)
            ip(*around, "link", "set", end, "up")
        here, there = self._environment(near), self._environment(far)
        os.environ["CYCLONEDDS_URI"] = here["CYCLONEDDS_URI"]
        self._stack.callback(os.environ.pop, "CYCLONEDDS_URI")
        words = [f"--domain={self.domain}"]
        self.own(Node("sim", *words))
        self.hear(*words, localhost=False)
        self.operator.wait_for("sim")
        self.own(Node("camera", "--sim", *words))
        self.own(Node("control", "--sim", *words))
        around = ("ip", "netns", "exec", self.room)
        self.own(Node("inference", "--noiseless-camera", *words, around=around, environment=there))
        self.operator.wait_for("control", "camera", "inference")
        time.sleep(1.0)

    def pull(self) -> None:
        """Take the cable out: each end loses its carrier."""
        ip("-n", self.room, "link", "set", f"{self.cable}b", "down")

    def plug(self) -> None:
        """Put it in again; the addresses stay."""
        ip("-n", self.room, "link", "set", f"{self.cable}b", "up")

    @staticmethod
    def _environment(interface: str) -> dict[str, str]:
        only = f'<Interfaces><NetworkInterface name="{interface}"/></Interfaces>'
        return os.environ | {"CYCLONEDDS_URI": f"<CycloneDDS><Domain><General>{only}</General></Domain></CycloneDDS>"}


class Wheeled(System):
    """See the module."""

    def start(self) -> None:
        """Servo bus, control, camera, and the straight-on policy."""
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        port = self.folder / "bus"
        self.bus = self.own(Bus(str(HERE / "drill_lekiwi.py"), f"--port={port}"))
        wait_until(port.exists, 30.0, "the servo bus appeared")
        self.hear(*self.words)
        robot = ("camera.kind=pattern", "base.kind=lekiwi", f"base.port={port}")
        self.own(Node("control", *self.words, *robot))
        self.own(Node("camera", *self.words, *robot))
        self.own(Process(str(HERE / "drill_stub.py"), f"--domain={self.domain}"))
        self.operator.wait_for("control", "camera", "inference")
        time.sleep(1.0)

    def told_since(self, ns: int) -> list[Sample]:
        """What the wheels were told."""
        return [sample for sample in self.bus.wheels if sample.ns > ns]

    def begin(self, chance: random.Random) -> None:
        """Any words do."""
        self.operator.say("go to the red cup")


class Foreigner(Process):
    """``drill_foreign.py``; ``is_ready`` once the robot reads what it writes."""

    is_ready = False

    def line(self, text: str) -> None:
        """Its first word."""
        self.is_ready = self.is_ready or text == "ready"


class Bus(Process):
    """``drill_lekiwi.py``; ``wheels``: when they were told to turn, and when to stand."""

    def __init__(self, *words: str) -> None:
        self.wheels: list[Sample] = []
        super().__init__(*words)

    def line(self, text: str) -> None:
        """A change."""
        ns, what = text.split()
        self.wheels.append(Sample(int(ns), float(what == "drive"), 0.0, 0.0))


def ip(*words: str) -> None:
    """The tool ``ip``; DrillError when it refuses."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DrillError(f"ip {' '.join(words)}: {done.stderr.strip()}")


EPISODES = plan_episodes("routes", 24, Grammar.load())
"""Scenes that are driven through: two to three metres round boxes."""
