import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as safetensors_bytes

from mobile_vla.checkpoint.formats.kinds import Kind, identify, unfinished
from mobile_vla.checkpoint.layout import Format
from mobile_vla.core import CheckpointError

RNG = np.random.default_rng(3)
STATE = {f"layer.{number}.weight": torch.from_numpy(RNG.normal(size=(40, 50))) for number in range(6)}
NO_MORE_THAN_A_FEW_SECONDS = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def torch_zip(state=STATE):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def torch_legacy(state=STATE):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def safetensors(state=STATE):
    return safetensors_bytes({name: value.numpy() for name, value in state.items()}, {"format": "pt"})


def zipped(entries, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(entries):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def script():
    file = io.BytesIO()
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), file)
    return file.getvalue()


def numpy_file():
    file = io.BytesIO()
    np.save(file, np.arange(5))
    return file.getvalue()


def rezipped(data):
    """As a person leaves it who unpacks a torch file and packs it again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({entry.filename: archive.read(entry) for entry in archive.infolist()[::-1]})


def inner_pickle(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read("archive/data.pkl")


ZIP, LEGACY, SAFE = torch_zip(), torch_legacy(), safetensors()


@pytest.fixture
def kind_of(tmp_path):
    def look(data, name="model.pth"):
        path = tmp_path / name
        path.write_bytes(data)
        return identify(path)

    return look


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (ZIP, Format.TORCH_ZIP),
        (rezipped(ZIP), Format.TORCH_ZIP),
        (torch_zip({}), Format.TORCH_ZIP),
        (LEGACY, Format.TORCH_LEGACY),
        (torch_legacy({}), Format.TORCH_LEGACY),
        (SAFE, Format.SAFETENSORS),
        (safetensors({}), Format.SAFETENSORS),
        (safetensors_bytes({}), Format.SAFETENSORS),
    ],
)
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "notes.txt"])
def test_a_checkpoint_is_known_by_its_content_whatever_its_name(kind_of, data, format, name):
    assert kind_of(data, name).format == format
    assert kind_of(data, name).advice == ""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_the_older_torch_format_is_known(kind_of, protocol):
    file = io.BytesIO()
    torch.save(STATE, file, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    assert kind_of(file.getvalue()).format == Format.TORCH_LEGACY


@pytest.mark.parametrize("lost", [1, 60, 64, 512, 4096, 20_000, len(ZIP) - 400])
def test_a_torch_zip_that_lost_its_head_shows_by_its_tail(kind_of, lost):
    assert kind_of(ZIP[lost:]).format == Format.TORCH_ZIP
    assert kind_of(bytes(lost) + ZIP[lost:]).format == Format.TORCH_ZIP
    assert kind_of(b"x" * lost + ZIP[lost:]).format == Format.TORCH_ZIP


@pytest.mark.parametrize("left", [60, 64, 512, 4096, 20_000, len(ZIP) - 1])
def test_a_torch_zip_that_lost_its_tail_shows_by_its_head(kind_of, left):
    assert kind_of(ZIP[:left]).format == Format.TORCH_ZIP


def test_a_torch_zip_with_neither_end_shows_by_the_records_between(kind_of):
    ends = bytes(range(256)) * 1024
    assert kind_of(ends + ZIP[4096:-4096] + ends).format == Format.TORCH_ZIP
    # a header that lies across the edge of what is read at a time
    before = RNG.bytes((1 << 22) - 10 - ZIP.index(b"PK\x03\x04", 100))
    assert kind_of(before + ZIP[:-4096] + ends).format == Format.TORCH_ZIP


@pytest.mark.parametrize("lost", [0, 1, 4, 8, 9, 200])
def test_a_safetensors_file_shows_by_what_is_left_of_its_header(kind_of, lost):
    assert kind_of(SAFE[lost:]).format == Format.SAFETENSORS
    assert kind_of(bytes(lost) + SAFE[lost:]).format == Format.SAFETENSORS


@pytest.mark.parametrize("left", [10, 100, len(SAFE) // 2, len(SAFE) - 1])
def test_a_cut_safetensors_file_is_known(kind_of, left):
    assert kind_of(SAFE[:left]).format == Format.SAFETENSORS


@pytest.mark.parametrize("lost", [15, 100, 150])
def test_an_older_torch_file_shows_by_what_is_left_of_its_pickles(kind_of, lost):
    assert kind_of(LEGACY[lost:]).format == Format.TORCH_LEGACY
    assert kind_of(bytes(lost) + LEGACY[lost:]).format == Format.TORCH_LEGACY


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 7123456789\n".format("4d" * 32)


@pytest.mark.parametrize("text", [POINTER, POINTER.replace("\n", "\r\n"), POINTER.strip()])
def test_a_git_lfs_pointer_tells_size_and_hash_of_the_true_file(kind_of, text):
    kind = kind_of(text.encode())
    assert kind.format is None
    assert "Git LFS pointer" in kind.what
    assert "7,123,456,789 bytes" in kind.what
    assert "4d" * 32 in kind.what
    assert "git lfs pull" in kind.advice


PAGE = '<!DOCTYPE html>\n<html lang="en"><head><title>Google Drive -\n Virus scan warning</title></head></html>'
S3 = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
INDEX = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
LONG_INDEX = {
    "weight_map": {f"layers.{number}": f"pytorch_model-0000{1 + number // 2500}-of-00002.bin" for number in range(5000)}
}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PAGE.encode(), 'saved web page titled "Google Drive - Virus scan warning"'),
        (b"\xef\xbb\xbf\n<HTML><BODY>Sign in</BODY></HTML>", "saved web page"),
        (b'<?xml version="1.0"?><!-- a -->\n<!doctype HTML PUBLIC "x"><p>caf\xe9', "saved web page"),
        (S3.encode(), 'error answer of a server: "AccessDenied"'),
        (b'{"error": "Repository not found"}', 'error answer of a server: "Repository not found"'),
        (b'{"message": "Bad credentials", "status": "401"}', 'error answer of a server: "Bad credentials"'),
        (b"Entry not found", 'error answer of a server: "Entry not found"'),
        (b"Invalid username or password.", "error answer"),
        (b"HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\n", "HTTP/1.1 403 Forbidden"),
        (b"../.git/annex/objects/zz/SHA256E-s12--ab.pth", "git-annex pointer"),
        (b"outs:\n- md5: abc\n  size: 12\n  path: model.pth\n", "DVC pointer"),
        (b"", "an empty file"),
        (bytes(1), "1 bytes of zeros"),
        (bytes(300_000), "300,000 bytes of zeros"),
        (gzip.compress(ZIP), "packed with gzip"),
        (bz2.compress(ZIP), "packed with bzip2"),
        (lzma.compress(ZIP), "packed with xz"),
        (zipped({"inner/model.pth": ZIP}, zipfile.ZIP_DEFLATED), "a zip that packs inner/model.pth"),
        (ZIP[-22:], "the end of one that has lost the rest"),
        (zipped({"readme.txt": b"hello"}), "none that torch wrote"),
        (zipped({"a.npy": numpy_file()}), "arrays of numpy"),
        (tarred({"model.pth": ZIP}), "tar archive"),
        (tarred({"sys_info": b"", "pickle": b"", "tensors": b"", "storages": b""}), "before 0.1.10"),
        (numpy_file(), "numpy array"),
        (b"GGUF\x03\0\0\0" + bytes(99), "GGUF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.3.0:\x80", "ONNX"),
        (pickle.dumps({"weights": [1.5] * 100}), "Python pickle"),
        (pickle.dumps({"weights": [1.5] * 100}, 0), "Python pickle"),
        (inner_pickle(ZIP), "the data.pkl of a torch file"),
        (b"loss: 0.5\nloss: 0.25\n", 'text file that begins "loss: 0.5 loss: 0.25"'),
        ("손실 0.5\n".encode(), "text file"),
        ("loss 0.5\r\n".encode("utf-16"), "text file"),
        (b'{"hidden_size": 768}', "a JSON file"),
        (RNG.bytes(5000), "of no kind known here"),
    ],
)
def test_what_lies_in_the_place_of_a_checkpoint_is_called_by_its_name(kind_of, data, said):
    kind = kind_of(data)
    assert kind.format is None
    assert said in kind.what
    assert kind.advice


def test_the_index_of_a_checkpoint_in_shards_is_known(kind_of):
    assert kind_of(json.dumps(INDEX, indent=2).encode()).format == Format.SAFETENSORS_SHARDS
    assert kind_of(json.dumps(LONG_INDEX, indent=2).encode()).format == Format.TORCH_SHARDS


def test_an_archive_that_holds_code_is_said_to(kind_of):
    kind = kind_of(script())
    assert kind.format == Format.TORCH_ZIP
    assert "it holds code" in kind.what


@pytest.mark.parametrize("data", [ZIP, LEGACY, SAFE])
def test_a_file_sent_as_text_is_said_to_be(kind_of, data):
    assert "a carriage return stands before" in kind_of(data.replace(b"\n", b"\r\n")).what
    assert "replaced by marks" in kind_of(data.decode(errors="replace").encode()).what


def test_a_page_with_a_torch_file_behind_it_is_a_damaged_torch_file(kind_of):
    padded = PAGE.encode().ljust(1 << 16)
    big = torch_zip({name: value.repeat(3, 1) for name, value in STATE.items()})
    assert kind_of(padded + big[len(padded) :]).format == Format.TORCH_ZIP


def test_what_a_file_says_cannot_reach_the_terminal_as_more_than_words(kind_of):
    kind = kind_of(b"access denied \x1b[2J\x1b]0;owned\x07 " + b"x" * 500)
    assert kind.sentence.isprintable()
    kind = kind_of(b"<html><title>a\x1b[2Jb\nc" + b"\xe2\x80\xae</title>")
    assert kind.sentence.isprintable()


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        *((f"model.safetensors{suffix}", None) for suffix in (".part", ".partial", ".crdownload", ".incomplete")),
        *((f"model.pth{suffix}", None) for suffix in (".aria2", ".download", ".tmp")),
        (".model.pth.Xa3d9Q", None),
        (".weights.safetensors.partial", None),
        ("model.pth", "model.pth.aria2"),
    ],
)
def test_an_unfinished_copy_is_known_by_its_name_and_what_lies_beside(tmp_path, name, beside):
    (tmp_path / name).write_bytes(ZIP[:5000])
    if beside:
        (tmp_path / beside).write_bytes(b"x")
    kind = identify(tmp_path / name)
    assert kind.what.startswith("an unfinished ")
    assert "a torch zip file" in kind.what
    assert kind.format == Format.TORCH_ZIP
    assert kind.advice


@pytest.mark.parametrize("name", ["model.pth", "model.part.pth", ".hidden.pth", "model.pth.backup", "a.crdownloads"])
def test_other_names_are_not_called_unfinished(tmp_path, name):
    assert unfinished(tmp_path / name) == ""


def test_what_is_no_file_is_said_to_be_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    assert identify(tmp_path / "pipe.pth").what == "no regular file"
    assert identify(tmp_path).what == "a folder"
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        identify(tmp_path / "nowhere.pth")
    (tmp_path / "a.pth").symlink_to("a.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        identify(tmp_path / "a.pth")


def test_a_large_sparse_file_of_zeros_takes_no_time_and_no_memory(tmp_path):
    path = tmp_path / "preallocated.pth"
    path.touch()
    os.truncate(path, 1 << 40)
    assert "of zeros" in identify(path).what


STARTS = (
    b"",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"{",
    b"<html",
    b"\x80\x02",
    b"\x1f\x8b\x08",
    LEGACY[:14],
    POINTER.encode(),
)


@NO_MORE_THAN_A_FEW_SECONDS
@given(st.sampled_from(STARTS), st.binary(max_size=400), st.sampled_from((b"", b"PK\x05\x06", b"PK\x01\x02", b".")))
def test_any_bytes_get_a_sentence(tmp_path, start, middle, end):
    path = tmp_path / "any.bin"
    path.write_bytes(start + middle + end)
    kind = identify(path)
    assert isinstance(kind, Kind)
    assert kind.what
    assert kind.sentence.isprintable()


@NO_MORE_THAN_A_FEW_SECONDS
@given(st.sampled_from((ZIP, LEGACY, SAFE)), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=40))
def test_a_few_changed_bytes_do_not_hide_what_a_file_is(tmp_path, data, place, change):
    place %= len(data)
    path = tmp_path / "changed.bin"
    path.write_bytes((data[:place] + change + data[place + len(change) :])[: len(data)])
    assert identify(path).format is not None


@given(st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_length_that_lies_does_not_hide_a_safetensors_file(tmp_path, length):
    path = tmp_path / "lies.bin"
    path.write_bytes(struct.pack("<Q", length) + SAFE[8:])
    assert identify(path).format == Format.SAFETENSORS
