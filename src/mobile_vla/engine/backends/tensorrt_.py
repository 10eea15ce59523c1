"""TensorRT on the GPU that it was built on, a Jetson's for one. PyTorch reads the words and needs no CUDA for it."""

import json
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from mobile_vla.core import CheckpointError, ConfigError, DamagedCheckpointError
from mobile_vla.engine.backends.base import ArrayEngine, Backend, Making, Opening
from mobile_vla.engine.jetson.build_engine.cuda import BuildError, Cuda
from mobile_vla.engine.jetson.build_engine.finish import PLAN, PLAN_MACHINE
from mobile_vla.engine.jetson.build_engine.plan import PlanRunner, tensorrt
from mobile_vla.engine.jetson.build_engine.work import make_plan, plan_machine
from mobile_vla.engine.jetson.plain import PRECISIONS, PlainStep
from mobile_vla.policy.step import Decision

OUTPUTS = (*Decision._fields[:-1], "next_history")


class TensorRtBackend(Backend):
    """A plan of TensorRT: made for one GPU and one version of the library, both named in a file beside it.

    It counts as an engine of the CPU in the folder's fingerprint, which asks PyTorch for GPUs: on a Jetson PyTorch
    seldom sees one. What matters of the GPU is compared here.
    """

    name: ClassVar = "tensorrt"
    precisions: ClassVar = PRECISIONS
    libraries: ClassVar = ()

    def unusable(self, precision: str) -> str:
        """Without TensorRT, CUDA or a GPU."""
        try:
            tensorrt()
            Cuda()
        except BuildError as error:
            return str(error)
        return ""

    def write(self, making: Making) -> None:
        """Build the plan here, which takes minutes and the packages for ONNX. ConfigError where TensorRT cannot."""
        from mobile_vla.engine.jetson.graph import write_typed_graph

        try:
            tensorrt()
            graph = write_typed_graph(making.step, making.folder, making.precision, making.sessions, making.calibration)
            make_plan(making.folder, graph.name, making.precision)
            for each in making.folder.glob(f"{graph.name}*"):  # gigabytes that nobody needs any more
                each.unlink()
        except BuildError as error:
            raise ConfigError(str(error)) from error

    def open(self, opening: Opening) -> "TensorRtEngine":
        """CheckpointError for a plan of another GPU or another version of TensorRT."""
        try:
            library, cuda = tensorrt(), Cuda()
            require_same(opening.folder, plan_machine(library, cuda))
            runner = PlanRunner(library, (opening.folder / PLAN).read_bytes(), cuda)
        except BuildError as error:
            raise CheckpointError(f"the engine at {opening.folder} cannot be used: {error}") from error
        return TensorRtEngine(opening, runner)


class TensorRtEngine(ArrayEngine):
    """Words go to the GPU once an instruction, as long as one session drives."""

    def __init__(self, opening: Opening, runner: Any) -> None:
        super().__init__(PlainStep(opening.step), opening.sessions)
        self._runner = runner
        self._last: tuple[NDArray[Any], ...] | None = None

    def run(
        self,
        pixels: NDArray[Any],
        words: tuple[NDArray[Any], ...],
        motion: NDArray[Any],
        history: NDArray[Any],
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """See ``ArrayEngine``."""
        inputs = {"pixels": pixels, "motion": motion, "history": history}
        if words is not self._last:
            inputs |= {f"words_{place}": part for place, part in enumerate(words)}
            self._last = words
        given = self._runner.run(inputs)
        chunk, status, belief, after = (given[name] for name in OUTPUTS)
        return chunk, status, belief, after

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._runner.close()


def require_same(folder: Path, here: dict[str, str]) -> None:
    """CheckpointError that names what differs between where the plan was made and here."""
    try:
        there = dict(json.loads((folder / PLAN_MACHINE).read_bytes()))
    except OSError as error:
        raise CheckpointError(
            f"{folder / PLAN_MACHINE} cannot be read ({error.strerror}): build the engine again"
        ) from error
    except (ValueError, TypeError) as error:
        raise DamagedCheckpointError(
            folder / PLAN_MACHINE, f"it cannot be understood ({error}): build the engine again"
        ) from error
    differences = [
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differences:
        raise CheckpointError(
            f"the engine at {folder} was built on another machine ({'; '.join(differences)}): run python3 -m "
            "build_engine in its folder here"
        )
