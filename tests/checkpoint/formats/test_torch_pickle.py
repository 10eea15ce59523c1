import argparse
import collections
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats.pickles import interpret
from mobile_vla.checkpoint.formats.torch_globals import TORCH_DTYPES
from mobile_vla.checkpoint.formats.torch_pickle import read_torch_pickle
from mobile_vla.checkpoint.layout import DTYPE_BYTES
from mobile_vla.core.errors import DamagedCheckpointError, UnsafeCheckpointError

SOURCE = Path("model.pt")
FORMATS = ["zip", "legacy"]
TORCH = {ours: getattr(torch, theirs) for theirs, ours in TORCH_DTYPES.items() if ours}


class Saved:
    """What torch saves, taken apart: its pickle, the bytes of each storage, and what torch itself loads."""

    def __init__(self, value, kind="zip", protocol=2):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=kind == "zip", pickle_protocol=protocol)
        file.seek(0)
        self.loaded = torch.load(file, weights_only=False)
        data = file.getvalue()
        if kind == "zip":
            with zipfile.ZipFile(file) as archive:
                self.pickle = archive.read("archive/data.pkl")
                self.contents = read_torch_pickle(self.pickle, SOURCE)
                self.bytes = {each.key: archive.read(f"archive/data/{each.key}") for each in self.contents.storages}
            assert self.contents.consumed == len(self.pickle)
        else:
            for _ in range(3):
                data = data[interpret(data, SOURCE, {}).consumed_bytes :]
            self.contents = read_torch_pickle(data, SOURCE)
            self.pickle, data = data[: self.contents.consumed], data[self.contents.consumed :]
            keys = interpret(data, SOURCE, {})
            data = io.BytesIO(data[keys.consumed_bytes :])
            self.bytes = {}
            sizes = {each.key: each.size for each in self.contents.storages}
            for key in keys.value:
                data.read(8)
                self.bytes[key] = data.read(sizes[key])
            assert data.read() == b""

    def tensor(self, ref):
        data = self.bytes[ref.storage.key]
        assert len(data) == ref.storage.size
        if not data:
            return torch.empty(ref.shape, dtype=TORCH[ref.dtype])
        flat = torch.frombuffer(bytearray(data), dtype=TORCH[ref.dtype])
        return flat.as_strided(ref.shape, ref.strides, ref.offset)

    def check(self):
        """Every tensor that torch loads is described, in its order, with its bytes; and no other."""
        theirs = list(walk(self.loaded))
        assert [path for path, _ in self.contents.tensors] == [path for path, _ in theirs]
        for (path, ref), (_, loaded) in zip(self.contents.tensors, theirs, strict=True):
            ours = self.tensor(ref)
            assert (ours.dtype, tuple(ours.shape)) == (loaded.dtype, tuple(loaded.shape)), path
            assert bits(ours) == bits(loaded.detach()), path
            assert ref.strides == loaded.stride()
        return self.contents


def bits(value):
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def walk(value, path=()):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield from walk(child, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield from walk(child, (*path, str(index)))


def trained():
    """Weights and optimizer as Lightning nests them, of a net with convolutions, a norm and tied weights."""
    torch.manual_seed(1)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(16, 16), torch.nn.Linear(16, 16))
    net[4].weight = net[3].weight
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net(torch.ones(1, 3, 4, 4)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": net.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "done": False}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3, "betas": (0.9, 0.95), "name": "작은 망", "none": None},
        "best": np.float64(0.25),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_training_checkpoint_is_read_as_torch_reads_it(kind, protocol):
    contents = Saved(trained(), kind, protocol).check()
    assert len(contents.tensors) == 11 + 3 * 7
    assert contents.skipped == ()
    assert contents.scalars["epoch"] == 3
    assert contents.scalars["global_step"] == 1200
    assert contents.scalars["pytorch-lightning_version"] == "2.4.0"
    assert contents.scalars["best"] == 0.25
    assert contents.scalars["hyper_parameters.name"] == "작은 망"
    assert contents.scalars["hyper_parameters.betas.1"] == 0.95
    assert contents.scalars["loops.fit_loop.done"] is False
    assert contents.scalars["optimizer_states.0.param_groups.0.lr"] == 1e-3
    assert not any("_metadata" in each for each in contents.scalars)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_tied_tensors_share_one_storage(kind, protocol):
    contents = Saved(trained(), kind, protocol).contents
    refs = {".".join(path): ref for path, ref in contents.tensors}
    assert refs["state_dict.3.weight"].storage == refs["state_dict.4.weight"].storage
    assert len(contents.storages) == len({each.key for each in contents.storages}) == len(refs) - 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", sorted(TORCH))
def test_every_dtype_of_safetensors(dtype, protocol):
    size = DTYPE_BYTES[dtype]
    pattern = (
        torch.arange(24 * size, dtype=torch.uint8) % 2
        if dtype == "BOOL"
        else torch.arange(24 * size, dtype=torch.uint8)
    )
    value = pattern.view(TORCH[dtype]).reshape(2, 3, 4)
    contents = Saved({"w": value, "turned": value.transpose(0, 2)}, protocol=protocol).check()
    assert [ref.dtype for _, ref in contents.tensors] == [dtype, dtype]
    assert [ref.size for _, ref in contents.tensors] == [24 * size] * 2


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.tensor(3.5),
        lambda: torch.empty(0),
        lambda: torch.empty(3, 0, 2),
        lambda: torch.arange(10.0)[5:5],
        lambda: torch.arange(24.0).reshape(2, 3, 4)[1, :, ::2],
        lambda: torch.arange(6.0).reshape(2, 3).t(),
        lambda: torch.zeros(1, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        lambda: torch.arange(3.0).expand(5, 3),
        lambda: torch.arange(9.0).unfold(0, 3, 1),
        lambda: torch.nn.Parameter(torch.ones(2)),
        lambda: torch.nn.Parameter(torch.ones(2), requires_grad=False),
        lambda: torch.nn.Parameter(torch.arange(5, dtype=torch.bfloat16)),
        lambda: torch.ones(2, requires_grad=True),
        lambda: torch.ones((1,) * 40),
    ],
    ids=range(14),
)
def test_views_and_shapes(make, kind, protocol):
    Saved({"w": make()}, kind, protocol).check()
    Saved([(make(),), {7: make(), "x": None}], kind, protocol).check()


@pytest.mark.parametrize("kind", FORMATS)
def test_two_views_of_one_storage(kind):
    base = torch.arange(20.0)
    contents = Saved({"head": base[:8].reshape(2, 4), "tail": base[8:], "all": base}, kind).check()
    assert [(ref.offset, ref.shape) for _, ref in contents.tensors] == [(0, (2, 4)), (8, (12,)), (0, (20,))]
    assert len(contents.storages) == 1
    assert contents.storages[0].numel == 20


def test_a_tensor_that_is_the_whole_file():
    saved = Saved(torch.arange(3))
    assert [path for path, _ in saved.check().tensors] == [()]


shapes = st.lists(st.integers(0, 4), max_size=4)


@given(
    st.recursive(
        st.tuples(
            shapes,
            st.sampled_from([torch.float32, torch.int64, torch.bfloat16, torch.bool, torch.uint16, torch.float8_e5m2]),
        ),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text("abc_가0", min_size=1) | st.integers(0, 9), inner, max_size=3)
            | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3).map(collections.OrderedDict)
        ),
        max_leaves=6,
    ),
    st.sampled_from([2, 3, 4, 5]),
)
@settings(deadline=None)
def test_any_nesting_of_any_tensors(plan, protocol):
    def built(value):
        if isinstance(value, tuple):
            return torch.zeros(value[0]).to(value[1])
        if isinstance(value, dict):
            return type(value)((key, built(child)) for key, child in value.items())
        return [built(child) for child in value]

    saved = Saved(built(plan), protocol=protocol)
    names = [".".join(path) for path, _ in walk(saved.loaded)]
    if len(set(names)) == len(names):
        saved.check()
        assert saved.contents.skipped == ()
    else:
        assert len(saved.contents.tensors) + len(saved.contents.skipped) == len(names)


class WithNote(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested tensors")
def test_what_is_no_dense_tensor_is_named_and_the_rest_stays():
    odd = {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.sparse_csr_tensor(
            torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False
        ),
        "meta": torch.ones(2, device="meta"),
        "conj": torch.ones(2, dtype=torch.complex64).conj(),
        "wide": torch.ones(2, dtype=torch.complex128),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "array": np.ones(3),
        "set": {torch.ones(2)},
        "storage": torch.ones(2).untyped_storage(),
        "lazy": torch.nn.LazyLinear(2).weight,
    }
    saved = Saved({"first": torch.ones(1), **odd, "last": torch.ones(1)})
    contents = saved.contents
    assert [path for path, _ in contents.tensors] == [("first",), ("last",)]
    assert [each.split()[0].split(".")[0] for each in contents.skipped] == list(odd)
    assert all(" is " in each or " has " in each for each in contents.skipped)
    # Their bytes stay known, so that they can be checked
    assert {each.key: each.size for each in contents.storages} == {key: len(data) for key, data in saved.bytes.items()}


def test_attributes_of_a_tensor_are_found_under_their_names():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.scale = torch.full((1,), 3.0)
    note = torch.zeros(3)
    note.about = {"mean": torch.ones(4)}
    saved = Saved({"w": weight, "note": note})
    assert [path for path, _ in saved.contents.tensors] == [
        ("w",),
        ("w", "scale"),
        ("note",),
        ("note", "about", "mean"),
    ]
    assert bits(saved.tensor(saved.contents.tensors[1][1])) == bits(torch.full((1,), 3.0))


def test_a_tensor_of_a_class_of_its_own_needs_the_users_word():
    file = io.BytesIO()
    torch.save({"w": torch.ones(2).as_subclass(WithNote)}, file)
    with zipfile.ZipFile(file) as archive:
        data = archive.read("archive/data.pkl")
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_torch_pickle(data, SOURCE)
    assert caught.value.culprit == f"{__name__}.WithNote"
    contents = read_torch_pickle(data, SOURCE, [f"{__name__}.WithNote"])
    assert [(path, ref.shape) for path, ref in contents.tensors] == [(("w",), (2,))]
    assert contents.opaque == (f"{__name__}.WithNote",)


def test_a_pickled_module_is_read_by_its_attributes_and_only_when_allowed():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"net": net}, file, _use_new_zipfile_serialization=zipped)
        if zipped:
            with zipfile.ZipFile(file) as archive:
                data = archive.read("archive/data.pkl")
        else:
            data = file.getvalue()
            for _ in range(3):
                data = data[interpret(data, SOURCE, {}).consumed_bytes :]
        with pytest.raises(UnsafeCheckpointError) as caught:
            read_torch_pickle(data, SOURCE)
        assert caught.value.culprit == "torch.nn.modules.container.Sequential"
        contents = read_torch_pickle(data, SOURCE, ["torch.nn.modules.*"])
        names = [".".join(path) for path, _ in contents.tensors]
        assert names == [
            "net._modules.0._parameters.weight",
            "net._modules.0._parameters.bias",
            "net._modules.1._parameters.weight",
            "net._modules.1._parameters.bias",
            "net._modules.1._buffers.running_mean",
            "net._modules.1._buffers.running_var",
            "net._modules.1._buffers.num_batches_tracked",
        ]


def test_odd_containers():
    value = {
        "namespace": argparse.Namespace(lr=0.5, best=torch.ones(1)),
        "default": collections.defaultdict(list, {"w": torch.ones(2)}),
        "deque": collections.deque([torch.ones(3)]),
        ("a", 1): torch.ones(4),
        b"raw": torch.ones(5),
        None: torch.ones(6),
        torch.float32: torch.ones(7),
        "size": torch.Size([8]),
        "dtype": torch.bfloat16,
        "device": torch.device("cuda", 1),
        "version": torch.torch_version.TorchVersion("2.1.0"),
    }
    saved = Saved(value)
    assert [(".".join(path), ref.shape) for path, ref in saved.contents.tensors] == [
        ("namespace.best", (1,)),
        ("default.w", (2,)),
        ("deque.0", (3,)),
        ("(a, 1)", (4,)),
        ("raw", (5,)),
        ("None", (6,)),
        ("torch.float32", (7,)),
    ]
    assert saved.contents.scalars["namespace.lr"] == 0.5
    assert saved.contents.scalars["device"] == "cuda:1"
    assert saved.contents.scalars["version"] == "2.1.0"
    assert saved.contents.opaque == ("argparse.Namespace", "builtins.list")


def test_names_stay_unique():
    value = {"a.b": torch.ones(1), "a": {"b": torch.ones(2)}, 0: torch.ones(3), "0": torch.ones(4)}
    contents = Saved(value).contents
    assert [(".".join(path), ref.shape) for path, ref in contents.tensors] == [("a.b", (1,)), ("0", (3,))]
    assert contents.skipped == ("a.b is the name of a tensor already", "0 is the name of a tensor already")


def test_what_holds_itself_or_is_shared():
    shared = {"w": torch.ones(1)}
    looped = {"one": shared, "two": shared}
    looped["me"] = looped
    contents = Saved(looped).contents
    assert [".".join(path) for path, _ in contents.tensors] == ["one.w", "two.w"]


def test_scalars_are_bounded_and_the_outer_ones_come_first():
    value = {
        "deep": {"in": {str(each): each for each in range(5000)}},
        "many": list(range(10**5)),
        "long": "x" * 10**6,
        "k" * 10**6: 1,
        "half": "\ud800",
        "\x1b[2J": 1,
        "epoch": 7,
    }
    scalars = read_torch_pickle(pickle.dumps(value, 4), SOURCE).scalars
    assert len(scalars) == 1000
    assert next(iter(scalars)) == "epoch"
    assert "deep.in.0" in scalars
    assert not {"many.0", "long", "half", "\x1b[2J"} & set(scalars)


def test_empty_storages_may_differ_in_dtype():
    one, other = torch.empty(0), torch.empty(0, dtype=torch.int64)
    contents = Saved({"a": one, "b": one.view(torch.int32), "c": other}).contents
    assert [ref.dtype for _, ref in contents.tensors] == ["F32", "I32", "I64"]


@pytest.fixture(scope="module")
def sound():
    return [Saved(trained(), kind, protocol).pickle for kind in FORMATS for protocol in (2, 4)]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_gives_one_of_two_errors_or_sound_descriptions(sound, data):
    broken = bytearray(data.draw(st.sampled_from(sound)))
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    check_soundness(bytes(broken))


def check_soundness(data):
    try:
        contents = read_torch_pickle(data, SOURCE)
    except (UnsafeCheckpointError, DamagedCheckpointError):
        return
    assert len({".".join(path) for path, _ in contents.tensors}) == len(contents.tensors)
    for path, ref in contents.tensors:
        assert all(map(str.isprintable, path))
        assert len(ref.shape) == len(ref.strides)
        assert min((ref.offset, *ref.shape, *ref.strides)) >= 0
        last = sum((size - 1) * step for size, step in zip(ref.shape, ref.strides, strict=True))
        if 0 not in ref.shape:
            assert (ref.offset + last + 1) * DTYPE_BYTES[ref.dtype] <= ref.storage.size
        assert ref.storage in contents.storages or not ref.storage.size


def test_cut_pickles_are_damaged(sound):
    for data in sound:
        for end in range(0, len(data), 7):
            with pytest.raises(DamagedCheckpointError):
                read_torch_pickle(data[:end], SOURCE)


def test_the_pickle_of_a_zip_is_read_to_its_end_and_no_further():
    saved = Saved({"w": torch.ones(2)})
    more = saved.pickle + b"and more"
    assert read_torch_pickle(more, SOURCE) == saved.contents
    assert saved.contents.consumed == len(saved.pickle)
