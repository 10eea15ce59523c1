"""The DDS domain that the transports of one process share, and how Cyclone DDS is set up for pictures and for ROS."""

import ctypes
import functools
import os
import threading
from dataclasses import dataclass

from cyclonedds.core import DDSException, Entity, WaitSet
from cyclonedds.domain import Domain

from mobile_vla.core import ConfigError
from mobile_vla.ros.messages import TransportError

MAX_DOMAIN = 232  # beyond it the ports of RTPS (7400 + 250 domain) do not exist
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # malloc.h


def number(wanted: int | None) -> int:
    """``wanted``, else ROS_DOMAIN_ID, else 0; ConfigError for what is not a number from 0 to 232."""
    text = str(wanted) if wanted is not None else os.environ.get("ROS_DOMAIN_ID") or "0"
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_DOMAIN):
        source = "the domain" if wanted is not None else "ROS_DOMAIN_ID"
        raise ConfigError(f"{source} is {text!r}: use a whole number from 0 to {MAX_DOMAIN}")
    return int(text)


def localhost(wanted: bool | None) -> bool:
    """``wanted``, else whether ROS's variables confine nodes to this machine.

    They are ROS_LOCALHOST_ONLY=1 (up to Humble) and ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST (from Iron on).
    """
    if wanted is not None:
        return wanted
    if os.environ.get("ROS_LOCALHOST_ONLY") == "1":
        return True
    return os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "LOCALHOST"


def configuration(localhost_only: bool) -> str:
    """Cyclone DDS's configuration. What CYCLONEDDS_URI names comes after it, so that a person has the last word.

    Fragments of a whole datagram, because with the default sizes raw images are lost; a receive buffer that asks for
    4 MB and takes what it gets; type information of Fast DDS (vendor 1.15) and Cyclone (1.16) unread, because ROS's
    differs from ours in spelling; high-water marks above ten images, so that a hanging reader delays no writer. On
    loopback we look for others every second and for ever: Fast DDS does not look for us there, and by default Cyclone
    looks every 30 s and stops 30 s after the start.
    """
    loopback = '<Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces><AllowMulticast>false</AllowMulticast>'
    peers = '<Peers><Peer address="127.0.0.1" PruneDelay="inf"/></Peers>'
    ours = (
        '<CycloneDDS><Domain Id="any">'
        f"<General>{loopback if localhost_only else ''}"
        "<MaxMessageSize>65500B</MaxMessageSize><FragmentSize>65000B</FragmentSize></General>"
        f"<Discovery>{peers if localhost_only else ''}<LeaseDuration>3s</LeaseDuration><SPDPInterval>1s</SPDPInterval>"
        "<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>32</MaxAutoParticipantIndex></Discovery>"
        '<Internal><SocketReceiveBufferSize max="4MB"/>'
        "<Watermarks><WhcHigh>64MB</WhcHigh><WhcHighInit>64MB</WhcHighInit></Watermarks></Internal>"
        "<Compatibility><IgnoreTypeInformation>1.15,1.16</IgnoreTypeInformation></Compatibility>"
        "</Domain></CycloneDDS>"
    )
    theirs = os.environ.get("CYCLONEDDS_URI")
    return f"{ours},{theirs}" if theirs else ours


@dataclass
class _Shared:
    domain: Domain
    localhost_only: bool
    process: int
    users: int = 0


_lock = threading.Lock()
_domains: dict[int, _Shared] = {}


def join_domain(number: int, localhost_only: bool) -> None:
    """Make the domain, or share it with the transports that are in it; each ``join_domain`` needs a ``leave_domain``.

    ConfigError when it is already open in this process with another ``localhost_only``; TransportError in a process
    that was forked from one that had it open, and when Cyclone DDS refuses.
    """
    with _lock:
        if any(shared.process != os.getpid() for shared in _domains.values()):
            raise TransportError("DDS does not outlive a fork: start the process by multiprocessing's spawn")
        shared = _domains.get(number)
        if shared is None:
            _settle_memory()
            try:
                shared = _Shared(Domain(number, configuration(localhost_only)), localhost_only, os.getpid())
            except DDSException as error:
                raise TransportError(
                    f"DDS domain {number} cannot be opened ({error}): check CYCLONEDDS_URI and the network "
                    "interfaces, and that nothing else in this process opened it"
                ) from error
            _domains[number] = shared
        if shared.localhost_only != localhost_only:
            raise ConfigError(
                f"DDS domain {number} is open in this process with localhost_only={shared.localhost_only}: "
                "give every node of one process the same"
            )
        shared.users += 1


def leave_domain(number: int) -> None:
    """Undo one ``join_domain``; the last deletes the domain."""
    with _lock:
        shared = _domains[number]
        shared.users -= 1
        if shared.users == 0:
            del _domains[number]
            delete(shared.domain)


def delete(entity: Entity) -> None:
    """Delete an entity and its children now, rather than when Python forgets it."""
    Entity._entities.pop(entity._ref, None)
    entity._delete(entity._ref)


def _forget() -> None:
    """In a forked process DDS's threads are not there, and deleting entities, as at the end, would wait for ever."""
    for entity in list(Entity._entities.values()):
        if isinstance(entity, WaitSet):
            entity.attached.clear()
    Entity._entities.clear()


os.register_at_fork(after_in_child=_forget)


@functools.cache
def _settle_memory() -> None:
    """Keep glibc from returning the memory of each image to the kernel: it costs 4 ms a raw 720p image."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 512 << 20)
