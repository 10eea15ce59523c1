"""The recorder: everything that goes over the wire into an MCAP bag that ROS 2 tools and ``mobile-vla replay`` open."""

import threading
from collections.abc import Callable
from pathlib import Path

from mobile_vla.ros.bag import BagError, BagWriter
from mobile_vla.ros.messages import Level
from mobile_vla.ros.naming import topic_name
from mobile_vla.ros.nodes.health import Diagnoser, Health
from mobile_vla.ros.topics import DEPTH, IMAGE, IMAGE_COMPRESSED, SIM_IMAGE, TOPICS, Topic
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import to_wire

WAIT_S = 0.2


def _absolute(topic: Topic) -> str:
    return topic_name(topic.name, "/", {})


class RecorderNode:
    """Writes a new bag at ``path``, with JPEGs or, with ``raw``, with frames as the policy sees them.

    ``name_of``: the absolute name of a topic, where it is not that of the table. Raw VGA at 30 Hz is 27 MB a second,
    and the only recording that replays to the bit. ``run`` ends when it is told to or when the disk is nearly full;
    the bag is whole in both cases.
    """

    def __init__(
        self, transport: Transport, path: Path, raw: bool = False, name_of: Callable[[Topic], str] = _absolute
    ) -> None:
        left_out = {SIM_IMAGE.name, DEPTH.name, (IMAGE_COMPRESSED if raw else IMAGE).name}
        recorded = [topic for topic in TOPICS if topic.name not in left_out]
        names = {topic.name: name_of(topic) for topic in recorded}
        self._bag = BagWriter(path, {names[topic.name]: topic for topic in recorded})
        self._over = False
        self._diagnoser = Diagnoser(transport, self._health)
        for topic in recorded:
            transport.subscribe(topic, self._listener(names[topic.name]))

    def run(self, stop: threading.Event) -> None:
        """Record until told to stop; BagError when the recording had to stop before."""
        try:
            while not stop.wait(WAIT_S) and self._bag.stopped is None:
                self._diagnoser.turn()
        finally:
            self._over = True
            self._bag.close()
        if self._bag.stopped is not None:
            raise BagError(self._bag.stopped)

    def _listener(self, name: str) -> Callable[[Received], None]:
        def listen(received: Received) -> None:
            if not self._over:
                self._bag.write(name, received.message, to_wire(received.received_ns))

        return listen

    def _health(self) -> Health:
        if self._bag.stopped is not None:
            return Health(Level.ERROR, self._bag.stopped)
        return Health(Level.OK, f"{self._bag.count} messages in {self._bag.path}")
