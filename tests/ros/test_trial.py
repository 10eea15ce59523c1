"""A trial, against a simulation of three lines: what the real one answers is tested beside it."""

import json
import threading
import time

import pytest

from mobile_vla.ros import operator as operator_module
from mobile_vla.ros import topics, trial
from mobile_vla.ros.connect import connect
from mobile_vla.ros.messages import Level, diagnostics, string
from mobile_vla.ros.operator import NoAnswerError
from mobile_vla.ros.transport import NodeConfig
from mobile_vla.ros.trial import NODES, Trial
from mobile_vla.ros.wire_time import to_wire

from .nodes.world import LIMIT_S, Outside, wait_until

GO = "go to the red cup"


class Simulation(Outside):
    """Answers as control and the simulation do: accepts words, drives for half a second, judges them a success."""

    def __init__(self, namespace, domain):
        super().__init__(namespace, domain)
        self.values = {"state": "holding", "orders": "0", "refused": "", "instruction": "", "last_status": ""}
        self.values["last_ending"] = ""
        self.judges = True
        self._safety = self.transport.publisher(topics.SAFETY)
        self._verdict = self.transport.publisher(topics.SIM_VERDICT)
        self._diagnostics = self.transport.publisher(topics.DIAGNOSTICS)
        self._over = threading.Event()
        self._ends_s = None
        self.alive = ()
        self.transport.subscribe(topics.INSTRUCTION, self._on_instruction)
        self.transport.subscribe(topics.SIM_SCENE, self._on_scene)
        self._thread = threading.Thread(target=self._run, name="test-simulation", daemon=True)
        self._thread.start()

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(LIMIT_S)
        super().__exit__()

    def verdict(self, **values):
        self._verdict.publish(string(json.dumps(values)))

    def _on_instruction(self, received):
        self.values |= {"instruction": received.message.data, "orders": str(int(self.values["orders"]) + 1)}
        self._ends_s = time.monotonic() + 0.5

    def _on_scene(self, received):
        wanted = json.loads(received.message.data)
        if wanted["scenario"] != "the moon":
            self.verdict(loaded=wanted["scenario"], seed=wanted["seed"])

    def _run(self):
        while not self._over.wait(0.05):
            if self._ends_s is not None and time.monotonic() > self._ends_s:
                self._ends_s = None
                text = self.values["instruction"]
                self.values |= {"instruction": "", "last_ending": "finished", "last_status": "arrived"}
                if self.judges:
                    self.verdict(instruction="another one", success=False)
                    time.sleep(0.1)  # one that is kept for who comes later is the newest alone
                    self.verdict(instruction=text, success=True, path_m=2.5)
            now_ns = to_wire(time.monotonic_ns())
            self._safety.publish(diagnostics(Level.OK, "safety", "", self.values, now_ns))
            for name in self.alive:
                self._diagnostics.publish(diagnostics(Level.OK, name, "", {}, now_ns))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    for module, name in (
        (operator_module, "FOUND_WITHIN_S"),
        (operator_module, "ANSWERED_WITHIN_S"),
        (trial, "FOUND_WITHIN_S"),
        (trial, "JUDGED_WITHIN_S"),
    ):
        monkeypatch.setattr(module, name, LIMIT_S)


@pytest.fixture
def simulation(namespace, domain):
    with Simulation(namespace, domain) as simulation:
        yield simulation


@pytest.fixture
def on_trial(namespace, domain):
    with Trial(connect(NodeConfig("operator", namespace, domain=domain, localhost_only=True))) as on_trial:
        yield on_trial


def test_it_waits_for_every_node_of_its_own_robot(simulation, on_trial, namespace):
    simulation.alive = [f"{namespace}/{name}" for name in NODES]
    on_trial.wait_until_up(LIMIT_S)


def test_it_names_those_that_are_missing(simulation, on_trial, namespace):
    simulation.alive = [f"{namespace}/camera", f"{namespace}/sim", "/another/control"]
    with pytest.raises(NoAnswerError, match=r"not up within 2 s: control, inference, recorder$"):
        on_trial.wait_until_up(2.0, ["recorder"])


def test_it_loads_a_scene(simulation, on_trial, monkeypatch):
    on_trial.load("hidden", 4)
    monkeypatch.setattr(trial, "FOUND_WITHIN_S", 1.0)
    with pytest.raises(NoAnswerError, match="did not answer in time"):
        on_trial.load("the moon", 4)


def test_a_drive_comes_back_with_its_own_verdict(simulation, on_trial):
    end, verdict = on_trial.drive(GO, LIMIT_S)
    assert end.done
    assert verdict == {"instruction": GO, "success": True, "path_m": 2.5}
    again, verdict = on_trial.drive("go to the ball", LIMIT_S)
    assert again.done
    assert verdict["instruction"] == "go to the ball"


def test_an_old_verdict_on_the_same_words_is_not_taken(simulation, on_trial, monkeypatch):
    on_trial.drive(GO, LIMIT_S)
    simulation.verdict(instruction=GO, success=True)
    simulation.judges = False
    wait_until(lambda: not on_trial._verdicts.empty(), "it has come")
    monkeypatch.setattr(trial, "JUDGED_WITHIN_S", 1.0)
    with pytest.raises(NoAnswerError, match="did not answer in time"):
        on_trial.drive(GO, LIMIT_S)


def test_without_a_simulation_it_says_how_to_start_one(on_trial, monkeypatch):
    monkeypatch.setattr(trial, "FOUND_WITHIN_S", 0.3)
    with pytest.raises(NoAnswerError, match="mobile-vla up --sim"):
        on_trial.load("hidden", 4)
