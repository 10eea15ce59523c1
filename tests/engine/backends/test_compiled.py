"""That it agrees stands in ``test_agreement``."""

import pytest

from mobile_vla.engine.backends.compiled import CompiledBackend


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert "install g++" in CompiledBackend().unusable("fp32")
    monkeypatch.setenv("CXX", "/bin/sh")
    assert CompiledBackend().unusable("fp32") == ""
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler is not there" in CompiledBackend().unusable("bf16")
