"""The checkpoint: every byte of it is read and compared with its checksums."""

import shlex
from importlib.util import find_spec
from pathlib import Path

from mobile_vla.checkpoint.manifest import CHECKPOINT, ENGINE
from mobile_vla.checkpoint.verify import State as Proof
from mobile_vla.checkpoint.verify import Verdict, verify
from mobile_vla.core import CheckpointError, ConfigError
from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.process import PIP
from mobile_vla.doctor.purpose import SHIPPED

_MIB = 1 << 20


def look_at_checkpoint(folder: Path) -> Verdict | str:
    """The verdict, or why there is nothing to judge. Of an engine that can be opened here, its checkpoint's."""
    try:
        if not (folder / ENGINE).exists():
            return verify(folder)
        if find_spec("torch") is not None:  # without it nothing drives, and another check says so
            from mobile_vla.engine.folder import require_sound

            require_sound(folder)
        return verify(folder / CHECKPOINT)
    except (CheckpointError, ConfigError) as error:
        return str(error)


def judge_checkpoint(seen: Verdict | str, folder: Path) -> Check:
    """Whole, or what to do."""
    name = "the shipped one" if folder == SHIPPED else str(folder)
    if isinstance(seen, str):
        return checked("checkpoint", "", [Problem(State.FAIL, seen, _lines(folder, damaged=False))])
    facts = f"{name}: {seen.state}, {len(seen.findings)} tensors, {seen.bytes_read / _MIB:.1f} MiB"
    if seen.state is Proof.WHOLE:
        return checked("checkpoint", facts)
    if seen.state in (Proof.UNPROVEN, Proof.DOUBTFUL):
        sentence = "no checksum proves it" if seen.state is Proof.UNPROVEN else "there is a reason to doubt it"
        line = f"mobile-vla checkpoint verify {shlex.quote(str(folder))}"
        return checked("checkpoint", facts, [Problem(State.WARN, sentence, (line,))])
    return checked("checkpoint", facts, [Problem(State.FAIL, seen.damage, _lines(folder, damaged=True))])


def _lines(folder: Path, *, damaged: bool) -> tuple[str, ...]:
    if folder == SHIPPED:
        return (f"{PIP} install --force-reinstall --no-deps mobile-vla",)
    verify_line = (f"mobile-vla checkpoint verify {shlex.quote(str(folder))}",) if damaged else ()
    return (*verify_line, "mobile-vla checkpoint find")
