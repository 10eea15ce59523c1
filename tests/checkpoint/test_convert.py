import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from mobile_vla.checkpoint.convert import convert
from mobile_vla.checkpoint.salvage import salvage
from mobile_vla.checkpoint.verify import State, verify
from mobile_vla.core import CheckpointError, DamagedCheckpointError, UnsafeCheckpointError


@pytest.fixture
def trained():
    """A network, its optimizer after one step, and a Lightning-like checkpoint of both."""
    network = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.BatchNorm1d(40), torch.nn.Linear(40, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 30)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{name}": value for name, value in network.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.25)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [{"base_lrs": [0.001], "last_epoch": 3}],
        "hyper_parameters": {"hidden": 40, "path": "somewhere"},
    }
    return network, checkpoint


@pytest.mark.parametrize("legacy", [False, True])
def test_lightning_gives_its_weights_alone(tmp_path, trained, legacy):
    network, checkpoint = trained
    torch.save(checkpoint, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    done = convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    back = load_file(tmp_path / "x.safetensors")
    assert back.keys() == {f"model.{name}" for name in network.state_dict()}
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(back[f"model.{name}"], value.numpy())
    assert done.key == "state_dict"
    assert set(done.dropped) == {"optimizer_states", "callbacks"}
    assert done.bytes < 0.6 * done.source_bytes
    assert done.proven is not legacy
    assert verify(tmp_path / "x.safetensors").state is State.WHOLE


@pytest.mark.parametrize("key", ["model", "module", "model_state_dict", "policy"])
def test_other_habits_of_nesting_are_known(tmp_path, trained, key):
    network, checkpoint = trained
    torch.save({key: network.state_dict(), "optimizer": checkpoint["optimizer_states"][0]}, tmp_path / "x.pt")
    assert convert(tmp_path / "x.pt", tmp_path / "x.safetensors").key == key
    assert load_file(tmp_path / "x.safetensors").keys() == network.state_dict().keys()


def test_a_plain_state_dict_is_taken_as_it_is(tmp_path, trained):
    network, _ = trained
    torch.save(network.state_dict(), tmp_path / "x.pth")
    done = convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert (done.key, done.dropped, done.tensors) == ("", {}, len(network.state_dict()))
    assert load_file(tmp_path / "x.safetensors").keys() == network.state_dict().keys()


def test_where_it_cannot_be_told_it_asks(tmp_path, trained):
    network, _ = trained
    torch.save({"left": network.state_dict(), "right": network.state_dict()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"left .*right.*--key"):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert convert(tmp_path / "x.pth", tmp_path / "x.safetensors", key="right").tensors == len(network.state_dict())
    with pytest.raises(CheckpointError, match="no tensors under middle"):
        convert(tmp_path / "x.pth", tmp_path / "y.safetensors", key="middle")


def test_bf16_and_views_keep_their_bits(tmp_path):
    values = torch.randn(4, 6).to(torch.bfloat16)
    torch.save({"a": values, "b": values.T}, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    from safetensors.torch import load_file as load_torch

    back = load_torch(tmp_path / "x.safetensors")
    assert torch.equal(back["a"], values)
    assert torch.equal(back["b"], values.T)


def test_nothing_is_overwritten(tmp_path, trained):
    torch.save(trained[0].state_dict(), tmp_path / "x.pth")
    (tmp_path / "x.safetensors").write_text("precious")
    with pytest.raises(CheckpointError, match="exists"):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_text() == "precious"


def test_a_damaged_source_is_refused(tmp_path, trained):
    torch.save(trained[0].state_dict(), tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[:-1])
    with pytest.raises(DamagedCheckpointError):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_hostile_source_runs_nothing(tmp_path, trained):
    torch.save({"state_dict": trained[0].state_dict(), "x": Evil(tmp_path / "ran")}, tmp_path / "x.pth")
    with pytest.raises(UnsafeCheckpointError, match="open"):
        convert(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "x.pth", weights_only=False)["x"].close()
    assert (tmp_path / "ran").exists()


def test_what_a_salvage_left_of_a_nested_one_can_be_converted_too(tmp_path, trained):
    network, checkpoint = trained
    torch.save(checkpoint, tmp_path / "x.ckpt")
    with (tmp_path / "x.ckpt").open("r+b") as file:
        file.truncate((tmp_path / "x.ckpt").stat().st_size - 1)
    salvage(tmp_path / "x.ckpt", tmp_path / "left")
    convert(tmp_path / "left" / "weights.safetensors", tmp_path / "y.safetensors", key="state_dict.model")
    assert load_file(tmp_path / "y.safetensors").keys() == network.state_dict().keys()
