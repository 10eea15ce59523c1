"""What a drive in one process lets others see: a picture now and then, the safety state, odometry. And their stop.

The control step only notes down its record; a thread of its own encodes and publishes, so that nobody who watches can
hold up the robot.
"""

import threading
from collections.abc import Callable

from typing_extensions import Self

from mobile_vla.core import NS_PER_S
from mobile_vla.robot.odometry import Pose, moved
from mobile_vla.ros.messages import Level, compressed_message, diagnostics, odometry
from mobile_vla.ros.ranges import RangeInbox
from mobile_vla.ros.topics import EMERGENCY_STOP, IMAGE_COMPRESSED, ODOM, SAFETY
from mobile_vla.ros.transport import Received, Transport
from mobile_vla.ros.wire_time import to_wire
from mobile_vla.runtime import Tick
from mobile_vla.runtime.config import RangeConfig
from mobile_vla.safety import Clearance, SafetyState

FRAME_ID = "camera_optical_frame"
PERIOD_S = 0.1
JOIN_LIMIT_S = 2.0


class Preview:
    """Owns ``transport``. ``stop`` is called, in the transport's thread, when an emergency stop comes over the wire.

    ``ranges``: of the range sensor to listen to, if any. ``publish_odometry`` is False where the base's own driver does
    so.
    """

    def __init__(
        self,
        transport: Transport,
        stop: Callable[[str], None],
        ranges: RangeConfig | None = None,
        publish_odometry: bool = True,
    ) -> None:
        self._transport = transport
        self._stop = stop
        self._image, self._safety = transport.publisher(IMAGE_COMPRESSED), transport.publisher(SAFETY)
        self._odom = transport.publisher(ODOM) if publish_odometry else None
        self._newest: Tick | None = None
        self._shown_ns = -1
        self._pose, self._moved_ns = Pose(), -1
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="preview", daemon=True)
        self._ranges = RangeInbox(transport, ranges) if ranges is not None else None
        transport.subscribe(EMERGENCY_STOP, self._on_emergency_stop)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(JOIN_LIMIT_S)
        self._transport.close()

    def clearance(self) -> Clearance | None:
        """The newest reading of the range sensor, for the control step."""
        return self._ranges.newest if self._ranges is not None else None

    def show(self, tick: Tick) -> None:
        """The newest control step; never waits."""
        self._newest = tick

    def _run(self) -> None:
        over = False
        while not over:
            over = self._over.wait(PERIOD_S)  # the last step is told too: it says how the drive ended
            tick = self._newest
            if tick is not None:
                self._publish(tick)

    def _publish(self, tick: Tick) -> None:
        stamp_ns = to_wire(tick.stamp_ns)
        self._safety.publish(
            diagnostics(_level(tick), f"{self._transport.node}/safety", tick.sentence, _values(tick), stamp_ns)
        )
        if self._odom is not None and tick.measured.is_finite:
            if self._moved_ns >= 0:
                self._pose = self._pose.after(moved(tick.measured, (tick.stamp_ns - self._moved_ns) / NS_PER_S))
            self._moved_ns = tick.stamp_ns
            self._odom.publish(odometry(tick.measured, (self._pose.x, self._pose.y, self._pose.yaw), stamp_ns))
        frame = tick.frame
        if frame is not None and frame.capture_ns > self._shown_ns and self._image.readers:
            self._shown_ns = frame.capture_ns
            self._image.publish(compressed_message(frame, to_wire(frame.capture_ns), FRAME_ID))

    def _on_emergency_stop(self, received: Received) -> None:
        if received.message.data:
            self._stop("an emergency stop came over the wire")


def _level(tick: Tick) -> Level:
    return {SafetyState.RUNNING: Level.OK, SafetyState.HOLDING: Level.WARN}.get(tick.state, Level.ERROR)


def _values(tick: Tick) -> dict[str, str]:
    return {
        "state": tick.state,
        "reason": tick.reason,
        "sentence": tick.sentence,
        "instruction": tick.instruction.text,
        "policy_status": tick.grounding.status if tick.grounding else "",
        "orders": "0",
        "refused": "",
        "vx_mps": f"{tick.twist.vx:.4f}",
        "vy_mps": f"{tick.twist.vy:.4f}",
        "wz_radps": f"{tick.twist.wz:.4f}",
        "capture_age_ms": "" if tick.frame_age_ns is None else f"{tick.frame_age_ns / 1e6:.1f}",
        "inference_ms": "" if tick.inference_ms is None else f"{tick.inference_ms:.1f}",
    }
