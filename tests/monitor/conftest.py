import numpy as np
import pytest

from mobile_vla.core import Frame, Grounding, Instruction, Status, Twist
from mobile_vla.runtime import Tick
from mobile_vla.safety import Reason, SafetyState


@pytest.fixture
def make_tick():
    def make(stamp_ns=1_200_000_000, visibility=0.9, frame=True):
        pixels = np.zeros((96, 192, 3), np.uint8)
        grounding = Grounding(visibility, 0.35, 1.5, (0.4, 0.3, 0.6, 0.7), Status.DRIVING)
        return Tick(
            stamp_ns=stamp_ns,
            state=SafetyState.RUNNING,
            reason=Reason.DRIVING,
            sentence="driving",
            wanted=Twist(0.4, 0.0, 0.1),
            twist=Twist(0.3, -0.1, 0.2),
            measured=Twist(0.3, 0.4, 0.0),
            instruction=Instruction("go to the red cup"),
            frame=Frame(pixels, stamp_ns, "simulation", "front", 0) if frame else None,
            frame_age_ns=100_000_000 if frame else None,
            grounding=grounding if frame else None,
            inference_ms=3.0 if frame else None,
        )

    return make
