"""What every engine over arrays has to keep, whatever it runs."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from engine.cpu import Graph, opened
from mobile_vla.engine.backends.base import Decided, Engine
from mobile_vla.policy.step import Inputs


def decided(engine: Engine, inputs: Inputs) -> Decided:
    return engine.decide(
        inputs.pixels.numpy(), [engine.bring(inputs.words)], inputs.motion.numpy(), [inputs.history.numpy()]
    )


def threads_more(make: Callable[[], Engine], inputs: Inputs) -> int:
    """Threads that live after an engine was made and has decided, less those before."""
    before = len(os.listdir("/proc/self/task"))
    engine = make()
    for _ in range(3):
        decided(engine, inputs)
    more = len(os.listdir("/proc/self/task")) - before
    engine.close()
    return more


class Conformance:
    name: ClassVar[str]

    def test_what_it_gave_is_never_written_to_again(self, graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
        engine = opened(self.name, "fp32", graph, tmp_path)
        first = decided(engine, real[0])
        kept = [part.copy() for part in (*first[:3], *first.histories)]
        for inputs in real[50:60]:
            decided(engine, inputs)
        for one, other in zip((*first[:3], *first.histories), kept, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_what_it_is_given_stays_as_it_was(self, graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
        engine, inputs = opened(self.name, "fp32", graph, tmp_path), real[7]
        kept = [part.clone() for part in (inputs.pixels, *inputs.words, inputs.motion, inputs.history)]
        decided(engine, inputs)
        for one, other in zip((inputs.pixels, *inputs.words, inputs.motion, inputs.history), kept, strict=True):
            assert (one == other).all()

    def test_the_same_question_has_the_same_answer(self, graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
        engine = opened(self.name, "int8", graph, tmp_path)
        first = decided(engine, real[3])
        decided(engine, real[99])
        again = decided(engine, real[3])
        np.testing.assert_array_equal(first.chunk, again.chunk)
        np.testing.assert_array_equal(first.histories[0], again.histories[0])

    def test_between_two_decisions_it_sleeps(self, graph: Graph, tmp_path: Path, real: list[Inputs]) -> None:
        engine = opened(self.name, "fp32", graph, tmp_path, threads=2)
        for inputs in real[:5]:
            decided(engine, inputs)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.1
