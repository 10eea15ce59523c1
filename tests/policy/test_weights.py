import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mobile_vla.checkpoint import load, save
from mobile_vla.checkpoint.manifest import read_manifest
from mobile_vla.checkpoint.salvage import salvage
from mobile_vla.core import (
    ActionContract,
    CheckpointError,
    ContractMismatchError,
    DamagedCheckpointError,
    Instruction,
    UnsafeCheckpointError,
)
from mobile_vla.policy.compact import CompactNetwork
from mobile_vla.policy.weights import (
    SHIPPED,
    checkpoint_of,
    grouped,
    load_network,
    load_policy,
    read_tensors,
    save_network,
    take,
    template,
    weights_identity,
)


def another(network: CompactNetwork) -> CompactNetwork:
    """Of the same sizes, with other weights."""
    torch.manual_seed(99)
    return CompactNetwork(network.config, network.contract)


def state_of(network: CompactNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def flip_a_byte(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0xFF
    path.write_bytes(data)


def test_a_network_comes_back_to_the_bit(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {"seed": 3})
    loaded = load_network(tmp_path)
    assert loaded.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_loading_draws_nothing_from_the_generator_of_whoever_loads(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {})
    before = torch.get_rng_state()
    load_network(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_contract_is_refused_with_both_sides_named(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {})
    faster = replace(ActionContract(), limits=(1.0, 1.0, 3.0))
    with pytest.raises(ContractMismatchError, match=r"limits.*this robot has \[1.0, 1.0, 3.0\]"):
        load_network(tmp_path, faster)


def test_a_tensor_of_another_shape_is_refused(network: CompactNetwork, tmp_path: Path) -> None:
    network.nothing = torch.nn.Linear(3, 1)
    save_network(tmp_path, network, {})
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(tmp_path)


def test_the_shipped_policy_loads_and_knows_what_it_was_made_from() -> None:
    policy = load_policy(SHIPPED)
    assert policy.contract == ActionContract()
    policy.reset(Instruction("stop at the red cup"))


LOST = ("head.0.weight", "query.bias")


@pytest.fixture
def incomplete(network: CompactNetwork, tmp_path: Path) -> Path:
    """Salvaged without two tensors."""
    whole = checkpoint_of(network, {})
    left = {name: value for name, value in whole.tensors.items() if name not in LOST}
    save(tmp_path / "incomplete", replace(whole, tensors=left, missing=LOST))
    return tmp_path / "incomplete"


def test_an_incomplete_checkpoint_is_refused_with_what_it_lacks_and_what_to_do(incomplete: Path) -> None:
    with pytest.raises(CheckpointError) as refusal:
        load_network(incomplete)
    said = str(refusal.value)
    assert "salvaged without 2 tensors: head.0.weight, query.bias" in said
    assert "--allow-missing head.0.weight --allow-missing query.bias" in said
    assert f"mobile-vla train RUN --init-from {incomplete}" in said
    assert "--allow-unproven" not in said


@pytest.mark.parametrize("allowed", [("head.0.weight",), ("head",), ("head.0.weight", "query.weight")])
def test_each_missing_tensor_needs_to_be_allowed_by_name(incomplete: Path, allowed: tuple[str, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"query\.bias"):
        load_network(incomplete, allow_missing=allowed, allow_unproven=True)


def test_allowed_ones_start_from_the_same_values_each_time(incomplete: Path, network: CompactNetwork) -> None:
    first, again = (load_network(incomplete, allow_missing=LOST).state_dict() for _ in range(2))
    for name, value in network.state_dict().items():
        assert torch.equal(first[name], again[name])
        assert torch.equal(first[name], value) == (name not in LOST), name
    load_policy(incomplete, ActionContract(), LOST).reset(Instruction("stop"))


def test_what_a_salvage_does_not_know_to_be_missing_is_not_forgiven(network: CompactNetwork, tmp_path: Path) -> None:
    whole = checkpoint_of(network, {})
    left = {name: value for name, value in whole.tensors.items() if name not in LOST}
    save(tmp_path, replace(whole, tensors=left, missing=LOST[:1]))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_network(tmp_path, allow_missing=LOST)


def test_unproven_tensors_are_refused_until_they_are_allowed(network: CompactNetwork, tmp_path: Path) -> None:
    save(tmp_path, replace(checkpoint_of(network, {}), unproven=("head.0.weight",)))
    with pytest.raises(CheckpointError, match=r"nothing proves head\.0\.weight.*with --allow-unproven$"):
        load_network(tmp_path, allow_missing=("head.0.weight",))
    load_network(tmp_path, allow_unproven=True)


def test_a_config_gives_the_template_of_its_weights(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {})
    made = template(tmp_path / "config.json")
    assert [name for name, _, _ in made] == list(network.state_dict())
    records = read_manifest(tmp_path).files["weights.safetensors"].tensors
    assert {name: (each.dtype, each.shape) for name, each in (records or {}).items()} == {
        name: (dtype, shape) for name, dtype, shape in made
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"policy": "act"}',
        '{"policy": "compact", "network": 3, "contract": {}}',
        '{"policy": "compact", "network": {"stem": -1}, "contract": CONTRACT}',
        '{"policy": "compact", "network": {"stemm": 4}, "contract": CONTRACT}',
    ],
)
def test_a_config_that_is_none_of_ours_gives_no_template(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content.replace("CONTRACT", json.dumps(ActionContract().to_dict())))
    with pytest.raises((CheckpointError, ContractMismatchError), match=r"config\.json|contract"):
        template(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        template(tmp_path / "none.json")


Writer = Callable[[CompactNetwork, Path], Path]


def as_ours(network: CompactNetwork, folder: Path) -> Path:
    save_network(folder / "ours", network, {})
    return folder / "ours"


def as_its_file(network: CompactNetwork, folder: Path) -> Path:
    return as_ours(network, folder) / "weights.safetensors"


def as_safetensors(network: CompactNetwork, folder: Path) -> Path:
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "a.safetensors")
    return folder / "a.safetensors"


def as_pth(network: CompactNetwork, folder: Path) -> Path:
    torch.save(network.state_dict(), folder / "a.pth")
    return folder / "a.pth"


def as_pth_of_other_strides(network: CompactNetwork, folder: Path) -> Path:
    torch.save(network.to(memory_format=torch.channels_last).state_dict(), folder / "b.pth")
    return folder / "b.pth"


@pytest.mark.parametrize(
    ("write", "proven"),
    [
        (as_ours, True),
        (as_its_file, True),
        (as_safetensors, False),
        (as_pth, True),
        (as_pth_of_other_strides, True),
    ],
)
def test_a_whole_checkpoint_is_taken_to_the_bit_whatever_its_format(
    network: CompactNetwork, tmp_path: Path, write: Writer, proven: bool
) -> None:
    path = write(network, tmp_path)
    fresh = another(network)
    taken = take(fresh, path)
    for name, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    assert (taken.taken, taken.fresh) == (tuple(network.state_dict()), ())
    assert taken.unproven == (() if proven else taken.taken)
    assert taken.identity == weights_identity(path) == read_manifest(as_ours(network, tmp_path)).identity
    assert ("all of them" in str(taken)) == (not proven)


def test_training_state_beside_the_weights_is_no_part_of_them(network: CompactNetwork, tmp_path: Path) -> None:
    whole = checkpoint_of(network, {})
    save(tmp_path, replace(whole, training={"exp_avg.query.bias": whole.tensors["query.bias"]}))
    assert weights_identity(tmp_path) == read_manifest(tmp_path).identity


def test_other_names_shapes_and_kinds_start_fresh_and_are_listed(network: CompactNetwork, tmp_path: Path) -> None:
    state = state_of(network)
    del state["query.weight"]
    state["query.bias"] = torch.zeros(3)
    state["nothing.bias"] = torch.zeros(1, dtype=torch.int64)
    state["another"] = torch.zeros(2)
    torch.save(state, tmp_path / "a.pth")
    fresh = another(network)
    before = state_of(fresh)
    taken = take(fresh, tmp_path / "a.pth")
    assert taken.fresh == ("query.weight", "query.bias", "nothing.bias")
    assert set(taken.taken) | set(taken.fresh) == set(before)
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, before[name] if name in taken.fresh else state[name]), name
    assert "start fresh: query.weight, query.bias, nothing.bias" in str(taken)
    assert json.loads(json.dumps(taken.to_dict()))["fresh"] == list(taken.fresh)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_numbers_of_other_widths_are_converted(network: CompactNetwork, tmp_path: Path, dtype: torch.dtype) -> None:
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in network.state_dict().items()
    }
    for path, write in ((tmp_path / "a.pth", torch.save), (tmp_path / "a.safetensors", save_file)):
        write(state, path)
        fresh = another(network)
        assert take(fresh, path).fresh == ()
        for name, value in fresh.state_dict().items():
            assert torch.equal(value, state[name].to(value.dtype)), name


def test_a_scalar_saved_as_one_element_is_a_scalar(network: CompactNetwork, tmp_path: Path) -> None:
    name = "eye.trunk.0.1.num_batches_tracked"
    torch.save(state_of(network) | {name: torch.tensor([7])}, tmp_path / "a.pth")
    assert take(network, tmp_path / "a.pth").fresh == ()
    assert network.state_dict()[name].item() == 7


def test_all_of_the_shipped_policy_is_taken() -> None:
    assert take(load_network(SHIPPED), SHIPPED).fresh == ()


def test_a_salvaged_one_gives_what_it_has(incomplete: Path, network: CompactNetwork) -> None:
    fresh = another(network)
    taken = take(fresh, incomplete)
    assert set(taken.fresh) == set(LOST)
    assert taken.unproven == ()
    assert torch.equal(fresh.query.weight, network.query.weight)


def test_a_damaged_one_is_refused_and_its_salvage_is_taken(network: CompactNetwork, tmp_path: Path) -> None:
    folder = as_ours(network, tmp_path)
    flip_a_byte(folder / "weights.safetensors", 0.9)
    fresh = another(network)
    before = state_of(fresh)
    with pytest.raises(DamagedCheckpointError, match=r"1 of \d+ tensors.*salvage it first") as refusal:
        take(fresh, folder)
    assert refusal.value.path == folder
    assert all(torch.equal(value, before[name]) for name, value in fresh.state_dict().items())

    salvage(folder, tmp_path / "left")
    taken = take(fresh, tmp_path / "left")
    assert taken.fresh == load(tmp_path / "left").missing
    assert len(taken.fresh) == 1


def test_what_a_salvage_could_not_prove_stays_unproven(network: CompactNetwork, tmp_path: Path) -> None:
    cut = as_safetensors(network, tmp_path)
    cut.write_bytes(cut.read_bytes()[:-100])
    rescue = salvage(cut, tmp_path / "left")
    assert rescue.lost
    taken = take(another(network), tmp_path / "left")
    assert taken.taken
    assert taken.unproven == taken.taken


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_report_of_a_salvage_that_cannot_be_read_is_named(
    network: CompactNetwork, tmp_path: Path, content: str
) -> None:
    folder = as_ours(network, tmp_path)
    (folder / "salvage.json").write_text(content)
    with pytest.raises(DamagedCheckpointError, match=r"salvage\.json is damaged"):
        take(another(network), folder)


def test_where_nothing_fits_it_says_what_both_sides_have(network: CompactNetwork, tmp_path: Path) -> None:
    torch.save({"state": {"model": {"other.weight": torch.ones(3)}}}, tmp_path / "nested.pth")
    with pytest.raises(CheckpointError, match=r"nothing in .*nested\.pth fits.*state\.model\.other.*eye"):
        take(network, tmp_path / "nested.pth")


def test_a_checkpoint_for_another_contract_is_refused(network: CompactNetwork, tmp_path: Path) -> None:
    faster = CompactNetwork(network.config, replace(ActionContract(), limits=(1.0, 1.0, 3.0)))
    folder = as_ours(faster, tmp_path)
    with pytest.raises(ContractMismatchError, match="this training"):
        take(network, folder)


def test_characters_of_another_alphabet_are_not_taken(network: CompactNetwork, tmp_path: Path) -> None:
    whole = checkpoint_of(network, {})
    save(tmp_path, replace(whole, network=dict(whole.network) | {"vocabulary": "another"}))
    assert take(another(network), tmp_path).fresh == ("text.embed.weight",)


def test_no_code_in_a_file_is_run(network: CompactNetwork, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({**state_of(network), "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(UnsafeCheckpointError):
        take(network, tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_refused(network: CompactNetwork, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html><body>Sign in to download</body></html>")
    for path in (tmp_path / "none", tmp_path / "page.pth", tmp_path):
        with pytest.raises(CheckpointError):
            take(network, path)


def test_many_names_are_counted_by_their_first_part() -> None:
    assert grouped(["eye.a", "eye.b", "one"]) == "eye.a, eye.b, one"
    assert grouped([f"eye.{number}" for number in range(9)] + ["query.bias"]) == "eye (9 tensors), query.bias"


def test_a_pattern_allows_many(incomplete: Path) -> None:
    load_network(incomplete, allow_missing=["head.*", "query.*"])
    with pytest.raises(CheckpointError, match=r"query\.bias"):
        load_network(incomplete, allow_missing=["head.*"])


def test_names_that_a_training_program_nested_are_found(network: CompactNetwork, tmp_path: Path) -> None:
    state = state_of(network)
    torch.save(
        {"epoch": 1, "state_dict": {f"model.{name}": value for name, value in state.items()}}, tmp_path / "n.ckpt"
    )
    other = CompactNetwork(network.config, network.contract)
    taken = take(other, tmp_path / "n.ckpt")
    assert (taken.prefix, taken.fresh) == ("state_dict.model.", ())
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    assert "state_dict.model.*" in str(taken)


def test_bfloat16_stays_bfloat16_and_takes_half_the_space(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path / "whole", network, {})
    network.bfloat16()
    save_network(tmp_path / "half", network, {})
    loaded = load_network(tmp_path / "half").state_dict()
    for name, value in network.state_dict().items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    sizes = [sum(value.nbytes for value in load(tmp_path / name).tensors.values()) for name in ("half", "whole")]
    assert 0.5 <= sizes[0] / sizes[1] < 0.55


def test_all_tensors_of_a_file_are_read_with_their_dtypes(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 2).bfloat16(), "b": torch.zeros(0, 4), "c": torch.tensor(7), "d": torch.tensor([True])}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    tensors = read_tensors(tmp_path / "x.pth")
    assert tensors.keys() == {f"state_dict.{name}" for name in state}
    for name, value in state.items():
        back = tensors[f"state_dict.{name}"]
        assert (back.dtype, back.shape) == (value.dtype, value.shape)
        assert torch.equal(back, value)
    torch.save({"z": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match="z as C64, which no network here can use"):
        read_tensors(tmp_path / "y.pth")


def test_a_loaded_network_stands_on_the_memory_it_was_read_into(network: CompactNetwork, tmp_path: Path) -> None:
    save_network(tmp_path, network, {})
    loaded = load_network(tmp_path)
    places = [value.untyped_storage().data_ptr() for value in loaded.state_dict().values()]
    assert len(set(places)) == len(places)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
