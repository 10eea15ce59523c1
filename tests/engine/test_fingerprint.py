import platform
from dataclasses import replace

import torch

from mobile_vla.engine.fingerprint import Fingerprint, fingerprint, has_instruction


def test_it_is_the_same_each_time_and_comes_back_from_plain_values() -> None:
    one = fingerprint(["torch", "numpy"])
    assert one == fingerprint(["torch", "numpy"])
    values = one.to_dict()
    assert Fingerprint(**{**values, "instructions": tuple(values["instructions"])}) == one
    assert one.libraries["torch"] == torch.__version__
    assert one.architecture == platform.machine()
    assert one.device == ""


def test_each_difference_is_named_with_both_sides() -> None:
    here = fingerprint(["torch"])
    there = replace(here, processor="Cortex-A78AE", instructions=(), libraries={"torch": "2.6.0", "tensorrt": "10.3"})
    assert here.differences(here) == []
    said = there.differences(here)
    assert f"processor: Cortex-A78AE there, {here.processor} here" in said
    assert f"torch: 2.6.0 there, {torch.__version__} here" in said
    assert "tensorrt: 10.3 there, none here" in said
    assert any(each.startswith("instructions: none there") for each in said) == bool(here.instructions)


def test_a_library_that_is_not_installed_has_no_version() -> None:
    assert fingerprint(["no-such-distribution"]).libraries == {"no-such-distribution": "none"}


def test_instructions_are_those_of_the_processor() -> None:
    assert not has_instruction("no_such_instruction")
    for name in fingerprint(()).instructions:
        assert has_instruction("no_such_instruction", name)


def test_a_device_is_named_where_one_is_asked_for() -> None:
    assert fingerprint((), "cuda").device
