"""Names as ROS 2 makes them: namespaces, remapping, and what topics and types are called on the wire.

Rules: design.ros2.org/articles/topic_and_service_names.html; ros_discovery_info and the prefixes: rmw_dds_common and
the rmw_* implementations.
"""

import difflib
import re
from collections.abc import Collection, Mapping

from mobile_vla.core import ConfigError

MAX_NAME_CHARS = 255
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPE = re.compile(r"([a-z][a-z0-9_]*)/msg/([A-Z][A-Za-z0-9]*)")


def node_name(namespace: str, name: str) -> str:
    """The full name of a node, "/robot_1/control"; ConfigError for a name or namespace that ROS does not allow."""
    if not _TOKEN.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise ConfigError(f"{name!r} cannot name a node: use letters, digits and _, not a digit first")
    return _join(namespace_of(namespace), name)


def namespace_of(namespace: str) -> str:
    """``namespace`` with its leading "/" and without a trailing one; "" is "/". ConfigError for one not allowed."""
    whole = "/" + namespace.strip("/")
    return whole if whole == "/" else _checked(whole, namespace, "a namespace")


def topic_name(name: str, namespace: str, remap: Mapping[str, str]) -> str:
    """The absolute name of a topic after namespace and remapping; ConfigError for one that ROS does not allow.

    Relative names get the namespace, absolute ones stay. As in ROS, both sides of a remapping are made absolute first,
    and what was renamed is not renamed again.
    """
    rules = {absolute(old, namespace): absolute(new, namespace) for old, new in remap.items()}
    own = absolute(name, namespace)
    return rules.get(own, own)


def absolute(name: str, namespace: str) -> str:
    """``name`` under ``namespace`` unless it begins with "/"; ConfigError for one that ROS does not allow."""
    whole = name if name.startswith("/") else _join(namespace_of(namespace), name)
    return _checked(whole, name, "a topic")


def require_known(remap: Mapping[str, str], namespace: str, names: Collection[str]) -> None:
    """ConfigError, with the nearest known name, for a remapping that would rename nothing among ``names``."""
    known = {absolute(name, namespace): name for name in names}
    for old in remap:
        if absolute(old, namespace) not in known:
            nearest = difflib.get_close_matches(old, [*known, *known.values()], n=1, cutoff=0.0)
            raise ConfigError(f"there is no topic {old!r} to remap: did you mean {nearest[0]!r}?")


def wire_topic(name: str) -> str:
    """An absolute topic name as DDS knows it: "/cmd_vel" is "rt/cmd_vel"."""
    return "rt" + name


def wire_type(type_name: str) -> str:
    """A message type as DDS knows it: "std_msgs/msg/String" is "std_msgs::msg::dds_::String_"."""
    found = _TYPE.fullmatch(type_name)
    if found is None:
        raise ConfigError(f"{type_name!r} is not a message type: write it like std_msgs/msg/String")
    package, message = found.groups()
    return f"{package}::msg::dds_::{message}_"


def _join(namespace: str, name: str) -> str:
    return f"/{name}" if namespace == "/" else f"{namespace}/{name}"


def _checked(whole: str, given: str, what: str) -> str:
    if "__" in whole or not all(_TOKEN.fullmatch(token) for token in whole[1:].split("/")):
        raise ConfigError(
            f"{given!r} cannot name {what}: use letters, digits and _ (not a digit first, not __) with / between"
        )
    if len(whole) > MAX_NAME_CHARS:
        raise ConfigError(f"{whole!r} is too long to name {what}: {MAX_NAME_CHARS} characters are the limit")
    return whole
