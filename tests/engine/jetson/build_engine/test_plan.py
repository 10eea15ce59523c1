"""Without TensorRT, and with one that is too old."""

import sys
from types import ModuleType

import pytest

from mobile_vla.engine.jetson.build_engine.cuda import BuildError
from mobile_vla.engine.jetson.build_engine.plan import tensorrt


def test_without_tensorrt_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BuildError, match=r"TensorRT cannot be imported .*python3-libnvinfer"):
        tensorrt()


@pytest.mark.parametrize(("version", "old"), [("8.6.2", True), ("10.3.0", False), ("11.4.0.106", False)])
def test_a_version_is_old_or_not(version: str, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModuleType("tensorrt")
    found.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", found)
    if old:
        with pytest.raises(BuildError, match=r"TensorRT 8\.6\.2 is too old.*JetPack 6\.1 or newer"):
            tensorrt()
    else:
        assert tensorrt() is found
