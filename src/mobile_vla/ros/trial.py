"""One instruction on the simulated robot that is up, and how it came out, judged from the true state."""

import json
import queue
import time
from collections.abc import Callable, Iterable
from typing import Any

from typing_extensions import Self

from mobile_vla.ros.messages import diagnoses, string
from mobile_vla.ros.operator import FOUND_WITHIN_S, End, NoAnswerError, Operator
from mobile_vla.ros.topics import DIAGNOSTICS, SIM_SCENE, SIM_VERDICT
from mobile_vla.ros.transport import Received, Transport

JUDGED_WITHIN_S = 5.0
NODES = ("camera", "control", "inference", "sim")


class Trial:
    """Owns ``transport`` through its operator. NoAnswerError when the simulation does not answer in time."""

    def __init__(self, transport: Transport) -> None:
        self.operator = Operator(transport)
        self._transport = transport
        self._scenes = transport.publisher(SIM_SCENE)
        self._verdicts: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._alive: queue.SimpleQueue[str] = queue.SimpleQueue()
        transport.subscribe(SIM_VERDICT, self._on_verdict)
        transport.subscribe(DIAGNOSTICS, self._on_diagnostics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def wait_until_up(self, limit_s: float, also: Iterable[str] = ()) -> None:
        """Wait until camera, inference, control and simulation live, and these ``also``, as they say themselves."""
        end_s, missing = time.monotonic() + limit_s, {*NODES, *also}
        while missing:
            try:
                missing.discard(self._alive.get(timeout=max(0.0, end_s - time.monotonic())))
            except queue.Empty:
                raise NoAnswerError(f"not up within {limit_s:g} s: {', '.join(sorted(missing))}") from None

    def load(self, scenario: str, seed: int) -> None:
        """Put the robot into this scene."""
        if not self._transport.wait_for_readers(SIM_SCENE, 1, FOUND_WITHIN_S):
            raise NoAnswerError("no simulation is up here: start it with mobile-vla up --sim")
        self._scenes.publish(string(json.dumps({"scenario": scenario, "seed": seed})))
        self._wait(lambda verdict: (verdict.get("loaded"), verdict.get("seed")) == (scenario, seed), FOUND_WITHIN_S)

    def drive(self, text: str, limit_s: float) -> tuple[End, dict[str, Any]]:
        """Tell it ``text`` and wait, through protective stops, for its end and the verdict (keys: ``nodes.sim``)."""
        while not self._verdicts.empty():
            self._verdicts.get_nowait()
        end = self.operator.say(text, limit_s, through_stops=True)
        assert isinstance(end, End)
        return end, self._wait(lambda verdict: verdict.get("instruction") == text, JUDGED_WITHIN_S)

    def _wait(self, holds: Callable[[dict[str, Any]], bool], limit_s: float) -> dict[str, Any]:
        end_s = time.monotonic() + limit_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                verdict = self._verdicts.get(timeout=left_s)
            except queue.Empty:
                break
            if holds(verdict):
                return verdict
        raise NoAnswerError("the simulation did not answer in time: look at what mobile-vla up prints")

    def _on_diagnostics(self, received: Received) -> None:
        for diagnosis in diagnoses(received.message):
            namespace, _, name = diagnosis.name.rpartition("/")
            if namespace == self._transport.node.rpartition("/")[0]:
                self._alive.put(name)

    def _on_verdict(self, received: Received) -> None:
        self._verdicts.put(json.loads(received.message.data))
