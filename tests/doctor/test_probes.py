import json

import pytest

from mobile_vla.doctor import probes


def test_what_a_probe_prints_is_not_its_answer(capsys, monkeypatch):
    def chatty(values):
        print("hello from a library")
        return values

    monkeypatch.setitem(probes.PROBES, "torch", chatty)
    assert probes.main(["torch", '{"a": 1}']) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"a": 1}
    assert "hello" in said.err


def test_our_errors_are_said_without_their_kind_and_others_with_it(capsys):
    assert probes.main(["camera", '{"robot": null, "overrides": ["camera.kind=none", "base.kind=ideal"]}']) == 1
    assert capsys.readouterr().err.startswith("there is no kind of camera called 'none'")
    assert probes.main(["camera", "{}"]) == 1
    assert capsys.readouterr().err.startswith("KeyError: ")


@pytest.mark.needs("torch")
def test_torch_is_loaded_and_asked():
    values = probes.torch_wheel({})
    assert values["version"]
    assert values["computes"] in (True, False)
