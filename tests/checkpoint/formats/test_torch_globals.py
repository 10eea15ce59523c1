from pathlib import Path

import pytest

from mobile_vla.checkpoint.formats.torch_globals import StorageRef, TensorRef
from mobile_vla.checkpoint.formats.torch_pickle import read_torch_pickle
from mobile_vla.core.errors import DamagedCheckpointError, UnsafeCheckpointError

from .absurd import ABSURD_TENSORS, DAMAGED, FLOAT_STORAGE, storage, tensor
from .malicious import Raw, called, encode, name, walked, whole

SOURCE = Path("model.pt")


def test_quantised_tensors_are_named():
    function = name("torch._utils", "_rebuild_qtensor")
    scheme = (name("torch", "per_tensor_affine"), 1, 0)
    hooks = called(name("collections", "OrderedDict"))
    data = whole({"q": called(function, storage(name("torch", "QInt8Storage")), 0, (4,), (1,), scheme, False, hooks)})
    contents = read_torch_pickle(data, SOURCE)
    assert contents.skipped == ("q is quantised: its bytes mean nothing without scale and zero point",)
    assert contents.storages == (StorageRef("0", None, 4, "cpu"),)


@pytest.mark.parametrize(("what", "data", "kind", "part"), ABSURD_TENSORS, ids=[each[0] for each in ABSURD_TENSORS])
def test_tensors_that_cannot_be_are_refused(what, data, kind, part):
    with pytest.raises(DamagedCheckpointError if kind == DAMAGED else UnsafeCheckpointError) as caught:
        read_torch_pickle(data, SOURCE)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_the_makers_of_absurd_tensors_make_sound_ones_too():
    # So that the refusals above are for the one thing that is wrong
    ref = TensorRef(StorageRef("0", "F32", 4, "cpu"), "F32", 0, (4,), (1,))
    assert read_torch_pickle(whole({"w": tensor()}), SOURCE).tensors == ((("w",), ref),)
    assert read_torch_pickle(whole([tensor(shape=(2,), strides=(3,))]), SOURCE).tensors[0][1].strides == (3,)
    assert read_torch_pickle(whole({"w": tensor(shape=(2**20,), strides=(0,))}), SOURCE).tensors[0][1].size == 2**22
    assert read_torch_pickle(whole([tensor(), tensor()]), SOURCE).storages == (ref.storage,)


def test_views_of_the_format_before_zip():
    view = Raw(encode(("storage", FLOAT_STORAGE, "7", "cuda:0", 10, ("8", 4, 3))) + b"Q")
    contents = read_torch_pickle(whole({"w": tensor(view, 1, (2,))}), SOURCE)
    assert contents.tensors[0][1] == TensorRef(StorageRef("7", "F32", 10, "cuda:0"), "F32", 5, (2,), (1,))
    with pytest.raises(UnsafeCheckpointError):
        read_torch_pickle(whole({"w": tensor(view, 1, (3,))}), SOURCE)


@pytest.mark.parametrize("function", ["torch._tensor._rebuild_from_type_v2", "torch.tensor._rebuild_from_type"])
def test_older_names_of_the_same(function):
    inner = (storage(), 0, (4,), (1,))
    made = called(
        name(*function.rsplit(".", 1)), name("torch._utils", "_rebuild_tensor"), name("torch", "Tensor"), inner, {}
    )
    assert read_torch_pickle(whole({"w": made}), SOURCE).tensors[0][1].shape == (4,)


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_storages_of_other_devices(module):
    data = whole({"w": tensor(storage(name(module, "FloatStorage"), location="cuda:3"))})
    assert read_torch_pickle(data, SOURCE).storages == (StorageRef("0", "F32", 4, "cuda:3"),)


def test_untyped_storages_of_every_name():
    for module, attribute in [("torch", "_UntypedStorage"), ("torch.storage", "UntypedStorage")]:
        store = storage(name(module, attribute), numel=8)
        function, hooks = name("torch._utils", "_rebuild_tensor_v3"), called(name("collections", "OrderedDict"))
        data = whole({"w": called(function, store, 1, (3,), (1,), False, hooks, name("torch", "uint16"))})
        ref = read_torch_pickle(data, SOURCE).tensors[0][1]
        assert ref == TensorRef(StorageRef("0", None, 8, "cpu"), "U16", 1, (3,), (1,))


def test_tensors_of_devices_without_storages():
    moved = name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor")
    data = whole({"same": called(moved, tensor(), name("torch", "float32"), "xla:0", False)})
    assert [path for path, _ in read_torch_pickle(data, SOURCE).tensors] == [("same",)]
    data = whole({"other": called(moved, tensor(), name("torch", "float16"), "xla:0", False)})
    assert read_torch_pickle(data, SOURCE).skipped == ("other is kept in another dtype than its own, float16",)


def test_walked_names_of_torch_are_no_names_of_torch():
    data = whole(called(walked("torch", "_utils._rebuild_tensor_v2")), 4)
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_torch_pickle(data, SOURCE)
    assert caught.value.culprit == "torch._utils._rebuild_tensor_v2"


@pytest.mark.parametrize(
    ("metadata", "dense"),
    [(None, True), ({}, True), ({"conj": False}, True), ({"conj": False, "neg": True}, False), ({"conj": 1}, False)],
)
def test_views_that_negate_or_conjugate(metadata, dense):
    contents = read_torch_pickle(whole({"w": tensor(None, 0, (4,), (1,), False, metadata)}), SOURCE)
    assert (len(contents.tensors), len(contents.skipped)) == (dense, not dense)
