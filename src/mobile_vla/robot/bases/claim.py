"""Who drives a device now, where the kernel lets several programs open it: a CAN interface is such a one.

The claim is an abstract Unix socket (unix(7)): it belongs to the same network namespace as the interface, it is no file
that could be left over, and the kernel takes it back when the process ends, however it ends. The guard of a base does
not inherit it.
"""

import errno
import os
import socket
import struct

from mobile_vla.core import BaseError

_WAITING = 128
"""Others that ask who has it stay in the queue until the claim ends."""
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred, unix(7)


class Claim:
    """``name`` is this object's until ``close``. BaseError when something else has it, in this process or another."""

    def __init__(self, name: str) -> None:
        address = f"\0mobile-vla/{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(address)
            self._socket.listen(_WAITING)
        except OSError as error:
            self._socket.close()
            if error.errno != errno.EADDRINUSE:
                raise BaseError(f"cannot claim {name} for this process: {error}") from error
            pid = _holder(address)
            who = "this process" if pid == os.getpid() else f"another process{f' (pid {pid})' if pid else ''}"
            raise BaseError(f"{name} is driven by {who} already: end that first") from error

    def close(self) -> None:
        """Let it go. Closed twice is closed."""
        self._socket.close()


def _holder(address: str) -> int:
    """The process that has the claim, 0 where that cannot be seen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(address)
            payload = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:  # it has just ended, or too many have asked
            return 0
    pid: int = _CREDENTIALS.unpack(payload)[0]
    return pid
