"""Serial ports: which are there, may this user open them, and does another program grab them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked
from mobile_vla.doctor.purpose import Purpose

DIALOUT_LINE = 'sudo usermod -aG dialout "$USER"'
_CH340 = (0x1A86, 0x7523)
"""The cheap adapter whose ids brltty takes for a Braille display.

https://bugs.launchpad.net/ubuntu/+source/brltty/+bug/1958224
"""
_GRABBERS = {
    "ModemManager": "sudo systemctl disable --now ModemManager",
    "brltty": "sudo apt-get remove -y brltty",
}


@dataclass(frozen=True, slots=True)
class Port:
    """``ids``: USB vendor and product, where it is on USB."""

    device: str
    description: str
    permitted: bool
    ids: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Serial:
    """``grabbers``: programs that run here and talk to ports unasked. ``braille_adapter``: a CH340 is plugged in."""

    ports: tuple[Port, ...]
    grabbers: frozenset[str] = frozenset()
    braille_adapter: bool = False


def look_at_serial(root: Path, wanted: str | None) -> Serial:
    """Ports by pyserial, and ``wanted`` where it lists another; programs and USB ids by the files below ``root``."""
    from serial.tools import list_ports

    ports = [
        Port(each.device, each.description or "", _permitted(each.device), _ids(each.vid, each.pid))
        for each in list_ports.comports()
    ]
    known = {os.path.realpath(port.device) for port in ports}
    if wanted is not None and os.path.exists(wanted) and os.path.realpath(wanted) not in known:
        ports.append(Port(wanted, "", _permitted(wanted)))
    running = set(_programs(root)) & _GRABBERS.keys()
    return Serial(tuple(ports), frozenset(running), _CH340 in set(_usb_ids(root)))


def judge_serial(seen: Serial, purpose: Purpose) -> Check:
    """Is the port of the robot's base there and open to this user, and left alone?"""
    wanted, problems = purpose.serial_port, []
    facts = ", ".join(_words(port) for port in seen.ports) or "no port on this machine"
    if wanted is not None:
        real = os.path.realpath(wanted)
        match = next((port for port in seen.ports if os.path.realpath(port.device) == real), None)
        if match is None:
            problems.append(Problem(State.FAIL, f"{wanted} is not there: plug it in", ("ls -l /dev/serial/by-id",)))
        elif not match.permitted:
            problems.append(Problem(State.FAIL, f"no right to open {wanted}; log in again after this", (DIALOUT_LINE,)))
    needed = wanted is not None
    if "ModemManager" in seen.grabbers and (needed or seen.ports):
        sentence = "ModemManager runs and writes to new ports as if they were modems"
        problems.append(Problem(State.WARN, sentence, (_GRABBERS["ModemManager"],)))
    if "brltty" in seen.grabbers and (needed or seen.braille_adapter):
        takes = "and takes the CH340 adapter" if seen.braille_adapter else "and may take the adapter"
        problems.append(Problem(State.WARN, f"brltty runs {takes} for a Braille display", (_GRABBERS["brltty"],)))
    if not problems and not seen.ports:
        return Check("serial", State.NOT_NEEDED, facts)
    return checked("serial", facts, problems)


def _words(port: Port) -> str:
    told = f"{port.device} ({port.description})" if port.description not in ("", "n/a") else port.device
    return told if port.permitted else f"{told}, not open to you"


def _permitted(device: str) -> bool:
    return os.access(device, os.R_OK | os.W_OK)


def _ids(vendor: int | None, product: int | None) -> tuple[int, int] | None:
    return None if vendor is None or product is None else (vendor, product)


def _programs(root: Path) -> Iterator[str]:
    for file in (root / "proc").glob("[0-9]*/comm"):
        if name := _text(file):
            yield name


def _usb_ids(root: Path) -> Iterator[tuple[int, int]]:
    for device in (root / "sys/bus/usb/devices").glob("*"):
        vendor, product = _text(device / "idVendor"), _text(device / "idProduct")
        if vendor and product:
            yield int(vendor, 16), int(product, 16)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # a process that has ended
        return ""
