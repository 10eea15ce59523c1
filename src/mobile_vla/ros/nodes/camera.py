"""The camera node: opens a camera and publishes its frames, stamped with their capture."""

import threading
import time

from mobile_vla.core import NS_PER_S, Frame
from mobile_vla.robot import Camera
from mobile_vla.ros.messages import Level, camera_info, compressed_message, image_message
from mobile_vla.ros.nodes.health import Diagnoser, Health, Pace
from mobile_vla.ros.topics import CAMERA_INFO, IMAGE, IMAGE_COMPRESSED
from mobile_vla.ros.transport import Transport
from mobile_vla.ros.wire_time import to_wire

READ_LIMIT_S = 0.1
FRAME_ID = "camera_optical_frame"


class CameraNode:
    """Publishes what somebody reads: raw frames, JPEG for people, and ``CameraInfo`` beside either.

    ``preview_hz`` bounds the JPEGs, which cost more than all else. A camera that fails raises CameraError through
    ``run``: the process ends, and whoever started it starts it again.
    """

    def __init__(self, transport: Transport, camera: Camera, preview_hz: float = 10.0) -> None:
        self._camera = camera
        self._raw, self._jpeg = transport.publisher(IMAGE), transport.publisher(IMAGE_COMPRESSED)
        self._info = transport.publisher(CAMERA_INFO)
        self._preview_ns = round(NS_PER_S / preview_hz)
        self._preview_due_ns = 0
        self._pace = Pace()
        self._delay_ms = 0.0
        self._diagnoser = Diagnoser(transport, self._health)

    def run(self, stop: threading.Event) -> None:
        """Open the camera and publish until told to stop; the camera is closed in every case."""
        self._diagnoser.turn()
        try:
            self._camera.open()
            while not stop.is_set():
                frame = self._camera.read(READ_LIMIT_S)
                if frame is not None:
                    self._publish(frame)
                self._diagnoser.turn()
        finally:
            self._camera.close()

    def _publish(self, frame: Frame) -> None:
        self._pace.add(frame.capture_ns)
        self._delay_ms = (time.monotonic_ns() - frame.capture_ns) / 1e6
        stamp_ns = to_wire(frame.capture_ns)
        if self._info.readers:
            height, width, _ = frame.pixels.shape
            self._info.publish(camera_info(width, height, stamp_ns, FRAME_ID))
        if self._raw.readers:
            self._raw.publish(image_message(frame, stamp_ns, FRAME_ID))
        if self._jpeg.readers and frame.capture_ns >= self._preview_due_ns:
            self._preview_due_ns = frame.capture_ns + self._preview_ns
            self._jpeg.publish(compressed_message(frame, stamp_ns, FRAME_ID))

    def _health(self) -> Health:
        rate_hz, wanted_hz = self._pace.rate_hz(time.monotonic_ns()), self._camera.rate_hz
        values = {
            "rate_hz": f"{rate_hz:.2f}",
            "nominal_hz": wanted_hz,
            "capture_to_publish_ms": f"{self._delay_ms:.1f}",
        }
        if rate_hz == 0.0:
            return Health(Level.WARN, "no frames yet", values)
        if rate_hz < 0.8 * wanted_hz:
            return Health(Level.WARN, f"{rate_hz:.1f} frames a second instead of {wanted_hz:g}", values)
        return Health(Level.OK, f"{rate_hz:.1f} frames a second", values)
