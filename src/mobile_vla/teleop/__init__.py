"""What a person drives with: keyboard, gamepad, ``sensor_msgs/Joy``. Each behind one protocol, ``Stick``."""

from mobile_vla.teleop.gamepad import Gamepad, gamepads
from mobile_vla.teleop.joy import JoyStick
from mobile_vla.teleop.keyboard import Keyboard
from mobile_vla.teleop.mapping import GAME_CONTROLLER, LINUX_PAD, PadMap
from mobile_vla.teleop.stick import NO_SHARES, Button, Shares, Stick, StickState

__all__ = [
    "GAME_CONTROLLER",
    "LINUX_PAD",
    "NO_SHARES",
    "Button",
    "Gamepad",
    "JoyStick",
    "Keyboard",
    "PadMap",
    "Shares",
    "Stick",
    "StickState",
    "gamepads",
]
