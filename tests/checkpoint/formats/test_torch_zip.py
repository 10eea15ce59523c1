import contextlib
import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats import torch_zip
from mobile_vla.checkpoint.layout import Checksum, Format
from mobile_vla.core import CheckpointError, UnsafeCheckpointError

from .zips import Part, entry, write_zip

DTYPES = {
    "F32": torch.float32,
    "F64": torch.float64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I64": torch.int64,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}


ALL = {("a",), ("b",), ("c",), ("d",)}


def state(seed=0):
    make = torch.Generator().manual_seed(seed)
    base = torch.randn(6, 8, generator=make)
    return {
        "base": base,
        "epoch": 3,
        "nested": {"turned": base.t(), "rows": base[2:4], "column": base[:, 3]},
        "many": [torch.randn(5, generator=make).to(dtype) for dtype in DTYPES.values()],
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "zeros": torch.zeros(40),
        "rate": 0.25,
    }


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "model.pt"
    return saved(path, state())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Few bytes, so that every one of them can be damaged."""
    make = torch.Generator().manual_seed(1)
    tensors = {
        "a": torch.randn(7, generator=make),
        "b": torch.randn(3, 2, generator=make),
        "c": torch.arange(5),
        "d": torch.ones(0),
    }
    path = tmp_path_factory.mktemp("small") / "model.pt"
    return saved(path, tensors), tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "model.pt"


def survey(place, data):
    place.write_bytes(data)
    return torch_zip.survey(place)


def run_bytes(run):
    with run.file.open("rb") as file:
        file.seek(run.offset)
        return file.read(run.size)


def fits(run):
    """Its bytes are there and hash to what the layout says."""
    data = run_bytes(run)
    return len(data) == run.size and run.checksum == Checksum("crc32", f"{zlib.crc32(data):08x}")


def tensor_of(tensor):
    data = run_bytes(tensor.run)
    if not tensor.size:
        return torch.empty(tensor.shape, dtype=DTYPES[tensor.dtype])
    flat = torch.frombuffer(bytearray(data[tensor.start :]), dtype=torch.uint8)
    dtype = DTYPES[tensor.dtype]
    flat = flat[: flat.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
    if tensor.strides is None:
        return flat[: tensor.size // dtype.itemsize].reshape(tensor.shape)
    return flat.as_strided(tensor.shape, tensor.strides)


def same(first, second):
    """Bit for bit."""
    return first.dtype == second.dtype and first.shape == second.shape and raw(first) == raw(second)


def raw(tensor):
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


def leaves(value, path=()):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, str(key)))
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield from leaves(inner, (*path, str(key)))


def proven(layout):
    """What a checksum proves, by name."""
    return {tensor.path: tensor_of(tensor) for tensor in layout.tensors if tensor.run is not None and fits(tensor.run)}


def is_clean(layout):
    return not layout.problems and all(run.checksum is not None and fits(run) for run in layout.runs)


def check_nothing_wrong(layout, truth):
    for path, found in proven(layout).items():
        assert same(found, truth[path]), path


# whole files


def test_a_whole_file_holds_what_torch_saved(place, whole):
    layout = survey(place, whole)
    truth = dict(leaves(state()))
    assert layout.format is Format.TORCH_ZIP
    assert is_clean(layout)
    assert layout.unknowable == ()
    assert {tensor.path for tensor in layout.tensors} == set(truth)
    for tensor in layout.tensors:
        assert same(tensor_of(tensor), truth[tensor.path]), tensor.name
    assert dict(layout.metadata) == {"epoch": 3, "rate": 0.25}


def test_runs_account_for_every_record(place, whole):
    layout = survey(place, whole)
    with zipfile.ZipFile(place) as peer:
        assert {(run.label, run.size, run.checksum) for run in layout.runs} == {
            (info.filename, info.file_size, Checksum("crc32", f"{info.CRC:08x}")) for info in peer.infolist()
        }


def test_the_test_writer_writes_as_torch_does(place, whole, tmp_path):
    with zipfile.ZipFile(io.BytesIO(whole)) as peer:
        write_zip(tmp_path / "own", [Part(name, peer.read(name)) for name in peer.namelist()])
    assert (tmp_path / "own").read_bytes() == whole


def older(data, tmp_path):
    """As torch 1.6 wrote: without the records that came later."""
    with zipfile.ZipFile(io.BytesIO(data)) as peer:
        names = [name for name in peer.namelist() if "/." not in name and not name.endswith("byteorder")]
        write_zip(tmp_path / "older", [Part(name, peer.read(name)) for name in names])
    return (tmp_path / "older").read_bytes()


def packed_anew(data, **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as peer, zipfile.ZipFile(stream, "w", **options) as target:
        for name in peer.namelist():
            target.writestr(name, peer.read(name))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["older", "packed anew", "as a stream", "other alignment", "with a folder entry"])
def test_legal_variations_are_whole(place, tmp_path, whole, kind):
    if kind == "older":
        data = older(whole, tmp_path)
    elif kind == "packed anew":
        data = packed_anew(whole)
    elif kind == "as a stream":

        class Unseekable(io.BytesIO):
            def seekable(self):
                return False

            def tell(self):
                raise OSError

            def seek(self, *_):
                raise OSError

        stream = Unseekable()
        with zipfile.ZipFile(io.BytesIO(whole)) as peer, zipfile.ZipFile(stream, "w") as target:
            for name in peer.namelist():
                target.writestr(name, peer.read(name))
        data = stream.getvalue()
    elif kind == "other alignment":
        from torch.utils.serialization import config

        with config.patch("save.storage_alignment", 4096):
            data = saved(place, state())
    else:
        stream = io.BytesIO(packed_anew(whole))
        with zipfile.ZipFile(stream, "a") as target:
            target.writestr(zipfile.ZipInfo("model/"), b"")
        data = stream.getvalue()
    layout = survey(place, data)
    truth = dict(leaves(state()))
    assert is_clean(layout), layout.problems
    assert {path for path, value in proven(layout).items() if same(value, truth[path])} == set(truth)


def test_a_file_saved_without_checksums_says_so(place):
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(place, state())
    finally:
        torch.serialization.set_crc32_options(True)
    layout = survey(place, data)
    assert layout.problems == ()
    assert all(run.checksum is None for run in layout.runs if run.size)
    assert any("without checksums" in sentence for sentence in layout.unknowable)
    truth = dict(leaves(state()))
    assert all(same(tensor_of(tensor), truth[tensor.path]) for tensor in layout.tensors)


def test_other_zip_files_are_refused(place):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("word/document.xml", b"<xml/>")
    with pytest.raises(CheckpointError, match="none of torch"):
        survey(place, stream.getvalue())
    with pytest.raises(CheckpointError, match="nothing of one"):
        survey(place, bytes(range(256)) * 9)


def test_torchscript_is_refused_by_name(place):
    write_zip(
        place, [Part("m/data.pkl", b"\x80\x02}."), Part("m/code/m.py", b"x"), Part("m/constants.pkl", b"\x80\x02).")]
    )
    with pytest.raises(CheckpointError, match="TorchScript"):
        torch_zip.survey(place)


def test_big_endian_tensors_are_not_handed_out(place, small):
    with zipfile.ZipFile(io.BytesIO(small[0])) as peer:
        parts = [Part(name, b"big" if name.endswith("byteorder") else peer.read(name)) for name in peer.namelist()]
    write_zip(place, parts)
    layout = torch_zip.survey(place)
    assert [tensor.run for tensor in layout.tensors if tensor.size] == [None] * 3
    assert any("big-endian" in problem.what for problem in layout.problems)


def test_a_hostile_pickle_is_not_opened(place):
    write_zip(place, [Part("m/data.pkl", b"cposix\nsystem\n(S'true'\ntR."), Part("m/version", b"3\n")])
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system"):
        torch_zip.survey(place)


# any byte


@pytest.mark.parametrize("mask", ["one bit", 0xFF])
def test_every_changed_byte_is_found_and_costs_no_other_tensor(place, small, mask):
    data, tensors = small
    truth = {(name,): tensor for name, tensor in tensors.items()}
    clean = survey(place, data)
    pickle = next(run for run in clean.runs if run.label.endswith("data.pkl"))
    spans = {tensor.path: range(tensor.run.offset, tensor.run.offset + tensor.run.size) for tensor in clean.tensors}
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8 if mask == "one bit" else mask
        layout = survey(place, bytes(changed))
        assert not is_clean(layout), at
        check_nothing_wrong(layout, truth)
        if at in range(pickle.offset, pickle.offset + pickle.size):
            assert layout.tensors == ()
            hurt = {run.label for run in layout.runs if "/data/" in run.label and not fits(run)}
            assert hurt == set()
        else:
            assert set(proven(layout)) == {path for path, span in spans.items() if at not in span}, at


def test_no_changed_bit_of_a_header_leads_to_another_record(place):
    """All of one size, so that a header with a wrong length can end where another record's data begin."""
    make = torch.Generator().manual_seed(4)
    tensors = {f"layer{number}": torch.randn(16, generator=make) for number in range(6)}
    data = saved(place, tensors)
    truth = {(name,): tensor for name, tensor in tensors.items()}
    headers = [data.index(f"model/data/{number}".encode()) - 30 for number in range(6)]
    entries = [data.rindex(f"model/data/{number}".encode()) - 46 for number in range(6)]
    places = [at for start in headers for at in range(start, start + 46)]
    places += [at for start in entries for at in range(start, start + 58)]
    for at in places:
        for bit in range(0, 8, 1 if at in range(*sorted((headers[1], headers[2]))) else 3):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            layout = survey(place, bytes(changed))
            check_nothing_wrong(layout, truth)
            assert set(proven(layout)) == set(truth), (at, bit)


def test_every_changed_byte_of_an_older_file_is_found(place, small, tmp_path):
    data = older(small[0], tmp_path)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x21
        assert not is_clean(survey(place, bytes(changed))), at


# cut files


def ends_of(data, place):
    """Tensor path to the byte where its record is complete with its descriptor."""
    layout = survey(place, data)
    assert is_clean(layout)
    return {tensor.path: tensor.run.offset + tensor.run.size + 16 for tensor in layout.tensors}


def test_cut_anywhere_all_complete_records_are_there_with_their_names(place, small):
    data, tensors = small
    truth = {(name,): tensor for name, tensor in tensors.items()}
    ends = ends_of(data, place)
    pickle = next(run for run in survey(place, data).runs if run.label.endswith("data.pkl"))
    for stop in range(1, len(data)):
        place.write_bytes(data[:stop])
        if stop < 2:
            continue
        layout = torch_zip.survey(place)
        assert layout.problems, stop
        check_nothing_wrong(layout, truth)
        if stop < pickle.offset + pickle.size + 16:
            assert layout.tensors == ()
            continue
        assert {tensor.path for tensor in layout.tensors} == set(truth)
        assert set(proven(layout)) - {("d",)} == {path for path, end in ends.items() if end <= stop} - {("d",)}, stop
        for tensor in layout.tensors:
            if tensor.run is not None and tensor.run.checksum is None:
                # all data is there, the checksum behind it is not
                assert same(tensor_of(tensor), truth[tensor.path])


def test_half_written_with_zeros_behind_nothing_wrong_is_proven(place, small):
    data, tensors = small
    truth = {(name,): tensor for name, tensor in tensors.items()}
    ends = ends_of(data, place)
    for stop in range(400, len(data), 7):
        zeroed = data[:stop] + bytes(len(data) - stop)
        if zeroed == data:
            break
        layout = survey(place, zeroed)
        check_nothing_wrong(layout, truth)
        assert layout.problems
        assert set(proven(layout)) >= {path for path, end in ends.items() if end <= stop}, stop


def test_with_the_head_lost_every_record_left_is_proven_by_its_label(place, small):
    data, _ = small
    clean = survey(place, data)
    for start in range(1, data.rindex(b"PK") + 1):
        layout = survey(place, data[start:])
        assert layout.problems, start
        if start > 64:
            assert layout.tensors == ()
        left = {(run.label, run.checksum) for run in clean.runs if run.offset >= start and run.size}
        assert {(run.label, run.checksum) for run in layout.runs if run.size and fits(run)} == left, start


def test_with_head_and_tail_lost_records_between_are_proven(place, small):
    data, _ = small
    clean = survey(place, data)
    stop = data.rindex(b"PK\x07\x08", 0, data.index(b"/version"))
    start = data.index(b"model/byteorder")
    layout = survey(place, data[start:stop])
    left = {
        run.checksum for run in clean.runs if run.offset >= start and run.offset + run.size + 16 <= stop and run.size
    }
    assert {run.checksum for run in layout.runs if run.size and fits(run)} == left
    assert len(left) == 3


# stretches


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["zeroed", "noise", "inserted", "removed", "moved"]))
def test_whatever_happens_to_a_stretch_nothing_wrong_is_proven_and_the_rest_is_there(place, whole, seed, kind):
    rng = random.Random(seed)
    size = rng.choice([1, 4, 16, 64, 200, 512, 1500])
    start = rng.randrange(len(whole))
    stop = min(len(whole), start + size)
    truth = dict(leaves(state()))
    clean = survey(place, whole)
    if kind == "zeroed":
        data = whole[:start] + bytes(stop - start) + whole[stop:]
    elif kind == "noise":
        data = whole[:start] + rng.randbytes(stop - start) + whole[stop:]
    elif kind == "inserted":
        data, stop = whole[:start] + rng.randbytes(size) + whole[start:], start
    elif kind == "removed":
        data = whole[:start] + whole[stop:]
    else:
        other = rng.randrange(len(whole) - (stop - start) + 1)
        data = whole[:start] + whole[other : other + stop - start] + whole[stop:]
    if data == whole:
        return
    layout = survey(place, data)
    assert not is_clean(layout)
    check_nothing_wrong(layout, truth)
    pickle = next(run for run in clean.runs if run.label.endswith("data.pkl"))
    if pickle.offset + pickle.size <= start or stop <= pickle.offset - 64:
        # names are known; what the stretch left alone, with its descriptor and header, is recovered
        safe = {
            tensor.path
            for tensor in clean.tensors
            if tensor.run.offset + tensor.run.size + 16 <= start or stop <= tensor.run.offset - 128
        }
        assert safe <= set(proven(layout))


def test_a_lost_header_is_made_up_for_by_the_directory_or_by_neighbours(place, small):
    data, _ = small
    at = data.index(b"model/data/1") - 30
    wiped = data[:at] + bytes(60) + data[at + 60 :]
    assert set(proven(survey(place, wiped))) == ALL
    cut = wiped[: wiped.index(b"PK\x01\x02")]
    layout = survey(place, cut)
    assert set(proven(layout)) == ALL
    assert "place" in next(tensor.note for tensor in layout.tensors if tensor.name == "b")


def test_without_any_checksum_left_a_tensor_is_placed_and_not_proven(place, small):
    data, tensors = small
    header = data.index(b"model/data/1") - 30
    run = next(tensor.run for tensor in survey(place, data).tensors if tensor.name == "b")
    end = run.offset + run.size
    wiped = bytearray(data[: data.index(b"PK\x01\x02")])
    wiped[header : header + 60] = bytes(60)
    wiped[end : end + 16] = bytes(16)
    layout = survey(place, bytes(wiped))
    found = next(tensor for tensor in layout.tensors if tensor.name == "b")
    assert found.run.checksum is None
    assert same(tensor_of(found), tensors["b"])
    assert "checksum is lost" in found.note


def test_a_name_changed_in_a_cut_file_is_not_believed(place):
    """All records of one size, so that nothing but their order tells them apart."""
    make = torch.Generator().manual_seed(2)
    tensors = {f"layer{number}": torch.randn(16, generator=make) for number in range(8)}
    data = saved(place, tensors)
    data = data[: data.index(b"model/data/7")]
    at = data.index(b"model/data/3") + len("model/data/")
    layout = survey(place, data[:at] + b"7" + data[at + 1 :])
    truth = {(name,): tensor for name, tensor in tensors.items()}
    check_nothing_wrong(layout, truth)
    assert set(proven(layout)) == {(f"layer{number}",) for number in (0, 1, 2, 4, 5, 6)}
    assert [run.label for run in layout.runs if fits(run)].count("model/data/?") == 1


def test_a_record_written_over_another_is_not_taken_for_it(place):
    """Data and descriptor of one record at the place of another of the same size: only the directory can tell."""
    make = torch.Generator().manual_seed(3)
    tensors = {f"layer{number}": torch.randn(16, generator=make) for number in range(3)}
    data = bytearray(saved(place, tensors))
    runs = {run.label: run for run in survey(place, bytes(data)).runs}
    source, target = runs["model/data/0"], runs["model/data/1"]
    data[target.offset : target.offset + 80] = data[source.offset : source.offset + 80]
    layout = survey(place, bytes(data))
    assert set(proven(layout)) == {("layer0",), ("layer2",)}
    assert any("different checksums" in problem.what for problem in layout.problems)


def test_one_wrong_byte_in_a_directory_checksum_costs_nothing(place, small):
    data, _ = small
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    at = data.index(b"model/data/0", at) - 30
    changed = bytearray(data)
    changed[at + 2] ^= 0x5A
    assert set(proven(survey(place, bytes(changed)))) == ALL


@pytest.mark.parametrize("garbage", [1, 300, 70_000])
def test_bytes_before_and_behind_cost_nothing(place, small, garbage):
    data, _ = small
    noise = random.Random(garbage).randbytes(garbage)
    for changed in (noise + data, data + noise, data + data):
        layout = survey(place, changed)
        assert layout.problems
        assert set(proven(layout)) == ALL


# a torch file within a torch file


@pytest.fixture
def nested(place, small):
    data, _ = small
    inner = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    make = torch.Generator().manual_seed(9)
    outer = {"a": torch.randn(7, generator=make), "inner": inner, "b": torch.randn(3, 2, generator=make)}
    return saved(place, outer), {(name,): tensor for name, tensor in outer.items()}


def test_a_file_within_a_tensor_is_a_tensor(place, nested):
    data, truth = nested
    layout = survey(place, data)
    assert is_clean(layout)
    assert all(same(value, truth[path]) for path, value in proven(layout).items())
    assert len(layout.tensors) == 3


def test_a_file_within_a_tensor_never_speaks_for_the_outer_one(place, nested):
    """Its records have the same names as the outer ones, and its directory ends up last in a file that is cut."""
    data, truth = nested
    for stop in range(700, len(data), 11):
        layout = survey(place, data[:stop])
        check_nothing_wrong(layout, truth)
    inner_end = data.index(b"PK\x05\x06") + 22
    layout = survey(place, data[:inner_end])
    assert {tensor.path for tensor in layout.tensors} == set(truth)
    assert set(proven(layout)) == {("a",)}


# beyond 4 GiB


ZEROS = 2**32 + 4096
ZEROS_CRC = 0xB875D37F


def big_file(path):
    """A tensor of 4 GiB and a bit, all zeros, as a hole; its checksum as torch wrote it, not worked out anew."""
    stream = io.BytesIO()
    small = torch.zeros(70000, dtype=torch.uint8)
    torch.save({"small": torch.arange(5.0), "big": small, "after": torch.arange(7), "empty": torch.ones(0)}, stream)
    with zipfile.ZipFile(stream) as peer:
        pickle = peer.read("archive/data.pkl")
    # 70000 as BININT becomes a LONG1 of five bytes
    pickle = pickle.replace(b"J" + struct.pack("<i", 70000), b"\x8a\x05" + ZEROS.to_bytes(5, "little"))
    parts = [
        Part("model/data.pkl", pickle),
        Part("model/byteorder", b"little"),
        Part("model/data/0", torch.arange(5.0).numpy().tobytes()),
        Part("model/data/1", b"", ZEROS, ZEROS_CRC),
        Part("model/data/2", torch.arange(7).numpy().tobytes()),
        Part("model/data/3"),
        Part("model/version", b"3\n"),
    ]
    return write_zip(path, parts)


def test_entries_beyond_4_gib_are_found_without_reading_them(place):
    written = big_file(place)
    try:
        layout = torch_zip.survey(place)
        assert layout.problems == ()
        runs = {tensor.name: tensor.run for tensor in layout.tensors}
        assert runs["big"].size == ZEROS
        assert runs["big"].checksum == Checksum("crc32", f"{ZEROS_CRC:08x}")
        assert runs["after"].offset == written.data["model/data/2"] > 2**32
        assert same(tensor_of(layout.tensors[2]), torch.arange(7))
        # the same without its directory: sizes from the pickle, descriptors with 64-bit sizes
        os.truncate(place, written.directory)
        layout = torch_zip.survey(place)
        assert [tensor.run for tensor in layout.tensors] == list(runs.values())
    finally:
        place.unlink()


def test_memory_stays_bounded_when_all_must_be_scanned(place):
    """Neither head nor tail: a stretch of 600 MB that nothing accounts for."""
    with place.open("wb") as file:
        file.write(b"PK\x03\x04" + bytes(6))
        file.truncate(600 * 2**20)
        file.seek(0, os.SEEK_END)
        file.write(entry(Part("model/data/0", bytes(8)), 0, 0))
    tracemalloc.start()
    try:
        layout = torch_zip.survey(place)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        place.unlink()
    assert layout.problems
    assert peak < 80 * 2**20


# anything


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=600),
    head=st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"PK\x01\x02", b"PK\x06\x06"]),
)
def test_no_bytes_make_it_fail_otherwise_than_by_its_own_errors(place, data, head):
    with contextlib.suppress(CheckpointError):
        assert survey(place, head + data).format is Format.TORCH_ZIP
