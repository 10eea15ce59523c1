"""Which of a camera's frames go into the data set: those nearest to the contract's rate."""

from mobile_vla.core import NS_PER_S, Frame


class FrameSampler:
    """Takes ``rate_hz`` frames a second in the mean, on a grid that begins with the first and again after each gap.

    ``slack_s``: a frame that comes up to so much before its place on the grid is taken; half the time between two
    frames that are offered, else jitter would skip every other one. A frame whose capture time or number is not greater
    than the last taken one's is left out.
    """

    def __init__(self, rate_hz: float, slack_s: float) -> None:
        self._period_ns, self._slack_ns = round(NS_PER_S / rate_hz), round(slack_s * NS_PER_S)
        self._due_ns: int | None = None
        self._last: tuple[int, int] | None = None

    def takes(self, frame: Frame) -> bool:
        """Whether ``frame`` is taken; then it is the last."""
        if self._last is not None and (frame.capture_ns <= self._last[0] or frame.sequence <= self._last[1]):
            return False
        if self._due_ns is not None and frame.capture_ns < self._due_ns - self._slack_ns:
            return False
        late = self._due_ns is None or frame.capture_ns > self._due_ns + self._period_ns
        self._due_ns = (frame.capture_ns if late or self._due_ns is None else self._due_ns) + self._period_ns
        self._last = (frame.capture_ns, frame.sequence)
        return True
