"""Where the parts of a checkpoint file begin and end, by the standard library's own readers."""

import io
import json
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mobile_vla.core.backports import StrEnum


class Kind(StrEnum):
    """How a file proves its bytes, which decides what can be asked of a reader."""

    ZIP = "a CRC-32 twice for each record"
    LEGACY = "pickles and raw storages, no checksum"
    SAFETENSORS = "no checksum"
    SELF_PROVING = "safetensors with our checksums in its header"
    MANIFEST = "the manifest of our folders"
    PROVEN_BY_MANIFEST = "a file that a manifest proves"
    INDEX = "the index of a set"
    CONFIG = "a JSON file that nothing proves"


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a file's structure; ``label`` says whose ("archive/data/3"), ``part`` which ("descriptor")."""

    label: str
    part: str
    start: int
    end: int


def _zip_regions(data: bytes) -> tuple[Region, ...]:
    regions = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries, central = archive.infolist(), archive.start_dir
    for entry in entries:
        at, name = entry.header_offset, entry.filename
        name_size, extra_size = struct.unpack_from("<HH", data, at + 26)
        first = at + 30 + name_size + extra_size
        last = first + entry.compress_size
        regions.append(Region(name, "header", at, at + 30))
        regions.append(Region(name, "name", at + 30, at + 30 + name_size))
        regions.append(Region(name, "padding", at + 30 + name_size, first))
        regions.append(Region(name, "data", first, last))
        if entry.flag_bits & 8:
            regions.append(Region(name, "descriptor", last, last + 16))
    for entry in entries:
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", data, central + 28)
        size = 46 + name_size + extra_size + comment_size
        regions.append(Region(entry.filename, "central entry", central, central + size))
        central += size
    for label, size in (("zip64 end", 56), ("zip64 locator", 20), ("end", 22)):
        regions.append(Region(label, "end record", central, central + size))
        central += size
    assert central == len(data)
    return tuple(regions)


def pickle_ends(data: bytes) -> list[int]:
    """Ends of the five pickles: magic number, protocol, system, objects, keys of the storages."""
    stream, ends = io.BytesIO(data), []
    for _ in range(5):
        for _ in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    return ends


def _legacy_regions(data: bytes) -> tuple[Region, ...]:
    ends = pickle_ends(data)
    names = ("magic", "protocol", "system", "objects", "keys")
    regions = [Region(name, "pickle", *span) for name, *span in zip(names, [0, *ends[:-1]], ends, strict=True)]
    widths = _element_sizes(data[ends[2] : ends[3]])
    at = ends[4]
    for key in pickle.loads(data[ends[3] : at]):
        size = int.from_bytes(data[at : at + 8], "little") * widths[key]
        regions.append(Region(key, "count", at, at + 8))
        regions.append(Region(key, "data", at + 8, at + 8 + size))
        at += 8 + size
    assert at == len(data)
    return tuple(regions)


_ELEMENT_BYTES = {
    "BoolStorage": 1,
    "ByteStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
}


def _element_sizes(data: bytes) -> dict[str, int]:
    sizes: dict[str, int] = {}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return name if name.endswith("Storage") else lambda *arguments: OrderedDict()

        def persistent_load(self, identifier: Any) -> None:
            _, storage, key, *_ = identifier
            sizes[key] = _ELEMENT_BYTES[storage]

    Reader(io.BytesIO(data)).load()
    return sizes


def _safetensors_regions(data: bytes) -> tuple[Region, ...]:
    start = 8 + int.from_bytes(data[:8], "little")
    text = data[8:start]
    regions = [Region("header", "length", 0, 8), Region("header", "text", 8, start)]
    for name, entry in json.loads(text).items():
        if name == "__metadata__":
            continue
        mention = text.index(json.dumps(name).encode() + b":{")
        regions.append(Region(name, "entry", 8 + mention, 8 + text.index(b"}", mention) + 1))
        begin, end = entry["data_offsets"]
        regions.append(Region(name, "data", start + begin, start + end))
    return tuple(regions)


def _text_regions(data: bytes) -> tuple[Region, ...]:
    return (Region("text", "text", 0, len(data)),)


REGIONS: Mapping[Kind, Callable[[bytes], tuple[Region, ...]]] = {
    Kind.ZIP: _zip_regions,
    Kind.LEGACY: _legacy_regions,
    Kind.SAFETENSORS: _safetensors_regions,
    Kind.SELF_PROVING: _safetensors_regions,
    Kind.MANIFEST: _text_regions,
    Kind.PROVEN_BY_MANIFEST: _text_regions,
    Kind.INDEX: _text_regions,
    Kind.CONFIG: _text_regions,
}
