"""Message types as Cyclone DDS wants them described: final, keyless structs made from the type store's fields.

They are needed to make a topic and to compare types with other Cyclone peers; bytes are written and read by
``messages``.
"""

import functools
from typing import Any

from cyclonedds.idl import IdlStruct, make_idl_struct
from cyclonedds.idl import types as idl_types
from rosbags.interfaces import Nodetype

from mobile_vla.ros import naming
from mobile_vla.ros.messages import TYPES, TransportError

types: Any = idl_types  # its generic types are made in ways that mypy does not follow

_BASES: dict[str, Any] = {
    "bool": bool,
    "byte": types.byte,
    "char": types.uint8,  # ROS's char is an unsigned byte
    "string": str,
    **{f"{sign}int{bits}": getattr(types, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": types.float32,
    "float64": types.float64,
}


@functools.cache
def struct(type_name: str) -> type[IdlStruct]:
    """The struct of one message type, "std_msgs/msg/String"; TransportError for an unknown one."""
    if type_name not in TYPES.fielddefs:
        raise TransportError(f"{type_name!r} is not a message type that we know: see ros/topics.py")
    fields = {name: _field(kind) for name, kind in TYPES.fielddefs[type_name][1]}
    return make_idl_struct(type_name.replace("/", "_"), naming.wire_type(type_name).replace("::", "."), fields)


def _field(kind: Any) -> Any:
    sort, rest = kind
    if sort == Nodetype.NAME:
        return struct(rest)
    if sort == Nodetype.BASE:
        name, bound = rest
        return types.bounded_str[bound] if bound else _BASES[name]
    inner, length = rest
    if sort == Nodetype.ARRAY:
        return types.array[_field(inner), length]
    return types.sequence[_field(inner), length] if length else types.sequence[_field(inner)]
