import json
import os
import shlex

import numpy as np
import pytest
import torch

from mobile_vla.checkpoint import Checkpoint, load, save
from mobile_vla.cli.main import main
from mobile_vla.core import ActionContract

WEIGHTS = {"a": np.arange(300, dtype=np.float32), "b": np.ones((3, 4), np.float32)}


@pytest.fixture
def torch_file(tmp_path):
    torch.save({name: torch.from_numpy(array.copy()) for name, array in WEIGHTS.items()}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


@pytest.fixture
def ours(tmp_path):
    save(tmp_path / "run" / "final", Checkpoint("compact", {}, ActionContract(), {}, dict(WEIGHTS), step=9))
    return tmp_path / "run" / "final"


def run(capsys, *arguments):
    code = main(["checkpoint", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_the_exit_code_tells_whole_damaged_unproven_and_wrong_use_apart(capsys, tmp_path, torch_file, ours):
    legacy = tmp_path / "old.pth"
    torch.save({"a": torch.ones(3)}, legacy, _use_new_zipfile_serialization=False)
    assert run(capsys, "verify", ours)[0] == 0
    assert run(capsys, "verify", torch_file)[0] == 0
    assert run(capsys, "verify", legacy)[0] == 3
    os.truncate(torch_file, 1500)
    assert run(capsys, "verify", torch_file)[0] == 1
    assert run(capsys, "verify", tmp_path / "nowhere")[0] == 2


def test_verify_names_what_is_damaged_and_says_what_to_do(capsys, torch_file):
    place = torch_file.read_bytes().index(WEIGHTS["a"].tobytes())
    with torch_file.open("r+b") as file:
        os.pwrite(file.fileno(), b"?", place + 8)
    code, out, _ = run(capsys, "verify", torch_file)
    assert code == 1
    assert "damaged: a F32 [300]: its CRC-32 is" in out
    assert "1 whole, 1 damaged" in out
    assert f"mobile-vla checkpoint salvage {torch_file} --out" in out
    code, out, _ = run(capsys, "verify", torch_file, "--json")
    states = {each["name"]: each["state"] for each in json.loads(out)["tensors"]}
    assert (code, states) == (1, {"a": "damaged", "b": "whole"})


def test_salvage_end_to_end(capsys, tmp_path, torch_file):
    original = torch_file.read_bytes()
    os.truncate(torch_file, original.index(WEIGHTS["b"].tobytes()))
    code, out, err = run(capsys, "salvage", torch_file, "--out", tmp_path / "out", "--backup", tmp_path / "safe")
    assert code == 1
    assert "recovered 1 of 2 tensors" in out
    assert "missing: b" in out
    assert "--init-from" in out
    assert "backup:" in err
    assert (tmp_path / "safe" / "x.pth.backup").read_bytes() == torch_file.read_bytes()
    code, _, err = run(capsys, "salvage", torch_file, "--out", tmp_path / "out")
    assert code == 2
    assert "not empty" in err
    assert "--backup" in err


def test_salvage_that_recovers_all_is_a_success(capsys, tmp_path, torch_file):
    os.truncate(torch_file, torch_file.stat().st_size - 1)
    code, out, _ = run(capsys, "salvage", torch_file, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(out)["missing"] == []


def test_convert_says_how_much_smaller_it_became(capsys, tmp_path):
    state = {"state_dict": {"a": torch.zeros(1000)}, "optimizer_states": [{"m": torch.zeros(3000)}]}
    torch.save(state, tmp_path / "x.ckpt")
    code, out, _ = run(capsys, "convert", tmp_path / "x.ckpt", "--to", "safetensors")
    assert code == 0
    assert "% smaller" in out
    assert "left out: optimizer_states, 12.0 kB" in out
    assert (tmp_path / "x.safetensors").exists()


def test_find_lists_and_picks(capsys, tmp_path, torch_file, ours):
    code, out, _ = run(capsys, "find", tmp_path, "--json")
    values = json.loads(out)
    assert (code, values["best"]) == (0, str(ours))
    assert {each["path"] for each in values["found"]} == {str(ours), str(torch_file)}
    code, out, _ = run(capsys, "find", tmp_path)
    assert f"best whole one for compact: {ours}" in out.replace("\n", "")
    assert run(capsys, "find", tmp_path, "--for", "another")[0] == 1


def test_a_damaged_one_comes_with_the_way_out(capsys, tmp_path, monkeypatch, ours):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "run" / "see", Checkpoint("compact", {}, ActionContract(), {}, dict(WEIGHTS), step=3))
    weights = ours / "weights.safetensors"
    os.truncate(weights, weights.stat().st_size - 5)
    assert main(["drive", "--policy", str(ours), "--say", "go to the red cup"]) == 2
    err = capsys.readouterr().err
    assert "is damaged: weights.safetensors has" in err
    assert str(tmp_path / "run" / "see") in err
    assert f"mobile-vla checkpoint salvage {shlex.quote(str(ours))} --out" in err
    assert "mobile-vla train" in err


def test_hostile_files_are_named_and_not_opened(capsys, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"a": Evil()}, tmp_path / "x.pth")
    for verb in (["verify"], ["salvage", "--out", tmp_path / "out"], ["convert"]):
        code, _, err = run(capsys, verb[0], tmp_path / "x.pth", *verb[1:])
        assert code == 2
        assert "system" in err
    assert not (tmp_path / "ran").exists()


def test_pull_copies_and_judges(capsys, tmp_path, ours):
    code, out, _ = run(capsys, "pull", ours, tmp_path / "copy")
    assert code == 0
    assert "equal to its source" in out
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == (ours / "manifest.json").read_bytes()


@pytest.fixture
def forerunner(tmp_path):
    from transformers import Kosmos2Config, Kosmos2Model

    from mobile_vla.policy.encoders.sources import describe

    spec = describe("tiny", "kosmos")
    torch.manual_seed(1)
    kosmos = Kosmos2Model(Kosmos2Config.from_dict(spec.config))
    state = {f"model.backbone.{name}": value for name, value in kosmos.state_dict().items()}
    rnn = torch.nn.LSTM(32, 8, 2, batch_first=True)
    state |= {f"model.act_head.rnn.{name}": value for name, value in rnn.state_dict().items()}
    state["model.action_token"] = torch.zeros(32)
    for place, (inputs, outputs) in enumerate([(8, 12), (12, 6)]):
        state[f"model.act_head.velocities.mlp.{2 * place}.weight"] = torch.randn(outputs, inputs)
        state[f"model.act_head.velocities.mlp.{2 * place}.bias"] = torch.randn(outputs)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


ASKED = ("--axes", "linear_x,linear_y", "--limits", "1.15,1.15", "--rate-hz", "6", "--frame-rate-hz", "3")


def test_import_makes_a_policy_and_says_what_became_of_each_tensor(capsys, tmp_path, forerunner):
    named = ("--horizon", 3, "--layout", "forerunner", "--kosmos", "tiny", *ASKED)
    code, out, _ = run(capsys, "import", forerunner, "--out", tmp_path / "p", *named)
    assert code == 0
    for said in ("tensors of", "angular_z: always 0", "start without effect", f"--init-from {tmp_path / 'p'}"):
        assert said in out
    assert run(capsys, "verify", tmp_path / "p")[0] == 0
    code, out, _ = run(
        capsys, "import", forerunner, "--out", tmp_path / "q", "--horizon", 3, "--bf16", "--json", *named
    )
    values = json.loads(out)
    assert (code, values["contract"]["limits"][:2], values["contract"]["horizon"]) == (0, [1.15, 1.15], 3)
    assert values["matched"]["act_head.velocities.mlp.2.bias"] == "head.decoder.out.bias"
    sizes = [(tmp_path / name / "weights.safetensors").stat().st_size for name in ("p", "q")]
    assert sizes[1] < 0.75 * sizes[0]
    origin = load(tmp_path / "q").origin["imported"]
    assert (origin["path"], len(origin["sha256"])) == (str(forerunner), 64)
    assert run(capsys, "import", forerunner, "--out", tmp_path / "p", *named)[0] == 2


def test_import_takes_no_contract_that_the_checkpoint_denies(capsys, tmp_path, forerunner):
    named = ("--layout", "forerunner", "--kosmos", "tiny", *ASKED)
    code, _, err = run(capsys, "import", forerunner, "--out", tmp_path / "p", "--horizon", 4, *named)
    assert code == 2
    assert "gives 6 numbers, and horizon times axes is 8" in err
    assert not (tmp_path / "p").exists()
    with pytest.raises(SystemExit):
        run(capsys, "import", forerunner, "--out", tmp_path / "p", "--layout", "forerunner", "--horizon", 3)
