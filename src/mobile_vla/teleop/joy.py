"""A stick on another machine, as ``sensor_msgs/Joy`` tells of it: plain sequences, so that no ROS is needed here."""

import math
import threading
from collections.abc import Sequence

from mobile_vla.core import ConfigError
from mobile_vla.teleop.mapping import GAME_CONTROLLER, PadMap
from mobile_vla.teleop.stick import Button, StickState


class JoyStick:
    """Whoever receives messages calls ``receive``, from any thread; whoever drives reads.

    A message is believed until the next one: set ``autorepeat_rate`` at the publisher, so that a silent stick can be
    told from one that is held still. How old a state may be is judged by who reads, from ``stamp_ns``. A stick that is
    held while its first message comes drives only after it was let go once.
    """

    def __init__(self, mapping: PadMap = GAME_CONTROLLER, name: str = "joy") -> None:
        self.name = name
        self._mapping = mapping
        self._lock = threading.Lock()
        self._held: tuple[bool, ...] | None = None
        self._pressed: frozenset[Button] = frozenset()
        self._state = StickState()
        self._was_free = False

    def open(self) -> None:
        """Forget what came before."""
        with self._lock:
            self._held, self._pressed, self._state, self._was_free = None, frozenset(), StickState(), False

    def close(self) -> None:
        """The same: a closed stick is not connected until a message comes."""
        self.open()

    def receive(self, axes: Sequence[float], buttons: Sequence[int], stamp_ns: int) -> None:
        """One message, received at ``stamp_ns`` on the reader's clock.

        A message with an axis that is not finite is left out, as if it had not come. ConfigError when the message has
        no axis or dead-man button where the mapping looks for one: then the mapping is for another pad.
        """
        mapping = self._mapping
        needed = 0 if mapping.dead_man is None else mapping.dead_man + 1
        if len(axes) < mapping.axes_needed or len(buttons) < needed:
            raise ConfigError(
                f"{self.name} has {len(axes)} axes and {len(buttons)} buttons, the mapping looks for "
                f"{mapping.axes_needed} and {needed}: use joy's game_controller_node, or set a mapping for this pad"
            )
        if not all(map(math.isfinite, axes)):
            return
        held = tuple(bool(button) for button in buttons)
        values = [min(1.0, max(-1.0, float(axis))) for axis in axes]
        with self._lock:
            before = self._held
            self._held = held
            if before is not None:  # what is held while the first message comes was not pressed for us
                down = {
                    meaning
                    for number, meaning in mapping.buttons.items()
                    if number < len(held) and held[number] and not (number < len(before) and before[number])
                }
                self._pressed |= down
            touched = mapping.touched(values, held)
            self._was_free = self._was_free or not touched
            drives = touched and self._was_free
            shares = mapping.shares(values, held) if drives else StickState().twist_share
            self._state = StickState(shares, drives, frozenset(), stamp_ns, connected=True)

    def read(self) -> StickState:
        """The newest message, with the buttons that went down since the last read."""
        with self._lock:
            state, pressed = self._state, self._pressed
            self._pressed = frozenset()
        return StickState(state.twist_share, state.touched, pressed, state.stamp_ns, state.connected)
