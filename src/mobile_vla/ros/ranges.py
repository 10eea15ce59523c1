"""What a range sensor on the wire sees, as the safety layer wants it."""

from mobile_vla.ros.depth import depth_from_image
from mobile_vla.ros.messages import stamp_ns
from mobile_vla.ros.topics import DEPTH, SCAN
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import from_wire
from mobile_vla.runtime.config import RangeConfig
from mobile_vla.safety import Clearance


class RangeInbox:
    """Listens on ``transport`` to a scan, or to depth images where ``config`` tells of a depth camera."""

    def __init__(self, transport: Transport, config: RangeConfig) -> None:
        self._config = config
        self._newest: Clearance | None = None
        transport.subscribe(SCAN if config.depth is None else DEPTH, self._receive)

    @property
    def newest(self) -> Clearance | None:
        """The newest reading, None before the first one; from any thread."""
        return self._newest

    def _receive(self, received: Received) -> None:
        message, depth = received.message, self._config.depth
        measured_ns = from_wire(stamp_ns(message))
        if depth is not None:
            self._newest = depth.clearance(depth_from_image(message), measured_ns)
            return
        self._newest = Clearance.from_scan(
            float(message.angle_min),
            float(message.angle_increment),
            message.ranges,
            measured_ns,
            range_min_m=float(message.range_min),
            range_max_m=float(message.range_max),
            mount=self._config.mount,
        )
