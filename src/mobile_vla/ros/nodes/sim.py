"""The simulated robot as a process: it obeys ``cmd_vel``, publishes odometry and what its camera sees, and judges.

It plays as fast as life. To the other nodes it is a robot whose driver speaks ROS: the camera node opens its picture
as a camera of the kind ``topic``, the control node drives it as a base of the kind ``cmd_vel``.
"""

import json
import logging
import threading
import time
from dataclasses import replace

from mobile_vla.core import NS_PER_S, ZERO_TWIST, Frame, MobileVLAError, MonotonicClock, Status
from mobile_vla.language import Grammar, parse
from mobile_vla.ros.messages import Level, diagnoses, image_message, odometry, stamp_ns, string, twist_from_message
from mobile_vla.ros.nodes.health import Diagnoser, Health, Pace
from mobile_vla.ros.topics import (
    ACTIVE_INSTRUCTION,
    CMD_VEL,
    ODOM,
    SAFETY,
    SIM_IMAGE,
    SIM_SCENE,
    SIM_VERDICT,
)
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import from_wire, to_wire
from mobile_vla.runtime import Ending
from mobile_vla.sim.choose import named_scene
from mobile_vla.sim.judge import Judge
from mobile_vla.sim.robot import COMMAND_TIMEOUT_S
from mobile_vla.sim.world import World

STEP_NS = NS_PER_S // 50
HEIGHT, WIDTH = 96, 192
FRAME_ID = "camera_optical_frame"

_log = logging.getLogger(__name__)


class SimNode:
    """Plays ``world``, which has a scene loaded. ``image_rate_hz``: of the camera."""

    def __init__(self, transport: Transport, world: World, image_rate_hz: float = 20.0) -> None:
        self._world = world
        self._image_period_ns = round(NS_PER_S / image_rate_hz)
        self._lock = threading.Lock()
        self._command, self._command_ns = ZERO_TWIST, 0
        self._wanted_scene: tuple[str, int] | None = None
        self._judge: Judge | None = None
        self._text, self._began_ns = "", 0
        self._grammar = Grammar.load()
        self._sequence = 0
        self._left_out = 0
        self._pace = Pace()
        self._image, self._odom = transport.publisher(SIM_IMAGE), transport.publisher(ODOM)
        self._verdict = transport.publisher(SIM_VERDICT)
        self._diagnoser = Diagnoser(transport, self._health)
        transport.subscribe(CMD_VEL, self._on_command)
        transport.subscribe(ACTIVE_INSTRUCTION, self._on_instruction)
        transport.subscribe(SAFETY, self._on_safety)
        transport.subscribe(SIM_SCENE, self._on_scene)

    def run(self, stop: threading.Event) -> None:
        """Play until told to stop. Steps that come late are left out: the world is then slower than life."""
        self._world.render(HEIGHT, WIDTH)  # the first picture takes long: nobody shall wait for it under way
        next_ns = image_due_ns = time.monotonic_ns()
        while not stop.is_set():
            self._load_wanted()
            self._step()
            now_ns = time.monotonic_ns()
            if now_ns >= image_due_ns:
                image_due_ns = max(image_due_ns + self._image_period_ns, now_ns - self._image_period_ns)
                self._publish_image()
            self._diagnoser.turn()
            missed = max(0, time.monotonic_ns() - next_ns - 1) // STEP_NS
            self._left_out += missed
            next_ns += (missed + 1) * STEP_NS
            time.sleep(max(0, next_ns - time.monotonic_ns()) / NS_PER_S)

    def _step(self) -> None:
        now_ns = time.monotonic_ns()
        with self._lock:
            alive = now_ns - self._command_ns <= COMMAND_TIMEOUT_S * NS_PER_S
            command, judge = self._command if alive else ZERO_TWIST, self._judge
        self._world.step(command, STEP_NS / NS_PER_S)
        pose = self._world.pose
        if judge is not None:
            judge.move(pose, self._world.touching())
        self._pace.add(now_ns)
        moved_ns = to_wire(time.monotonic_ns())
        self._odom.publish(odometry(self._world.velocity, (pose.x, pose.y, pose.yaw), moved_ns))

    def _publish_image(self) -> None:
        if not self._image.readers:
            return
        captured_ns = time.monotonic_ns()
        self._sequence += 1
        pixels = self._world.render(HEIGHT, WIDTH)
        frame = Frame(pixels, captured_ns, MonotonicClock.name, "front", self._sequence)
        self._image.publish(image_message(frame, to_wire(captured_ns), FRAME_ID))

    def _load_wanted(self) -> None:
        with self._lock:
            wanted, self._wanted_scene = self._wanted_scene, None
        if wanted is None:
            return
        try:
            scene = named_scene(*wanted)
        except MobileVLAError as error:
            _log.warning("scene not loaded: %s", error)
            return
        with self._lock:
            self._command, self._judge = ZERO_TWIST, None
        self._world.load(scene)
        self._verdict.publish(string(json.dumps({"loaded": scene.scenario, "seed": scene.seed})))

    def _on_command(self, received: Received) -> None:
        command = twist_from_message(received.message)
        with self._lock:
            self._command = command if command.is_finite else ZERO_TWIST
            self._command_ns = received.received_ns

    def _on_scene(self, received: Received) -> None:
        values = json.loads(received.message.data)
        with self._lock:
            self._wanted_scene = (str(values["scenario"]), int(values["seed"]))

    def _on_instruction(self, received: Received) -> None:
        text = received.message.data
        if not text:
            return
        try:
            goal = parse(text, self._grammar)
        except MobileVLAError as error:
            _log.info("not judged: %s", error)
            return
        scene = replace(self._world.scene, start=self._world.pose)  # it may have driven here before
        if not scene.obstacles:
            goal = replace(goal, side=None)
        with self._lock:
            self._text, self._began_ns = text, received.received_ns
            self._judge = Judge(scene, goal)

    def _on_safety(self, received: Received) -> None:
        """When control says how the instruction ended, judge it."""
        values = diagnoses(received.message)[0].values
        with self._lock:
            judge = self._judge
            if from_wire(stamp_ns(received.message)) <= self._began_ns:
                return  # said before this instruction was accepted
            if judge is None or values.get("instruction") or values.get("last_instruction") != self._text:
                return
            self._judge = None
        status = Status(values["last_status"]) if values.get("last_status") else None
        duration_s = (received.received_ns - self._began_ns) / NS_PER_S
        verdict = judge.verdict(status, values.get("last_ending") == Ending.FINISHED, duration_s)
        self._verdict.publish(
            string(
                json.dumps(
                    {
                        "instruction": self._text,
                        "success": verdict.success,
                        "failure": None if verdict.success else verdict.failure,
                        "touched": verdict.touched,
                        "stop_distance_m": verdict.stop_distance_m,
                        "duration_s": duration_s,
                        "path_m": verdict.path_m,
                    },
                    ensure_ascii=False,
                )
            )
        )

    def _health(self) -> Health:
        rate_hz = self._pace.rate_hz(time.monotonic_ns())
        scene = self._world.scene
        values = {
            "scenario": scene.scenario,
            "seed": scene.seed,
            "renderer": self._world.renderer_name,
            "left_out_steps": self._left_out,
        }
        nominal_hz = NS_PER_S / STEP_NS
        level = Level.OK if rate_hz > 0.9 * nominal_hz else Level.WARN
        return Health(level, f"plays at {rate_hz / nominal_hz:.0%} of life's pace", values)
