"""The tests' simulated LeKiwi bus as a process: says what its wheels are told, and stops answering when told to.

Words on standard input: "mute": it hears, and answers no more; "speak". One line on standard output whenever the goals
of the wheels become zero or cease to be: the moment in ns on the monotonic clock, then "zero" or "drive".
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests/robot/bases"))

from devices import LekiwiDevice


class Watched(LekiwiDevice):
    """Tells of each change between standing and driving as its servos are told."""

    drives = False

    def _apply(self) -> None:
        super()._apply()
        drives = bool(self.body.goals.any())
        if drives != self.drives:
            self.drives = drives
            print(time.monotonic_ns(), "drive" if drives else "zero", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=Path, required=True)
    options = parser.parse_args()
    device = Watched(options.port)
    for line in sys.stdin:
        device.mute = line.strip() == "mute"
    device.close()


if __name__ == "__main__":
    main()
