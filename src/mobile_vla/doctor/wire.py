"""Messages between processes: do two of them find each other and talk, and does the network let them."""

import errno
import secrets
import socket
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobile_vla.doctor.check import Check, Problem, State, checked, serious
from mobile_vla.doctor.process import PIP, Answer, ask, command
from mobile_vla.doctor.purpose import Purpose

GROUP = "239.255.0.1"
"""Where DDS participants announce themselves: DDSI-RTPS 2.5, section 9.6.1.4.1."""
WANTED_BUFFER = 4 << 20
"""Bytes; our transport asks for as much, and a raw image of 1280x720 has 2.6 MiB."""
TRIPS, SECONDS, LIMIT_S = 10, 10.0, 30.0
LAST_SAFE_DOMAIN, LAST_DOMAIN = 101, 232
"""Beyond 101 Linux may give the ports of a domain to other programs; beyond 232 there are none.

https://docs.ros.org/en/rolling/Concepts/Intermediate/About-Domain-ID.html
"""
_LOOPBACK, _MULTICAST, _UP = 0x8, 0x1000, 0x1  # linux/if.h
_VARIABLES = (
    "ROS_DOMAIN_ID",
    "RMW_IMPLEMENTATION",
    "ROS_LOCALHOST_ONLY",
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_STATIC_PEERS",
    "ROS_DISTRO",
    "CYCLONEDDS_URI",
)


@dataclass(frozen=True, slots=True)
class Talk:
    """Two processes that talked as nodes do here; ``confined``: the same on this machine's loopback alone.

    ``confined`` is asked only when the first way failed.
    """

    answer: Answer
    confined: Answer | None = None


def try_talk(limit_s: float = LIMIT_S) -> Talk:
    """One process asks and another answers, on topics of their own that no robot listens to."""
    answer = _talk(None, limit_s)
    return Talk(answer, None if _heard(answer) else _talk(True, limit_s))


def judge_talk(seen: Talk, purpose: Purpose, ros: Path | None = None) -> Check:
    """Did the messages arrive? ``ros``: the setup file of a ROS 2 that is installed here."""
    bad = State.FAIL if purpose.needs_wire else State.WARN
    if _heard(seen.answer):
        values = seen.answer.values or {}
        trips = values["trips_ms"]
        facts = f"{len(trips)} messages there and back, {trips[len(trips) // 2]:.1f} ms in the middle"
        return checked("DDS", f"{values['carrier']}: {facts}, the first after {values['first_ms']:.0f} ms")
    if "neither cyclonedds nor rclpy" in seen.answer.trouble:
        line = f"{PIP} install cyclonedds" if ros is None else f"source {ros}"
        return checked("DDS", "", [Problem(bad, "nothing carries messages here: cyclonedds is missing", (line,))])
    if seen.confined is not None and _heard(seen.confined):
        sentence = "two processes meet on loopback alone, not over the network: multicast or a firewall stops them"
        lines = ("sudo ufw allow in proto udp to 224.0.0.0/4", "sudo ufw allow in proto udp from 192.168.0.0/16")
        return checked("DDS", "", [Problem(bad, sentence, (*lines, "export ROS_LOCALHOST_ONLY=1"))])
    trouble = seen.answer.trouble or "two processes do not hear each other, not even on loopback"
    return checked("DDS", "", [Problem(bad, trouble)])


def installed_ros(root: Path) -> Path | None:
    """What to source for ROS 2, where one is installed; the alphabet has the newest last."""
    return next(iter(sorted((root / "opt/ros").glob("*/setup.bash"), reverse=True)), None)


@dataclass(frozen=True, slots=True)
class Network:
    """``interfaces``: names that are up, with whether they take multicast; ``loopback`` the one that is.

    ``refusal``: why joining the group and hearing oneself failed, empty when it did not. ``receive_buffer``: the most
    bytes that a socket may ask for, None where unknown.
    """

    interfaces: Mapping[str, bool]
    loopback: str | None
    refusal: str
    receive_buffer: int | None


def look_at_network(root: Path) -> Network:
    """By /sys and /proc below ``root``, and a packet to oneself that does not leave the machine."""
    interfaces, loopback = {}, None
    for device in sorted((root / "sys/class/net").glob("*")):
        flags = int(_word(device / "flags") or "0", 16)
        if flags & _UP:
            interfaces[device.name] = bool(flags & _MULTICAST)
            loopback = device.name if flags & _LOOPBACK else loopback
    most = _word(root / "proc/sys/net/core/rmem_max")
    return Network(interfaces, loopback, multicast_refusal(), int(most) if most.isdigit() else None)


def multicast_refusal(timeout_s: float = 2.0) -> str:
    """Why a socket cannot join DDS's group and hear what it sends there itself; empty when it can."""
    word = secrets.token_bytes(16)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears:
            hears.settimeout(timeout_s)
            hears.bind(("", 0))
            membership = struct.pack("=4s4s", socket.inet_aton(GROUP), socket.inet_aton("0.0.0.0"))
            hears.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as says:
                says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)  # it stays on this machine
                says.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
                says.sendto(word, (GROUP, hears.getsockname()[1]))
            for _ in range(100):  # others may send to this port too
                if hears.recv(64) == word:
                    return ""
            return "others flood the port"
    except socket.timeout:  # noqa: UP041 -- another class than TimeoutError until Python 3.10
        return "what is sent to the group is not heard"
    except OSError as error:
        named = errno.errorcode.get(error.errno or 0, "")
        return f"{error.strerror or error} ({named})" if named else str(error)


def judge_multicast(seen: Network, purpose: Purpose) -> Check:
    """Can nodes find each other without a list of addresses?"""
    facts = ", ".join(f"{name}{'' if takes else ' without multicast'}" for name, takes in seen.interfaces.items())
    facts = facts or "no network interface is up"
    if not seen.refusal:
        return checked("multicast", facts)
    outward = next((name for name, takes in seen.interfaces.items() if takes and name != seen.loopback), None)
    lines: tuple[str, ...] = ("sudo ufw allow in proto udp to 224.0.0.0/4",)
    if outward is None and seen.loopback is not None:
        loopback = seen.loopback
        lines = (f"sudo ip link set {loopback} multicast on", f"sudo ip route add 224.0.0.0/4 dev {loopback}")
    elif "ENODEV" in seen.refusal or "ENETUNREACH" in seen.refusal:
        lines = (f"sudo ip route add 224.0.0.0/4 dev {outward}",)
    bad = State.WARN if purpose.needs_wire else State.NOT_NEEDED  # whether nodes meet all the same, DDS says
    return checked("multicast", facts, [Problem(bad, f"it does not work: {seen.refusal}", lines)])


def judge_buffers(seen: Network) -> Check:
    """May a socket hold a raw image that comes in one burst?"""
    most = seen.receive_buffer
    if most is None:
        return Check("DDS buffers", State.OK, "this system does not tell the largest receive buffer")
    facts = f"a socket may hold {most / 1024:.0f} KiB"
    if most >= WANTED_BUFFER:
        return checked("DDS buffers", facts)
    setting = f"net.core.rmem_max={WANTED_BUFFER}"
    lines = (
        f"sudo sysctl -w {setting}",
        f"echo {setting} | sudo tee /etc/sysctl.d/60-mobile-vla.conf",
    )
    sentence = "raw images may be lost on the way: 4096 KiB are wanted"
    return checked("DDS buffers", facts, [Problem(State.WARN, sentence, lines)])


def judge_ros(environment: Mapping[str, str], purpose: Purpose) -> Check:
    """Variables of ROS that keep nodes apart or stop them."""
    there = {name: environment[name] for name in _VARIABLES if environment.get(name)}
    bad, problems = serious(purpose.needs_wire), []
    domain = there.get("ROS_DOMAIN_ID", "0")
    if not (domain.isascii() and domain.isdigit() and int(domain) <= LAST_DOMAIN):
        sentence = f"ROS_DOMAIN_ID is {domain!r}, not a number from 0 to {LAST_DOMAIN}"
        problems.append(Problem(State.FAIL if purpose.needs_wire else State.WARN, sentence, ("unset ROS_DOMAIN_ID",)))
    elif int(domain) > LAST_SAFE_DOMAIN:
        sentence = f"ROS_DOMAIN_ID {domain} is above {LAST_SAFE_DOMAIN}: other programs may hold its ports"
        problems.append(Problem(State.WARN, sentence, ("export ROS_DOMAIN_ID=0",)))
    rmw = there.get("RMW_IMPLEMENTATION", "")
    if "zenoh" in rmw:
        sentence = f"RMW_IMPLEMENTATION is {rmw}, which does not speak DDS: ROS nodes of this shell do not hear ours"
        problems.append(Problem(State.WARN, sentence, ("export RMW_IMPLEMENTATION=rmw_cyclonedds_cpp",)))
    reach = there.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper()
    if reach == "OFF":
        sentence = "ROS_AUTOMATIC_DISCOVERY_RANGE is OFF: ROS nodes of this shell meet nobody"
        problems.append(Problem(State.WARN, sentence, ("unset ROS_AUTOMATIC_DISCOVERY_RANGE",)))
    if not purpose.needs_policy and (there.get("ROS_LOCALHOST_ONLY") == "1" or reach == "LOCALHOST"):
        sentence = "nodes are confined to this machine, and the policy runs on another"
        lines = ("unset ROS_LOCALHOST_ONLY ROS_AUTOMATIC_DISCOVERY_RANGE",)
        problems.append(Problem(bad, sentence, lines))
    facts = ", ".join(f"{name}={value}" for name, value in there.items()) or "no variable of ROS is set: domain 0"
    return checked("ROS", facts, problems)


def _talk(localhost_only: bool | None, limit_s: float) -> Answer:
    values: dict[str, Any] = {"word": secrets.token_hex(4), "count": TRIPS, "seconds": SECONDS}
    values["localhost_only"] = localhost_only
    other = subprocess.Popen(
        command("wire", {**values, "side": "answer"}),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return ask("wire", {**values, "side": "ask"}, limit_s)
    finally:
        assert other.stdin is not None
        other.stdin.close()
        try:
            other.wait(5.0)
        except subprocess.TimeoutExpired:
            other.kill()
            other.wait(5.0)


def _heard(answer: Answer) -> bool:
    return bool(answer.values and answer.values.get("trips_ms"))


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
