"""CAN: which interfaces Linux has, are they up, and at which bit rate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobile_vla.doctor.check import Check, Problem, State, checked, serious
from mobile_vla.doctor.process import output_of
from mobile_vla.doctor.purpose import Purpose

_CAN_TYPE = "280"  # ARPHRD_CAN in linux/if_arp.h
_UP = 1  # IFF_UP in linux/if.h
_BAD_STATES = ("BUS-OFF", "ERROR-PASSIVE")


@dataclass(frozen=True, slots=True)
class CanInterface:
    """``state`` and bit rates as ``ip -details link`` gives them, empty and None where it does not say."""

    name: str
    up: bool
    state: str = ""
    bitrate: int | None = None
    data_bitrate: int | None = None


def look_at_can(root: Path) -> tuple[CanInterface, ...]:
    """By /sys below ``root`` and the program ip."""
    devices = sorted((root / "sys/class/net").glob("*"))
    names = [device.name for device in devices if _word(device / "type") == _CAN_TYPE]
    return tuple(
        _with_details(CanInterface(name, bool(int(_word(root / "sys/class/net" / name / "flags") or "0", 16) & _UP)))
        for name in names
    )


def read_details(interface: CanInterface, text: str) -> CanInterface:
    """Completed by what ``ip -details -json link show`` printed; as it was for what cannot be read."""
    try:
        info = json.loads(text)[0]["linkinfo"]["info_data"]
        return CanInterface(
            interface.name,
            interface.up,
            str(info.get("state", "")),
            info.get("bittiming", {}).get("bitrate"),
            info.get("data_bittiming", {}).get("bitrate"),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return interface


def judge_can(seen: Sequence[CanInterface], purpose: Purpose, jetson: bool) -> Check:
    """Is the interface of the robot's base there, up and at ease?"""
    wanted, problems = purpose.can_channel, []
    if wanted is not None and wanted not in {each.name for each in seen}:
        driver = f"sudo modprobe -a can can_raw can_dev {'mttcan' if jetson else 'gs_usb'}"
        problems.append(Problem(State.FAIL, f"there is no CAN interface {wanted}", (driver, "ip -details link show")))
    for each in seen:
        bad = serious(each.name == wanted)
        if not each.up:
            line = f"sudo ip link set {each.name} up type can {_rates(purpose)}"
            problems.append(Problem(bad, f"{each.name} is down", (line,) if bad is State.FAIL else ()))
        elif each.state in _BAD_STATES:
            lines = (f"sudo ip link set {each.name} down", f"sudo ip link set {each.name} up")
            sentence = f"{each.name} is {each.state}: nobody answers; check bit rate, cable, termination, power"
            problems.append(Problem(bad, sentence, lines if bad is State.FAIL else ()))
    if not seen and wanted is None:
        return Check("CAN", State.NOT_NEEDED, "no interface on this machine")
    return checked("CAN", ", ".join(map(_words, seen)) or "no interface on this machine", problems)


def _rates(purpose: Purpose) -> str:
    fd = bool(getattr(getattr(purpose.robot, "base", None), "fd", False))
    return "bitrate 500000 dbitrate 2000000 fd on" if fd else "bitrate 500000"


def _words(interface: CanInterface) -> str:
    parts = [interface.name, "up" if interface.up else "down", interface.state.lower()]
    parts += [f"{interface.bitrate // 1000} kbit/s"] if interface.bitrate else []
    parts += [f"data {interface.data_bitrate // 1000} kbit/s"] if interface.data_bitrate else []
    return " ".join(filter(None, parts))


def _with_details(interface: CanInterface) -> CanInterface:
    return read_details(interface, output_of(["ip", "-details", "-json", "link", "show", interface.name]) or "")


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
