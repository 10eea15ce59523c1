"""PyTorch's own compiler on the CPU: the decision as C++ that is written and compiled when the engine is opened.

That takes a minute and needs a C++ compiler. What was compiled is kept by torch for the next time, in
``$TORCHINDUCTOR_CACHE_DIR`` or else ``torchinductor_<user>`` in the folder for temporary files; an engine's own folder
holds none of it, because files of an engine hold no code.
"""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch

from mobile_vla.core import CheckpointError
from mobile_vla.engine.backends.base import Backend, Opening, as_array
from mobile_vla.engine.backends.torch_ import TorchEngine
from mobile_vla.engine.export import export_program

_COMPILERS = ("g++", "clang++", "c++")


class CompiledBackend(Backend):
    """No files of its own."""

    name: ClassVar = "compile"
    precisions: ClassVar = ("fp32", "bf16")

    def unusable(self, precision: str) -> str:
        """See ``Backend``."""
        named = os.environ.get("CXX")
        if not any(map(shutil.which, [named] if named else _COMPILERS)):
            return f"torch.compile needs a C++ compiler, and {named or ', '.join(_COMPILERS)} is not there: install g++"
        return ""

    def open(self, opening: Opening) -> "CompiledEngine":
        """Compile. CheckpointError where the compiler fails."""
        return CompiledEngine(opening)


class CompiledEngine(TorchEngine):
    """Weights are constants of the program, packed as the processor likes them."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        program = export_program(self._step.requires_grad_(False), opening.sessions)
        with _settings():
            self._run = torch.compile(program.module(), fullgraph=True, dynamic=False)
            example = self._step.example(opening.sessions)
            pixels, motion, history = (as_array(part) for part in (example.pixels, example.motion, example.history))
            words = tuple(as_array(part) for part in example.words)
            try:
                for _ in range(2):
                    self.run(pixels, words, motion, history)
            except Exception as error:  # whatever a compiler can fail with
                raise CheckpointError(
                    f"torch.compile cannot compile this policy in {opening.precision} here "
                    f"({str(error).strip().partition(chr(10))[0][:200]}): choose another engine"
                ) from error


@contextmanager
def _settings() -> Iterator[None]:
    """Weights become constants, and no processes are left behind; what the compiler warns of is for its makers."""
    from torch._inductor import config

    with warnings.catch_warnings(), config.patch(freezing=True, compile_threads=1):
        warnings.simplefilter("ignore")
        yield
