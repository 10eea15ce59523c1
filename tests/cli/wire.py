"""A domain and namespaces of their own for the commands that speak on the wire, and processes of them."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager

from cyclonedds import _clayer
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from mobile_vla.ros import dds, graph, idl
from mobile_vla.ros.messages import deserialise

LIMIT_S = 180.0
DOMAIN = 1 + random.Random(os.getpid()).randrange(99)


def new_namespace():
    """Unlike any other's, should two processes draw the same domain."""
    return f"/test_{uuid.uuid4().hex[:12]}"


def on(namespace):
    """The options by which a command speaks there."""
    return ("--localhost", "--domain", DOMAIN, "--namespace", namespace)


def wait_until(holds, what, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    while not (found := holds()):
        assert time.monotonic() < end, f"it did not come to this in time: {what() if callable(what) else what}"
        time.sleep(0.05)
    return found


class Command:
    """A command in a process of its own; what it says is in two files, ``out`` and ``err``."""

    def __init__(self, folder, *arguments):
        self._paths = folder / f"{uuid.uuid4().hex}.out", folder / f"{uuid.uuid4().hex}.err"
        with self._paths[0].open("wb") as out, self._paths[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mobile_vla", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def out(self):
        return self._paths[0].read_text(encoding="utf-8")

    @property
    def err(self):
        return self._paths[1].read_text(encoding="utf-8")

    def end(self, number=None):
        """Its exit code, after the signal ``number``, if one is given."""
        if number is not None:
            self.process.send_signal(number)
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end: {self.out} {self.err}") from None


@contextmanager
def handlers_kept():
    """For a command that runs in the process of the tests: its signal handlers go with it."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def command(folder, *arguments):
    """Run it; it and, as the kernel does it for ``up``, its children end with the block."""
    running = Command(folder, *arguments)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGKILL)
        running.process.wait(LIMIT_S)


class Graph:
    """The nodes that ROS 2 tools see; only while a transport of this process is in the domain."""

    def __init__(self):
        qos = Qos(
            Policy.Reliability.Reliable(0),
            Policy.Durability.TransientLocal,
            Policy.History.KeepLast(100),
            Policy.DataRepresentation(use_cdrv0_representation=True),
        )
        self._participant = DomainParticipant(DOMAIN)
        self._reader = DataReader(self._participant, Topic(self._participant, graph.TOPIC, idl.struct(graph.TYPE)), qos)
        self._lists = {}

    def nodes(self):
        """Full names."""
        for data, info in _clayer.ddspy_take(self._reader._ref, dds._ANY, 100):
            if info.valid_data:
                message = deserialise(graph.TYPE, data)
                self._lists[bytes(message.gid.data)] = {
                    f"{node.node_namespace.rstrip('/')}/{node.node_name}" for node in message.node_entities_info_seq
                }
        return set().union(*self._lists.values())
