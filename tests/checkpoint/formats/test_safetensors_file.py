import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors.numpy import load_file, save_file

from mobile_vla.checkpoint.formats.safetensors_file import Outgoing, survey, write
from mobile_vla.core import CheckpointError

NAMES = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
ARRAYS = st.sampled_from(list(NAMES)).flatmap(
    lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


def outgoing(arrays):
    return [
        Outgoing(name, NAMES[array.dtype.name], array.shape, lambda array=array: [array.tobytes()])
        for name, array in arrays.items()
    ]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    return {
        "a.weight": rng.normal(size=(8, 16)).astype(np.float32),
        "b": rng.integers(1, 255, 33).astype(np.uint8),
        "말": rng.normal(size=7).astype(np.float16),
        "empty": np.zeros((0, 3), np.float32),
        "n": np.array(5, np.int64),
    }


@pytest.fixture
def written(tmp_path, arrays):
    path = tmp_path / "w.safetensors"
    return path, write(path, outgoing(arrays), {"made": "here"})


def bytes_at(tensor):
    data = tensor.run.file.read_bytes()
    return data[tensor.run.offset + tensor.start :][: tensor.size]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=5))
def test_the_formats_own_library_reads_what_is_written(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("w") / "x.safetensors"
    write(path, outgoing(arrays))
    back = load_file(path)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_every_tensor_starts_at_a_multiple_of_its_element(written):
    for tensor in survey(written[0]).tensors:
        assert tensor.run.offset % max(1, {"F32": 4, "F16": 2, "I64": 8}.get(tensor.dtype, 1)) == 0


def test_a_file_of_ours_carries_its_checksums(written, arrays):
    layout = survey(written[0])
    assert not layout.problems
    assert not layout.unknowable
    assert layout.metadata == {"made": "here"}
    assert all(tensor.run.checksum is not None for tensor in layout.tensors)
    assert {tensor.name: bytes_at(tensor) for tensor in layout.tensors} == {n: a.tobytes() for n, a in arrays.items()}


def test_a_file_of_others_has_none_and_the_layout_says_so(tmp_path, arrays):
    save_file(arrays, tmp_path / "x.safetensors")
    layout = survey(tmp_path / "x.safetensors")
    assert not layout.problems
    assert "no checksums" in layout.unknowable[0]
    assert all(tensor.run.checksum is None for tensor in layout.tensors)
    assert {tensor.name: bytes_at(tensor) for tensor in layout.tensors} == {n: a.tobytes() for n, a in arrays.items()}


def test_every_changed_byte_of_the_header_is_a_problem(written, tmp_path):
    data, known = written[0].read_bytes(), written[1]
    path = tmp_path / "changed.safetensors"
    for place in range(known.header_size):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        layout = survey(path)
        assert layout.problems, place
        for tensor in layout.tensors:
            if tensor.run is not None and tensor.run.checksum is not None:
                right = known.tensors[tensor.name]
                assert (tensor.dtype, tensor.shape, tensor.run.checksum.value) == (
                    right.dtype,
                    right.shape,
                    right.sha256,
                )
        assert survey(path, known).problems, place


@pytest.mark.parametrize("known", [False, True])
def test_cut_at_every_byte_what_is_there_is_found(written, arrays, tmp_path, known):
    data, record = written[0].read_bytes(), written[1]
    path = tmp_path / "cut.safetensors"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        layout = survey(path, record if known else None)
        assert layout.problems
        found = {tensor.name for tensor in layout.tensors if tensor.run is not None and tensor.size}
        if known or size >= record.header_size:
            there = {name for name, each in record.tensors.items() if each.size and each.offset + each.size <= size}
            assert found == there
        assert all(bytes_at(each) == arrays[each.name].tobytes() for each in layout.tensors if each.run is not None)


def test_one_changed_byte_of_a_header_costs_at_most_two_tensors(written, arrays, tmp_path):
    data, known = written[0].read_bytes(), written[1]
    path = tmp_path / "changed.safetensors"
    for place in range(known.header_size):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        right = [
            t for t in survey(path).tensors if t.name in arrays and t.run is not None and t.run.checksum is not None
        ]
        assert len(right) >= len(arrays) - 2, place
        assert all(bytes_at(tensor) == arrays[tensor.name].tobytes() for tensor in right)


@pytest.mark.parametrize("place", [0, 1, 3, 7])
def test_a_damaged_length_costs_nothing(tmp_path, arrays, place):
    path = tmp_path / "x.safetensors"
    save_file(arrays, path)
    data = bytearray(path.read_bytes())
    data[place] ^= 64
    path.write_bytes(data)
    layout = survey(path)
    assert layout.problems
    assert {tensor.name: bytes_at(tensor) for tensor in layout.tensors} == {n: a.tobytes() for n, a in arrays.items()}


def test_with_the_head_lost_the_manifest_places_what_is_left(written, arrays, tmp_path):
    data, record = written[0].read_bytes(), written[1]
    path = tmp_path / "tail.safetensors"
    for cut in (1, 8, 100, record.header_size, record.header_size + 300):
        path.write_bytes(data[cut:])
        right = {t.name for t in survey(path, record).tensors if t.run and bytes_at(t) == arrays[t.name].tobytes()}
        assert right >= {name for name, each in record.tensors.items() if each.offset >= cut}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 900), st.integers(1, 200), st.booleans())
def test_bytes_put_in_or_taken_out_move_the_rest(tmp_path_factory, place, count, put_in):
    rng = np.random.default_rng(1)
    arrays = {f"t{number}": rng.normal(size=24).astype(np.float32) for number in range(6)}
    path = tmp_path_factory.mktemp("m") / "x.safetensors"
    record = write(path, outgoing(arrays))
    data = path.read_bytes()
    place += record.header_size - 100
    changed = data[:place] + os.urandom(count) + data[place:] if put_in else data[:place] + data[place + count :]
    path.write_bytes(changed)
    gone = (place, place if put_in else place + count)
    right = {t.name for t in survey(path, record).tensors if t.run and bytes_at(t) == arrays[t.name].tobytes()}
    untouched = {
        name for name, each in record.tensors.items() if each.offset + each.size <= gone[0] or each.offset >= gone[1]
    }
    if changed != data:
        assert right >= untouched


def test_with_head_and_tail_lost_the_place_is_found_by_trying(written, arrays, tmp_path):
    data, record = written[0].read_bytes(), written[1]
    path = tmp_path / "middle.safetensors"
    path.write_bytes(data[record.header_size + 3 : -12])
    right = {t.name for t in survey(path, record).tensors if t.run and bytes_at(t) == arrays[t.name].tobytes()}
    assert "a.weight" in right


HEADERS = {
    "no object": [1, 2],
    "unknown dtype": {"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}},
    "size does not fit": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    "negative": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
    "huge": {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
    "fraction": {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
    "overlap": {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
    },
    "gap": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}},
    "no place": {"a": {"dtype": "F32", "shape": [1]}},
    "words for numbers": {"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}},
    "metadata": {"__metadata__": {"a": 1}},
    "behind the end": {"a": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies_is_a_problem(tmp_path, header):
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(6))
    assert survey(path).problems


def test_a_name_that_stands_twice_is_a_problem(tmp_path):
    entry = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    text = f'{{"a":{entry},"a":{entry}}}'.encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + b"\1")
    assert "stands twice" in survey(tmp_path / "x").problems[0].what


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("r") / "x"
    path.write_bytes(data)
    assert survey(path).problems or not data


def test_a_tensor_that_gives_other_than_its_size_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="gave 3 bytes where its shape needs 4"):
        write(tmp_path / "x", [Outgoing("a", "F32", (1,), lambda: [b"123"])])
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        survey(tmp_path / "nowhere")
