"""Workers of a Ray cluster, one for each CPU. Who may do what is decided in ``train.workers``.

Ray itself restarts nothing here: an actor that comes back would have lost its tasks, and only the foreman knows them.
"""

import importlib
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mobile_vla.core import ConfigError
from mobile_vla.train.workers import Answer, Bench, Death, Open

CONNECT_LIMIT_S: Final = 10.0
"""Ray's own wait for an address at which nobody answers is longer than ten minutes."""


class RayCrew:
    """Actors of the cluster at ``address`` ("host:port", "ray://host:port", "auto").

    ModuleNotFoundError where Ray is not installed; ConfigError where no cluster answers that suits this Ray.
    """

    far = True

    def __init__(self, open_workshop: Open[Any, Any], address: str) -> None:
        self._ray: Any = importlib.import_module("ray")
        self._ours = not self._ray.is_initialized()
        if self._ours:
            _require_listener(address)
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise ConfigError(_nobody(address, str(error).strip().split("\n")[0])) from error
        self.size = self._cpus()
        if self.size < 1:
            self._leave()
            raise ConfigError(f"the Ray cluster at {address} offers no CPU: add a node that does")
        self._open = self._ray.put(open_workshop)
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Bench)

    def hire(self) -> "_RayHand":
        """Ask the cluster for an actor; it may have to wait for its place."""
        return _RayHand(self._actor.remote(self._open))

    def answers(self, hands: Sequence["_RayHand"], timeout_s: float) -> list[tuple["_RayHand", Answer | Death]]:
        """What came back since."""
        by_reference = {hand.due[0]: hand for hand in hands if hand.due}
        if not by_reference:
            return []
        found, _ = self._ray.wait(list(by_reference), num_returns=1, timeout=timeout_s)
        return [(by_reference[reference], self._fetch(by_reference[reference])) for reference in found]

    def close(self, hands: Mapping["_RayHand", Sequence[int]]) -> None:
        """End all actors, and leave the cluster."""
        for hand in hands:
            self._ray.kill(hand.actor)
        self._leave()

    def _cpus(self) -> int:
        """Of all nodes; a cluster that was just started may need a moment to count its first."""
        until = time.monotonic() + CONNECT_LIMIT_S
        while not (cpus := int(self._ray.cluster_resources().get("CPU", 0))) and time.monotonic() < until:
            time.sleep(0.2)
        return cpus

    def _fetch(self, hand: "_RayHand") -> Answer | Death:
        try:
            answer: Answer = self._ray.get(hand.due.popleft())
        except self._ray.exceptions.RayError as error:  # the actor, its node, or the result on its way is gone
            self._ray.kill(hand.actor)
            lines = str(error).strip().split("\n")
            return Death(f"on the cluster ({' ... '.join(line[:150] for line in lines[:1] + lines[1:][-1:])})")
        return answer

    def _leave(self) -> None:
        if self._ours:
            self._ray.shutdown()


class _RayHand:
    """``due``: references to the answers that are awaited, in the order of the tasks."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.due: deque[Any] = deque([actor.open.remote()])

    def give(self, task: Any) -> None:
        self.due.append(self.actor.do.remote(task))


def _require_listener(address: str) -> None:
    """ConfigError where nobody listens at "[ray://]host:port"; other addresses ("auto") are Ray's to find."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(_nobody(address, str(error))) from error


def _nobody(address: str, why: str) -> str:
    return (
        f"no Ray cluster can be used at {address} ({why}): start one with ray start --head, the same Ray and Python on "
        "all its nodes, or leave --ray out to work with processes of this machine"
    )
