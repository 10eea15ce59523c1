"""Whether the control thread gets the processor when its step is due, whatever else runs."""

import os
import sys
from dataclasses import dataclass

from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.purpose import Purpose
from mobile_vla.runtime.realtime import Precedence, attainable

LIMITS = "/etc/security/limits.d/90-mobile-vla.conf"


@dataclass(frozen=True, slots=True)
class Rights:
    """What ``runtime.realtime.urgent`` is granted here, and who asked."""

    granted: Precedence
    linux: bool
    root: bool


def look_at_precedence() -> Rights:
    """Asks for it, in a thread of which nothing is left."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return Rights(attainable(), sys.platform.startswith("linux"), root)


def judge_precedence(seen: Rights, purpose: Purpose) -> Check:
    """A robot drives without it too: on a machine that has nothing else to do its steps come in time all the same."""
    if seen.granted is Precedence.REAL_TIME:
        return checked("control thread", "real-time: its steps come in time beside whatever else runs")
    sentence = f"{seen.granted}, not real-time: its steps come late while other programs use all of the processor"
    if purpose.robot is None:
        return checked("control thread", "", [Problem(State.NOT_NEEDED, sentence)])
    if not seen.linux:
        return checked("control thread", "", [Problem(State.WARN, f"{sentence}; only Linux is asked for more")])
    if seen.root:
        sentence += "; root may not ask for more here: a container needs --cap-add=SYS_NICE"
        return checked("control thread", "", [Problem(State.WARN, sentence)])
    line = f'echo "$USER - rtprio 20" | sudo tee {LIMITS}  # then log in again'
    return checked("control thread", "", [Problem(State.WARN, sentence, (line,))])
