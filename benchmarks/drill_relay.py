"""A camera's driver: passes on what the simulated camera sees, with the noise of a real sensor, and fails when told to.

Words on standard input: "pass"; "freeze": the last picture to the bit, again and again, with new stamps, as of a driver
that hangs; "alive": the last picture with new noise and new stamps, for the time in which the simulation is gone.
"""

import argparse
import sys
import threading
import time
from dataclasses import replace

import numpy as np

from mobile_vla.core import Frame, MonotonicClock
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import frame_from_image, image_message, stamp_ns
from mobile_vla.ros.topics import SIM_IMAGE
from mobile_vla.ros.transport import NodeConfig, Received
from mobile_vla.ros.wire_time import to_wire

TOPIC = "drill/image_raw"
PERIOD_S = 0.05
NOISE = 1.0  # standard deviation in grey levels
FRAME_ID = "camera_optical_frame"


class Relay:
    """The thread of the transport passes pictures on; the main thread repeats them while it must."""

    def __init__(self, domain: int) -> None:
        self.mode = "pass"
        self._random = np.random.default_rng(1)
        self._lock = threading.Lock()
        self._shown: Frame | None = None
        transport = connect(NodeConfig("drill_camera", domain=domain, localhost_only=True))
        self._publisher = transport.publisher(replace(SIM_IMAGE, name=TOPIC))
        transport.subscribe(SIM_IMAGE, self._on_image)

    def run(self) -> None:
        """Until its parent closes the input or ends it."""
        while True:
            time.sleep(PERIOD_S)
            with self._lock:
                if self._shown is None or self.mode == "pass":
                    continue
                pixels = self._shown.pixels if self.mode == "freeze" else self._noisy(self._shown.pixels)
                self._publish(replace(self._shown, pixels=pixels), to_wire(time.monotonic_ns()))

    def _on_image(self, received: Received) -> None:
        with self._lock:
            if self.mode != "pass":
                return
            clean = frame_from_image(
                received.message, capture_ns=0, clock=MonotonicClock.name, camera="front", sequence=0
            )
            self._shown = replace(clean, pixels=self._noisy(clean.pixels))
            self._publish(self._shown, stamp_ns(received.message))

    def _noisy(self, pixels: np.ndarray) -> np.ndarray:
        noise = self._random.normal(0.0, NOISE, pixels.shape)
        return np.clip(np.round(pixels + noise), 0, 255).astype(np.uint8)

    def _publish(self, frame: Frame, stamp: int) -> None:
        self._publisher.publish(image_message(frame, stamp, FRAME_ID))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", type=int, required=True)
    options = parser.parse_args()
    relay = Relay(options.domain)
    threading.Thread(target=relay.run, daemon=True).start()
    for line in sys.stdin:
        relay.mode = line.strip()


if __name__ == "__main__":
    main()
