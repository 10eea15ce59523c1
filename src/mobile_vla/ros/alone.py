"""Who drives here already? Of two safety layers on one base each would undo what the other one does."""

import threading

from mobile_vla.core import MobileVLAError
from mobile_vla.ros.messages import diagnoses
from mobile_vla.ros.topics import SAFETY
from mobile_vla.ros.transport import Received, Transport

LISTEN_S = 1.5
"""A control node speaks ten times a second; on a busy machine it takes most of a second until it is found."""


class NotAloneError(MobileVLAError):
    """Another control node or drive has the robot."""


def require_alone(transport: Transport, limit_s: float = LISTEN_S) -> None:
    """Listen to ``topics.SAFETY`` for ``limit_s``; NotAloneError as soon as it comes.

    ``transport`` must not publish it yet, and goes on reading it: nothing unsubscribes. A control node that was
    killed is not heard, for a new reader gets nothing of what was written before it.
    """
    heard, names = threading.Event(), {""}

    def listen(received: Received) -> None:
        if not heard.is_set():
            names.update(status.name.removesuffix("/safety") for status in diagnoses(received.message))
            heard.set()

    transport.subscribe(SAFETY, listen)
    if heard.wait(limit_s):
        who = f" ({max(names)})" if max(names) else ""
        raise NotAloneError(
            f"a control node or drive is up here already{who}: end it first, or use another --namespace or --domain"
        )
