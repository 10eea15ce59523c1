"""Nobody begins to drive where somebody drives; one that is gone is in nobody's way."""

import threading
import time

import pytest

from mobile_vla.ros import topics
from mobile_vla.ros.alone import NotAloneError, require_alone
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import Level, diagnostics
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import to_wire

LONG_S = 60.0


class Driver:
    """Says ten times a second that it drives, as a control node does."""

    def __init__(self, namespace, domain):
        self.transport = connect(NodeConfig("control", namespace, domain=domain, localhost_only=True))
        self._safety = self.transport.publisher(topics.SAFETY)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-driver", daemon=True)

    def _run(self):
        while not self._over.wait(0.1):
            now_ns = to_wire(time.monotonic_ns())
            self._safety.publish(diagnostics(Level.OK, f"{self.transport.node}/safety", "", {}, now_ns))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LONG_S)
        self.transport.close()


def listener(namespace, domain):
    return connect(NodeConfig("listener", namespace, domain=domain, localhost_only=True))


def test_one_that_drives_is_heard_at_once_and_named(namespace, domain):
    with Driver(namespace, domain), listener(namespace, domain) as transport:
        began = time.monotonic()
        with pytest.raises(NotAloneError, match=rf"already \({namespace}/control\): end it first"):
            require_alone(transport, LONG_S)
        assert time.monotonic() - began < LONG_S / 2


def test_nobody_one_of_another_robot_and_one_that_has_ended_are_in_nobodys_way(namespace, domain):
    with Driver(namespace, domain), listener(f"{namespace}_2", domain) as transport:
        require_alone(transport)
    with listener(namespace, domain) as transport:
        require_alone(transport)
