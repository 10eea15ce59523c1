"""The other side of a node: a transport of the test's own, which plays everybody else on the wire."""

import threading
import time

import numpy as np

from mobile_vla.core import ActionChunk, ActionContract, Grounding, Status
from mobile_vla.ros import topics
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import belief_message, chunk_message, diagnoses, string
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.wire_time import to_wire

LIMIT_S = 60.0
"""Of a wait: reached only when something is broken."""


def wait_until(holds, what, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"it did not come to this in time: {what}"
        time.sleep(0.01)


class Running:
    """A node in a thread of its own, over a transport of its own; what it raises is raised again at the end."""

    def __init__(self, name, namespace, domain, make):
        self.transport = connect(NodeConfig(name, namespace, domain=domain, localhost_only=True))
        try:
            self.node = make(self.transport)
        except BaseException:
            self.transport.close()
            raise
        self.stop = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self._run, name=f"test-{name}", daemon=True)

    def _run(self):
        try:
            self.node.run(self.stop)
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(LIMIT_S)
        self.transport.close()
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error


def error_of(running):
    """What ended the node by itself."""
    running.thread.join(LIMIT_S)
    assert not running.thread.is_alive()
    error, running.error = running.error, None
    assert error is not None
    return error


class Outside:
    """Publishes and hears what a test needs."""

    def __init__(self, namespace, domain):
        self.transport = connect(NodeConfig("outside", namespace, domain=domain, localhost_only=True))
        self.publishers = {}
        self.heard = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.transport.close()

    def listen(self, topic):
        self.heard[topic.name] = []
        self.transport.subscribe(topic, lambda received: self.heard[topic.name].append(received.message))

    def publish(self, topic, message):
        if topic.name not in self.publishers:
            self.publishers[topic.name] = self.transport.publisher(topic)
        assert self.transport.wait_for_readers(topic, 1, LIMIT_S)
        self.publishers[topic.name].publish(message)

    def newest(self, topic):
        return self.heard[topic.name][-1] if self.heard[topic.name] else None

    @property
    def safety(self):
        message = self.newest(topics.SAFETY)
        return diagnoses(message)[0].values if message else {}

    def wait_for(self, **values):
        wait_until(lambda: all(self.safety.get(key) == value for key, value in values.items()), values)

    def contract(self, contract=None):
        contract = contract or ActionContract()
        import json

        self.publish(topics.CONTRACT, string(json.dumps({"policy": "test", "contract": contract.to_dict()})))

    def decide(self, text, velocity=(0.3, 0.0, 0.0), status=Status.DRIVING, age_s=0.0, belief=True, rows=8):
        """A chunk on a frame captured ``age_s`` ago, and the belief behind it."""
        captured_ns = to_wire(time.monotonic_ns() - round(age_s * 1e9))
        chunk = ActionChunk(np.tile(np.array(velocity, dtype=np.float32), (rows, 1)), captured_ns, 10.0)
        if belief:
            grounding = Grounding(1.0, 0.0, 1.0, (0.0, 0.0, 1.0, 1.0), status)
            self.publish(topics.BELIEF, belief_message(grounding, text, 1.0, captured_ns))
        self.publish(topics.CHUNK, chunk_message(chunk, captured_ns))


class Deciding:
    """Goes on deciding until the end of the ``with`` block, as an inference node would."""

    def __init__(self, outside, text, period_s=0.05, **how):
        self._outside, self._text, self._period_s, self.how = outside, text, period_s, how
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test-deciding", daemon=True)

    def _run(self):
        while not self._over.wait(self._period_s):
            self._outside.decide(self._text, **self.how)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)
