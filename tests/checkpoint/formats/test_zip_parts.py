import io
import random
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_vla.checkpoint.formats import zip_parts
from mobile_vla.checkpoint.formats.zip_parts import Source, blocks, descriptors_at, entry_in, header_at, signatures
from mobile_vla.core import CheckpointError

from .zips import MAX32, Part, block, entry

KINDS = [b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("parts") / "file"


def positions(data):
    return sorted((at, data[at : at + 4]) for at in range(len(data)) if data[at : at + 4] in KINDS)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_signatures_are_found_across_the_edges_of_pieces(place, seed):
    rng = random.Random(seed)
    data = b"".join(rng.choice([*KINDS, b"P", b"K", b"PK", b"PK\x01", b"PK\x02\x03", b"\x00" * 3]) for _ in range(40))
    place.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, Source(place) as source:
        patch.setattr(zip_parts, "PIECE", rng.randrange(5, 30))
        assert list(signatures(source, 0, len(data))) == positions(data)
        start, stop = sorted(rng.randrange(len(data)) for _ in range(2))
        inside = [(at, kind) for at, kind in positions(data) if start <= at and at + 4 <= stop]
        assert list(signatures(source, start, stop)) == inside


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_after_a_jump_the_search_goes_on_from_there(place, seed):
    rng = random.Random(seed)
    data = b"".join(rng.choice([*KINDS, b"x", b"PK"]) for _ in range(60))
    place.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, Source(place) as source:
        patch.setattr(zip_parts, "PIECE", rng.randrange(5, 40))
        hits = signatures(source, 0, len(data))
        found, expected, jump = [], [], 0
        hit = next(hits, None)
        while hit is not None:
            found.append(hit)
            jump = hit[0] + rng.randrange(1, 50)
            try:
                hit = hits.send(jump)
            except StopIteration:
                hit = None
        jump = 0
        # the same walk, over the list of all of them
        rng_again = random.Random(seed)
        for _ in range(60):
            rng_again.choice([*KINDS, b"x", b"PK"])
        rng_again.randrange(5, 40)
        for at, kind in positions(data):
            if at >= jump:
                expected.append((at, kind))
                jump = at + rng_again.randrange(1, 50)
        assert found == expected


def test_reads_end_with_the_file(place):
    place.write_bytes(b"0123456789")
    with Source(place) as source:
        assert source.read(8, 100) == b"89"
        assert source.read(10, 1) == source.read(-1, 5) == b""
        assert source.crc32(5, 100) == source.crc32(5, 5)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        Source(tmp_path / "none")


@given(size=st.integers(0, 2**40), at=st.integers(0, 2**40))
def test_64_bit_values_of_entries_are_read_where_they_are_needed(size, at):
    data = entry(Part("m/data/0", b"", size), 7, at)
    read = entry_in(b"xx" + data + b"yy", 2, 1000)
    assert (read.size, read.packed, read.offset, read.crc, read.name) == (size, size, at, 7, "m/data/0")
    assert (read.at, read.end) == (1002, 1002 + len(data))
    assert read.wide == (size >= MAX32 or at >= MAX32)


@given(data=st.binary(max_size=80))
def test_any_extra_field_is_taken_apart_without_a_byte_lost(data):
    found, rest = blocks(data)
    assert (
        b"".join(kind.to_bytes(2, "little") + len(part).to_bytes(2, "little") + part for kind, part in found) + rest
        == data
    )


def test_a_descriptor_may_be_of_either_kind(place):
    place.write_bytes(b"PK\x07\x08" + (9).to_bytes(4, "little") + (5).to_bytes(8, "little") * 2)
    with Source(place) as source:
        assert [(each.size, each.crc, each.end) for each in descriptors_at(source, 0)] == [(5, 9, 24)]
    place.write_bytes(b"PK\x07\x08" + (9).to_bytes(4, "little") + (5).to_bytes(4, "little") * 2)
    with Source(place) as source:
        assert [(each.size, each.crc, each.end) for each in descriptors_at(source, 0)] == [(5, 9, 16)]


def test_headers_of_another_writer_are_read(place):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target, target.open("m/data/0", "w", force_zip64=True) as file:
        file.write(b"12345")
    place.write_bytes(stream.getvalue())
    with Source(place) as source:
        header = header_at(source, 0)
        assert (header.size, header.packed, header.name) == (5, 5, "m/data/0")
        assert source.read(header.start, 5) == b"12345"


def test_zip64_blocks_that_are_too_short_are_no_reason_to_fail():
    data = bytearray(entry(Part("m/data/0", b"", 2**33), 7, 2**34))
    at = data.index(block([2**33, 2**33, 2**34]))
    data[at + 2] = 8
    read = entry_in(bytes(data), 0, 0)
    assert (read.size, read.packed, read.offset) == (2**33, MAX32, MAX32)
