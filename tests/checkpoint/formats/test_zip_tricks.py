import struct
import zlib

import pytest

from mobile_vla.checkpoint.formats import torch_zip, zip_directory
from mobile_vla.core import UnsafeCheckpointError

from .test_torch_zip import fits
from .zips import Part, ends, entry, write_zip


@pytest.fixture
def place(tmp_path):
    return tmp_path / "model.pt"


PICKLE = b"\x80\x02}."
GOOD = [Part("m/data.pkl", PICKLE), Part("m/data/0", b"12345678"), Part("m/version", b"3\n")]


@pytest.mark.parametrize(
    ("parts", "culprit"),
    [
        ([*GOOD, Part("m/data.pkl", PICKLE)], "two entries named 'm/data.pkl'"),
        ([*GOOD, Part("m/../../x", b"x")], "an entry named 'm/../../x'"),
        ([*GOOD, Part("/etc/x", b"x")], "an entry named '/etc/x'"),
        ([*GOOD, Part("m\\x", b"x")], "an entry named"),
        ([*GOOD, Part("C:/x", b"x")], "an entry named 'C:/x'"),
        ([*GOOD, Part("m/\x07", b"x")], "an entry named"),
        ([*GOOD, Part("other/data.pkl", PICKLE)], "two archives in one"),
        ([*GOOD, Part("m/data/1", b"x", method=8)], "the compressed entry 'm/data/1'"),
        ([*GOOD, Part("m/data/1", b"x", header_flags=1, entry_flags=1)], "the encrypted entry 'm/data/1'"),
        ([*GOOD, Part("m/data/1", b"x", header_name="m/data.pkl")], "an entry with two names"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tricks_are_refused_by_name(place, parts, culprit):
    write_zip(place, GOOD)
    assert torch_zip.survey(place).problems == ()
    write_zip(place, parts)
    with pytest.raises(UnsafeCheckpointError, match=culprit.replace("(", r"\(").replace("\\", r"\\")) as caught:
        torch_zip.survey(place)
    assert culprit in caught.value.culprit


def test_overlapping_entries_are_refused(place):
    """A whole record within the data of another, both in the directory, both with right checksums."""
    inner_name = b"m/data/1"
    inner = (
        struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, 0x808, 0, 0, 0, 0, 0, 0, len(inner_name), 0) + inner_name + b"hidden"
    )
    inner += struct.pack("<4s3I", b"PK\x07\x08", zlib.crc32(b"hidden"), 6, 6)
    outer = Part("m/data/0", inner)
    written = write_zip(place, [GOOD[0], outer, GOOD[2]])
    data = bytearray(place.read_bytes())
    parts = [(GOOD[0], written.header["m/data.pkl"]), (outer, written.header["m/data/0"])]
    parts += [(Part("m/data/1", b"hidden"), written.data["m/data/0"]), (GOOD[2], written.header["m/version"])]
    directory = b"".join(entry(part, zlib.crc32(part.data), at) for part, at in parts)

    place.write_bytes(bytes(data[: written.directory]) + directory + ends(4, len(directory), written.directory))
    with pytest.raises(UnsafeCheckpointError, match="overlap"):
        torch_zip.survey(place)


def test_an_absurd_number_of_entries_is_refused(place, monkeypatch):
    monkeypatch.setattr(zip_directory, "MAX_ENTRIES", 1000)
    write_zip(place, [*GOOD, *(Part(f"m/data/{number}", b"x") for number in range(1, 999))])
    with pytest.raises(UnsafeCheckpointError, match="more than 1000 entries"):
        torch_zip.survey(place)


def test_a_file_made_to_be_read_over_and_over_is_refused(place):
    """Thousands of descriptors, each of which claims all that lies before it."""
    data = bytearray(b"PK\x03\x04" + bytes(2**18))
    for _ in range(4000):
        data += struct.pack("<4s3I", b"PK\x07\x08", 7, len(data), len(data))
    place.write_bytes(bytes(data))
    with pytest.raises(UnsafeCheckpointError, match="again and again"):
        torch_zip.survey(place)


def test_what_stands_in_one_place_only_is_damage(place):
    """The directory alone says "compressed", "encrypted" or another name: no one is refused for a flipped bit."""
    for change in (Part("m/data/0", b"12345678", entry_flags=1), Part("m/data/0", b"12345678", header_name="m/data/8")):
        write_zip(place, [GOOD[0], change, GOOD[2]])
        layout = torch_zip.survey(place)
        assert layout.problems
        assert {run.label for run in layout.runs if fits(run)} == {"m/data.pkl", "m/data/0", "m/version"}
