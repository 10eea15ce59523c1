"""The stick as a node: a keyboard or gamepad of this machine, published as ``sensor_msgs/Joy`` for control.

Numbered as ROS 2's ``joy/game_controller_node`` numbers a pad, so that control need not know which of them publishes.
"""

import math
import threading
import time

from mobile_vla.ros.messages import Level, joy
from mobile_vla.ros.nodes.health import Diagnoser, Health
from mobile_vla.ros.topics import JOY
from mobile_vla.ros.transport import Transport
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.teleop import GAME_CONTROLLER, Button, PadMap, Stick, StickState

RATE_HZ = 20.0


class JoyNode:
    """Publishes the stick twenty times a second while it is connected, and nothing when it is not."""

    def __init__(self, transport: Transport, stick: Stick, mapping: PadMap = GAME_CONTROLLER) -> None:
        self._stick, self._mapping = stick, mapping
        self._joy = transport.publisher(JOY)
        self._connected = False
        self._diagnoser = Diagnoser(transport, self._health)

    def run(self, stop: threading.Event) -> None:
        """Open the stick and publish until told to stop, or until its own button to quit is pressed."""
        self._stick.open()
        try:
            while not stop.wait(1 / RATE_HZ):
                state = self._stick.read()
                if Button.QUIT in state.pressed:
                    break
                self._connected = state.connected
                if state.connected:
                    axes, buttons = as_joy(state, self._mapping)
                    self._joy.publish(joy(axes, buttons, to_wire(time.monotonic_ns())))
                self._diagnoser.turn()
        finally:
            self._stick.close()

    def _health(self) -> Health:
        if not self._connected:
            return Health(Level.WARN, f"{self._stick.name} is not connected")
        return Health(Level.OK, f"{self._stick.name} is connected")


def as_joy(state: StickState, mapping: PadMap) -> tuple[list[float], list[int]]:
    """Axes and buttons that ``mapping`` reads back as ``state``: shares, dead-man button, and what was pressed."""
    axes = [0.0] * mapping.axes_needed
    for (number, factor), share in zip((mapping.x, mapping.y, mapping.yaw), state.twist_share, strict=True):
        beyond = abs(share) * (1 - mapping.dead_zone) + mapping.dead_zone if share else 0.0
        axes[number] = math.copysign(beyond, share) / factor
    buttons = [0] * mapping.buttons_needed
    for number, meaning in mapping.buttons.items():
        buttons[number] = int(meaning in state.pressed)
    if mapping.dead_man is not None:
        buttons[mapping.dead_man] = int(state.touched)
    return axes, buttons
