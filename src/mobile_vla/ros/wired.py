"""What the transports have in common: the names of a node, the wait for readers, the way to the end."""

import atexit
import logging
import os
import threading
import time
from abc import ABC, abstractmethod

from typing_extensions import Self

from mobile_vla.ros import naming
from mobile_vla.ros.topics import Topic
from mobile_vla.ros.transport import NodeConfig, Publisher

_log = logging.getLogger(__name__)

FAREWELL_S = 0.3
"""How long ``close`` waits for readers to acknowledge what was written."""
LAST_CALLBACK_S = 2.0
"""How long ``close`` waits for a callback to return; one that hangs is left to itself."""


class WiredNode(ABC):
    """One node with its thread; ConfigError for names that ROS does not allow."""

    def __init__(self, config: NodeConfig) -> None:
        self.node = naming.node_name(config.namespace, config.name)
        self._namespace, self._remap = config.namespace, dict(config.remap)
        naming.topic_name("name", self._namespace, self._remap)  # finds what is wrong with the remapping now
        self._lock = threading.RLock()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=f"ros {self.node}", daemon=True)

    def _start(self) -> None:
        self._thread.start()
        atexit.register(self.close)

    @abstractmethod
    def publisher(self, topic: Topic) -> Publisher:
        """See ``Transport.publisher``."""

    @abstractmethod
    def _serve(self) -> None:
        """Wait for messages and hand them on until ``_closed``."""

    @abstractmethod
    def _wake_up(self) -> None:
        """End the wait of ``_serve``."""

    @abstractmethod
    def _leave(self, until: float) -> None:
        """Say farewell, wait for acknowledgements until ``until`` on the monotonic clock, let everything go."""

    def wait_for_readers(self, topic: Topic, count: int, timeout_s: float) -> bool:
        """See ``Transport.wait_for_readers``."""
        publisher, until = self.publisher(topic), time.monotonic() + timeout_s
        while publisher.readers < count:
            if time.monotonic() >= until:
                return False
            time.sleep(0.005)
        return True

    def close(self) -> None:
        """See ``Transport.close``. From a callback too; in a forked process it does nothing."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._wake_up()
        if threading.current_thread() is not self._thread:
            self._thread.join(LAST_CALLBACK_S)
            if self._thread.is_alive():
                _log.warning("%s is closed while a callback hangs", self.node)
        with self._lock:
            self._leave(time.monotonic() + FAREWELL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _name(self, topic: Topic) -> str:
        return naming.topic_name(topic.name, self._namespace, self._remap)
