"""Without a GPU: what is said then. The rest needs a Jetson, and ``python3 -m build_engine`` is its test there."""

import pytest

from mobile_vla.engine.jetson.build_engine import cuda
from mobile_vla.engine.jetson.build_engine.cuda import BuildError, Cuda


def test_without_a_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARIES", ("libnothing-like-cudart.so",))
    with pytest.raises(BuildError, match=r"CUDA's runtime is not here \(libnothing-like-cudart.so .*--runtime nvidia"):
        Cuda()
