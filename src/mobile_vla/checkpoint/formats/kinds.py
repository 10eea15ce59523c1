"""What a file is by its bytes, whatever its name says: a checkpoint, or one of the things that lie in its place."""

import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mobile_vla.checkpoint.atomic import PARTIAL
from mobile_vla.checkpoint.formats.texts import judge, printable, text_of
from mobile_vla.checkpoint.layout import Format
from mobile_vla.core import CheckpointError

_EDGE = 1 << 16
"""Bytes looked at from the start and from the end."""
_PIECE = 1 << 22
_SAMPLES = 64
_LONGEST_NAME = 512

_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
"""LONG1 of 0x1950a86a20f9469cfc6c, the first thing in a torch file before 1.6."""
_MAX_HEADER = 100_000_000
"""Longest JSON header that safetensors itself opens."""
_TORCH_ENTRY = re.compile(rb"[^/]+/(data\.pkl|data/\d+|\.data/serialization_id|\.format_version|\.storage_alignment)")
_SCRIPT_ENTRY = re.compile(rb"[^/]+/(constants\.pkl|code/.+)")
_WEIGHTS_ENTRY = re.compile(rb".+\.(pth|pt|ckpt|bin|safetensors)")
_AGAIN = "fetch it again"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is. ``format`` is the one it can be read as, None where it is no checkpoint that can be.

    ``what`` is for a person ("a saved web page ..."), ``advice`` says what to do, empty where there is nothing to.
    """

    format: Format | None
    what: str
    advice: str = ""

    @property
    def sentence(self) -> str:
        """Both in one."""
        return f"{self.what}; {self.advice}" if self.advice else self.what


def identify(path: Path) -> Kind:
    """Tell what the file at ``path`` is from its first and last bytes.

    A file with nothing telling at either end is searched through for records of a torch zip. CheckpointError where it
    cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return Kind(None, "a folder", "name a file in it, or let it be looked through: checkpoint find")
        if not stat.S_ISREG(mode):
            return Kind(None, "no regular file", "name a file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            kind = _identify(_Ends(file.fileno(), size))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if sign := unfinished(path):
        return Kind(kind.format, f"{sign} ({kind.what})", kind.advice or "finish the download, or fetch it again")
    return kind


def unfinished(path: Path) -> str:
    """What in the name of ``path``, or beside it, tells of a copy under way or broken off; empty where nothing does."""
    if path.name.startswith(".") and path.suffix == PARTIAL:
        return "an unfinished save of mobile-vla"
    if doing := _UNFINISHED.get(path.suffix.lower()):
        return f"an unfinished {doing}"
    if _RSYNC.fullmatch(path.name):
        return "an unfinished copy by rsync"
    for suffix in _SIDECARS:
        if path.with_name(path.name + suffix).exists():
            return f"an unfinished download ({path.name}{suffix} lies beside it)"
    return ""


_UNFINISHED = {
    ".part": "download",
    ".partial": "download",
    ".crdownload": "download by a browser",
    ".download": "download by a browser",
    ".incomplete": "download from Hugging Face",
    ".opdownload": "download by a browser",
    ".aria2": "download by aria2: this is its note of what is done",
    ".tmp": "save",
    ".pull": "checkpoint pull",
}
_SIDECARS = (".aria2", ".st", ".part")
_RSYNC = re.compile(r"\..+\.(pth|pt|ckpt|bin|safetensors|json)\.[A-Za-z0-9]{6}")


@dataclass(frozen=True, slots=True)
class _Ends:
    """An open file with its first and last bytes at hand."""

    descriptor: int
    size: int

    @property
    def head(self) -> bytes:
        return os.pread(self.descriptor, _EDGE, 0)

    @property
    def tail(self) -> bytes:
        return os.pread(self.descriptor, _EDGE, max(0, self.size - _EDGE))

    def pieces(self, overlap: int) -> Iterator[bytes]:
        for start in range(0, self.size, _PIECE):
            yield os.pread(self.descriptor, _PIECE + overlap, start)

    def samples(self) -> Iterator[bytes]:
        for number in range(_SAMPLES):
            yield os.pread(self.descriptor, 4096, number * max(0, self.size - 4096) // _SAMPLES)


def _identify(file: _Ends) -> Kind:
    if file.size == 0:
        return Kind(None, "an empty file", f"nothing of it was written: {_AGAIN}, or save it again")
    head, tail = file.head, file.tail
    if all(piece.count(0) == len(piece) for piece in chain((head, tail), file.samples())):
        return Kind(
            None,
            f"{file.size:,} bytes of zeros as far as sampled: its place was kept on the disk, its content never came",
            f"{_AGAIN}, or save it again",
        )
    kind = _by_magic(head) or _torch_legacy(head) or _torch_zip((head, tail)) or _safetensors(head)
    kind = kind or _pickle(head, tail) or _text(head, tail, file.size) or _other_zip(head, tail)
    kind = (
        kind
        or _torch_zip(file.pieces(overlap=_LONGEST_NAME))
        or Kind(None, "of no kind known here, or its start is overwritten", f"compare it with its source, or {_AGAIN}")
    )
    if sign := _sent_as_text(head + tail):
        return Kind(kind.format, f"{kind.what}, {sign}", "fetch it again in binary mode: no program can mend all of it")
    return kind


_MAGIC = (
    (0, b"GGUF", "a GGUF model, as llama.cpp reads it"),
    (0, b"ggml", "a GGML model, as older llama.cpp reads it"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes"),
    (0, b"\x93NUMPY", "a numpy array"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"ftrt", "a TensorRT engine"),
    (0, b"PAR1", "a Parquet table"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"\x89PNG\r\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x7fELF", "a program or library of Linux"),
    (0, b"\x00\x05\x16\x07", "what macOS keeps beside a file (its name begins with ._); the file itself is another"),
)
_PACKED = (
    (b"\x1f\x8b\x08", "gzip", "gunzip"),
    (b"BZh", "bzip2", "bunzip2"),
    (b"\xfd7zXZ\x00", "xz", "unxz"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    (b"\x04\x22\x4d\x18", "lz4", "unlz4"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
    (b"Rar!\x1a\x07", "RAR", "unrar x"),
)


def _by_magic(head: bytes) -> Kind | None:
    for offset, magic, what in _MAGIC:
        if head.startswith(magic, offset):
            return Kind(None, what, "open it with the program it was made for")
    for magic, packer, command in _PACKED:
        if head.startswith(magic):
            return Kind(None, f"packed with {packer}", f"unpack it first ({command}), then look at what was in it")
    if head.startswith(b"ustar", 257):
        if all(name in head for name in (b"sys_info", b"pickle", b"storages")) or head.startswith(b"sys_info\0"):
            return Kind(None, "a torch file of before 0.1.10 (a tar)", "let a torch of that time save it anew")
        return Kind(None, "a tar archive", "unpack it first (tar -xf), then look at what was in it")
    # protobuf: field 1 (ir_version) a small number, then field 2 (producer) a short name
    if re.match(rb"\x08[\x01-\x20]\x12[\x01-\x40][\w.-]+", head):
        return Kind(None, "an ONNX model", "open it with the program it was made for")
    return None


def _torch_legacy(head: bytes) -> Kind | None:
    if _LEGACY_MAGIC in head[:32] or (b"little_endian" in head[:512] and b"type_sizes" in head[:512]):
        return Kind(Format.TORCH_LEGACY, "a torch file of before 1.6 (pickles, then bytes)")
    return None


def _torch_zip(pieces: Iterable[bytes]) -> Kind | None:
    for piece in pieces:
        names = list(_entry_names(piece))
        if any(_SCRIPT_ENTRY.fullmatch(name) for name in names):
            return Kind(
                Format.TORCH_ZIP,
                "a TorchScript archive: it holds code beside its tensors",
                "export its state_dict with the program that made it",
            )
        if any(_TORCH_ENTRY.fullmatch(name) for name in names):
            return Kind(Format.TORCH_ZIP, "a torch zip file")
    return None


def _entry_names(data: bytes) -> Iterator[bytes]:
    """Names in the local and central headers of a zip that lie whole in ``data``."""
    for header in re.finditer(rb"PK(?:\x03\x04|\x01\x02)", data):
        local = data[header.start() + 2] == 3
        length_at, name_at = header.start() + (26 if local else 28), header.start() + (30 if local else 46)
        if name_at <= len(data):
            length = struct.unpack_from("<H", data, length_at)[0]
            if 0 < length <= _LONGEST_NAME:
                yield data[name_at : name_at + length]


def _other_zip(head: bytes, tail: bytes) -> Kind | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")) and b"PK\x05\x06" not in tail:
        return None
    names = [*_entry_names(head), *_entry_names(tail)]
    if not names:
        return Kind(None, "a zip without entries: the end of one that has lost the rest", _AGAIN)
    packed = sorted({name.decode(errors="replace") for name in names if _WEIGHTS_ENTRY.fullmatch(name)})
    if packed:
        return Kind(None, f"a zip that packs {printable(packed[0])}", "unpack it first (unzip), then look at that")
    if any(name.endswith(b".npy") for name in names):
        return Kind(None, "arrays of numpy in a zip (.npz)", "open it with numpy")
    return Kind(None, "a zip, but none that torch wrote", "unpack it (unzip) and look at what is in it")


def _safetensors(head: bytes) -> Kind | None:
    kind = Kind(Format.SAFETENSORS, "a safetensors file")
    if len(head) >= 10:
        length = struct.unpack_from("<Q", head)[0]
        if 2 <= length <= _MAX_HEADER and re.match(rb'\{ *["}]', head[8:]):
            return kind
    # the length or the start of the header is overwritten or cut off, what follows tells
    if b'"data_offsets":[' in head and b'"dtype":"' in head and text_of(head) is None:
        return kind
    return None


def _pickle(head: bytes, tail: bytes) -> Kind | None:
    begins = re.match(rb"\x80[\x02-\x05]|\(dp\d|\(lp\d|[\]}\(]q|c[a-z_.]+\n\w+\n", head) is not None
    if b"torch" in head and b"_rebuild_tensor" in head:
        if begins and tail.endswith(b"."):
            return Kind(
                None,
                "the data.pkl of a torch file: names and shapes of tensors without their bytes",
                "put it back with the files that lay beside it: zip -0 -r model.pth archive",
            )
        return Kind(Format.TORCH_LEGACY, "a torch file of before 1.6 that has lost its start")
    if begins:
        return Kind(None, "a Python pickle, but none that torch wrote", "it could run code: open it where you trust it")
    return None


def _text(head: bytes, tail: bytes, size: int) -> Kind | None:
    """Where both ends are text: binary behind a start that is overwritten with text is none."""
    text = text_of(head)
    if text is None or (size > len(head) and text_of(tail) is None):
        return None
    return Kind(*judge(text, size))


def _sent_as_text(ends: bytes) -> str:
    if text_of(ends) is not None:
        return ""
    feeds, with_return = ends.count(b"\n"), ends.count(b"\r\n")
    if feeds >= 8 and feeds == with_return:
        return "sent as text: a carriage return stands before every line feed"
    marks, wrong = ends.count("\ufffd".encode()), ends.decode(errors="replace").count("\ufffd")
    # the edges of what was read may cut letters; binary data is wrong all over
    if marks >= 8 and wrong - marks <= 8:
        return "sent as text: what is no UTF-8 was replaced by marks"
    return ""
