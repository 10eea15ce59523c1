"""How a topic is read, whatever carries it: what its quality of service means, and how often it is taken."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobile_vla.core import NS_PER_S
from mobile_vla.ros.messages import TransportError, deserialise
from mobile_vla.ros.topics import Qos, Topic
from mobile_vla.ros.transport import Received

_log = logging.getLogger(__name__)

TAKES_PER_S = 50.0
"""A topic is taken at most this often, or twice its nominal rate where that is more."""
COUNTED = 20
"""Messages taken at once at most, so that a flood is counted though few of it are handed on; pictures: their depth."""
_PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a ``topics.Qos`` means to DDS. Every writer is reliable: a best-effort one never meets a reliable reader."""

    depth: int
    reads_reliably: bool = True
    latched: bool = False


PROFILES = {
    Qos.SENSOR: Profile(5, reads_reliably=False),
    Qos.NEWEST: Profile(1, reads_reliably=False),
    Qos.DEFAULT: Profile(10),
    Qos.LATCHED: Profile(1, latched=True),
}


class Inbox:
    """One subscription: its callback, its turn, and its counts. One thread uses it."""

    def __init__(
        self, node: str, name: str, type_name: str, topic: Topic, callback: Callable[[Received], None]
    ) -> None:
        self.name, self.type_name, self.profile = name, type_name, PROFILES[topic.qos]
        self.kept = self.profile.depth if type_name in _PICTURES else max(self.profile.depth, COUNTED)
        self.due_ns = 0
        self.taken = 0
        self.failures = 0
        self._node, self._callback = node, callback
        self._spacing_ns = round(NS_PER_S / max(TAKES_PER_S, 2 * (topic.rate_hz or 0.0)))
        self._next_log_ns = 0

    def hand_on(self, samples: Sequence[bytes], closed: Callable[[], bool]) -> None:
        """Count CDR ``samples``, oldest first, and call back with the newest that the topic keeps, until ``closed``."""
        received_ns = time.monotonic_ns()
        self.due_ns = received_ns + self._spacing_ns
        self.taken += len(samples)
        for data in samples[-self.profile.depth :]:
            if closed():
                return
            try:
                self._callback(Received(deserialise(self.type_name, data), received_ns))
            except Exception as error:
                self.failures += 1
                self._complain(error, received_ns)

    def _complain(self, error: Exception, now_ns: int) -> None:
        if now_ns < self._next_log_ns:  # a flood of bad messages is no flood of lines
            return
        self._next_log_ns = now_ns + NS_PER_S
        unreadable = isinstance(error, TransportError)
        what = f"could not be read: {error}" if unreadable else "made its callback fail"
        _log.warning("%s: a message of %s %s", self._node, self.name, what, exc_info=None if unreadable else error)
