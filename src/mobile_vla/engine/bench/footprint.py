"""A process that opens one subject of a bench and decides a few times, and says on stdout what memory that took."""

import json
import sys

from mobile_vla.core import MobileVLAError
from mobile_vla.engine.bench import timing
from mobile_vla.engine.bench.subject import Footprint, Subject, open_subject
from mobile_vla.engine.bench.way import Way, patterns

_DECISIONS = 20


def look(asked: str) -> Footprint:
    """``asked``: JSON of a subject and of the camera's (width, height)."""
    values = json.loads(asked)
    subject = Subject(**values["subject"])
    frames = patterns(*values["camera"]).frames
    timing.forget_peak_memory()
    before = timing.peak_memory().process_bytes
    way = Way(open_subject(subject), frames, subject.sessions)
    opening = timing.peak_memory()
    timing.forget_peak_memory()
    for _ in range(_DECISIONS):
        way()
    deciding = timing.peak_memory()
    return Footprint(before, opening.process_bytes, deciding.process_bytes, opening.device_bytes, deciding.device_bytes)


def main() -> int:
    """The answer as JSON; 1 with a sentence on stderr where the subject cannot be opened, 2 where none is named."""
    if len(sys.argv) != 2:
        print("usage: python -m mobile_vla.engine.bench.footprint JSON", file=sys.stderr)
        return 2
    try:
        found = look(sys.argv[1])
    except MobileVLAError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found.to_dict()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
