"""The records of a torch zip file as they come to light, and how torch's writer lays them out.

One behind the other: local header, filling, data at a multiple of the alignment, descriptor; then the directory. A
record is named by its header, its directory entry and, for tensors, the pickle; its CRC-32 stands in entry and
descriptor. Torch's ``inline_container.cc`` and miniz have written it so from 1.6 to 2.13.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mobile_vla.checkpoint.formats.pickles import DEFAULT_LIMITS
from mobile_vla.checkpoint.formats.torch_pickle import Contents, read_torch_pickle
from mobile_vla.checkpoint.formats.zip_directory import MAX_ENTRIES, Directory
from mobile_vla.checkpoint.formats.zip_parts import HAS_DESCRIPTOR, MAX32, Descriptor, Entry, Header, Source
from mobile_vla.core import DamagedCheckpointError, UnsafeCheckpointError

PICKLE, DATA = "data.pkl", "data/"
MAX_PICKLE_BYTES = DEFAULT_LIMITS.pickle_bytes
HEADER_BYTES = 30
"""Of a local header without its name and extra field."""

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Record:
    """``size`` bytes of data from ``start``; its local header begins (or began) at ``at``, the next record at ``end``.

    ``name`` is empty where it is lost. Of ``header``, ``entry`` and ``descriptor`` those are set that are there.
    """

    name: str
    at: int
    start: int
    size: int
    end: int
    header: Header | None = None
    entry: Entry | None = None
    descriptor: Descriptor | None = None
    note: str = ""

    @property
    def witnesses(self) -> tuple[str, ...]:
        """The names that stand in the file for it."""
        return tuple(part.name for part in (self.header, self.entry) if part is not None)

    @property
    def sure(self) -> bool:
        """Header and directory agree on its name; or, without a header, directory and descriptor on its content."""
        if self.header is None:
            return self.entry is not None and self.descriptor is not None and self.descriptor.crc == self.entry.crc
        return len(self.witnesses) == 2 and len(set(self.witnesses)) == 1

    @property
    def checksums(self) -> tuple[int, ...]:
        """The CRC-32s stored for it, the directory's first; that of no bytes is 0."""
        if not self.size:
            return (0,)
        found = [self.entry.crc] if self.entry else []
        if self.descriptor:
            found.append(self.descriptor.crc)
        elif self.header and not self.header.flags & HAS_DESCRIPTOR and self.header.size == self.size:
            found.append(self.header.crc)
        return tuple(found)


def descriptor_bytes(at: int, size: int) -> int:
    """What torch writes behind ``size`` bytes of data whose header is at ``at``."""
    if not size:
        return 0
    return 24 if at >= MAX32 or size >= MAX32 else 16


def zip64_bytes(at: int, size: int) -> int:
    """Of the block with 64-bit values that torch puts into a local header."""
    fields = (2 if size >= MAX32 else 0) + (1 if at >= MAX32 else 0)
    return 4 + 8 * fields if fields else 0


def data_start(at: int, name_bytes: int, size: int, alignment: int) -> int:
    """Where torch puts the data of a record whose header is at ``at``."""
    least = at + HEADER_BYTES + name_bytes + zip64_bytes(at, size) + 4
    return -(-least // alignment) * alignment


def is_damaged(found: int, right: int) -> bool:
    """A checksum that zeros, or the damage of one byte, have made of the right one."""
    pairs = zip(found.to_bytes(4, "big"), right.to_bytes(4, "big"), strict=True)
    wrong = [here for here, there in pairs if here != there]
    return len(wrong) == 1 or not any(wrong)


def prefix_of(names: Iterable[str]) -> str:
    """The folder that most names begin with."""
    counts = Counter(name.partition("/")[0] for name in names if "/" in name)
    return counts.most_common(1)[0][0] if counts else ""


class Known:
    """All that is known of a file so far. Records never overlap."""

    def __init__(self, source: Source, directory: Directory, opaque: Collection[str]) -> None:
        self.source, self.directory, self.opaque = source, directory, opaque
        self.entries: dict[int, Entry] = {}
        self.lost: dict[str, str] = {}
        self.contents: Contents | None = None
        self.prefix, self.pickle_damage, self.unchecked = "", "it is not in the file", False
        self.sizes: Mapping[str, int] = {}
        self.alignment = _ALIGNMENT
        self._records: dict[int, Record] = {}
        self._starts: list[int] = []
        self._named: dict[str, list[Entry]] = {}
        for entry in directory.entries:
            self.learn(entry)
        plain = sum(entry.made_by == entry.version == 0 for entry in directory.entries)
        self.by_torch = 2 * plain >= len(directory.entries)

    @property
    def records(self) -> list[Record]:
        """By their place."""
        return [self._records[start] for start in self._starts]

    def names(self) -> Iterator[str]:
        """All that stand in headers and entries of its records."""
        for record in self.records:
            yield from record.witnesses

    def learn(self, entry: Entry) -> None:
        """Of one more entry."""
        self.entries[entry.at] = entry
        self._named.setdefault(entry.name, []).append(entry)

    def entry(self, name: str) -> Entry | None:
        """The one of that name, None if there is none or more than one."""
        entries = self._named.get(name, ())
        return entries[0] if len(entries) == 1 else None

    def add(self, record: Record) -> bool:
        """Keep a record, unless another has bytes there."""
        if self.near(record.start, record.end):
            return False
        # several records without bytes may claim one place
        if record.start in self._records:
            return False
        if len(self._records) >= MAX_ENTRIES:
            reason = "no model has so many records"
            raise UnsafeCheckpointError(self.source.path, f"more than {MAX_ENTRIES} zip entries", reason)
        self._records[record.start] = record
        insort(self._starts, record.start)
        return True

    def replace(self, old: Record, new: Record | None) -> None:
        """Take ``old`` out, and put ``new`` in its place."""
        del self._records[old.start]
        del self._starts[bisect_left(self._starts, old.start)]
        if new is not None:
            self.add(new)

    def near(self, start: int, stop: int) -> list[Record]:
        """The records that have data or a descriptor between two bytes."""
        place = bisect_left(self._starts, start)
        found = []
        for each in self._starts[max(0, place - 1) :]:
            if each >= stop:
                break
            # a record without bytes is in nobody's way
            if self._records[each].end > max(start, each):
                found.append(self._records[each])
        return found

    def at(self, at: int) -> Record | None:
        """The record whose header begins at ``at``."""
        place = bisect_left(self._starts, at)
        if place < len(self._starts) and (record := self._records[self._starts[place]]).at == at:
            return record
        return None

    def gaps(self) -> Iterator[tuple[int, int]]:
        """What belongs to no record, nor to the directory."""
        taken = [(min(record.at, record.start), record.end) for record in self.records]
        if self.directory.entries:
            taken.append((self.directory.start, self.directory.tail))
        at = 0
        for start, stop in sorted(taken):
            if start > at:
                yield at, start
            at = max(at, stop)
        if at < self.source.size:
            yield at, self.source.size

    def checks(self, record: Record) -> bool:
        """Reads the data: they have the directory's checksum or, without an entry, the descriptor's."""
        return self.source.crc32(record.start, record.size) in record.checksums[:1]

    def read_pickle(self) -> None:
        """Learn names and sizes from the pickle, if its checksum is right; none where there are two that differ."""
        if self.contents is not None:
            return
        prefix = prefix_of(self.names())
        found: dict[int, Record] = {}
        for record in self.records:
            if f"{prefix}/{PICKLE}" not in record.witnesses or record.size > MAX_PICKLE_BYTES:
                continue
            crc = self.source.crc32(record.start, record.size)
            self.unchecked = not any(record.checksums) and self._no_checksums()
            first, last = (record.checksums[0], record.checksums[-1]) if record.checksums else (None, None)
            damaged = (
                first is not None and crc == last and (is_damaged(first, crc) or self._is_sealed_with(record, crc))
            )
            if crc == first or damaged or self.unchecked:
                found[crc] = record
            else:
                self.pickle_damage = "its bytes do not fit its checksum"
        if len(found) > 1:
            self.pickle_damage = "there are several, with different contents"
        if len(found) == 1:
            self._read(prefix, found.popitem()[1])

    def _is_sealed_with(self, record: Record, crc: int) -> bool:
        crcs = [crc if each is record else (*each.checksums, 0)[0] for each in self.records]
        return self.is_sealed(crcs)

    def take_for_pickle(self, record: Record, prefix: str) -> bool:
        """Read a record that lost its name as the pickle, if it can be it. Its checksum must have been found right."""
        if self.contents is None and record.size <= MAX_PICKLE_BYTES and self._looks_like_a_pickle(record):
            with suppress(UnsafeCheckpointError):
                self._read(prefix, record)
        return self.contents is not None

    def _looks_like_a_pickle(self, record: Record) -> bool:
        first, last = self.source.read(record.start, 1), self.source.read(record.start + record.size - 1, 1)
        return (first, last) == (b"\x80", b".")

    def _read(self, prefix: str, record: Record) -> None:
        data = self.source.read(record.start, record.size)
        try:
            contents = read_torch_pickle(data, self.source.path, self.opaque)
        except DamagedCheckpointError as error:
            self.pickle_damage = error.damage
            return
        if contents.consumed != record.size:
            self.pickle_damage = f"{record.size - contents.consumed} bytes follow the pickle in it"
            return
        self.contents, self.prefix = contents, prefix
        self.sizes = {f"{prefix}/{DATA}{storage.key}": storage.size for storage in contents.storages}

    def is_sealed(self, crcs: Sequence[int]) -> bool:
        """These checksums of the records are those that the serialization id was made from.

        It is there since torch 2.1 and ends, in 20 digits, with a hash of the checksums of all records with bytes
        before it, by steps of ``c10::hash_combine``.
        """
        seal = 0
        for record, crc in zip(self.records, crcs, strict=True):
            if record.name.endswith("/.data/serialization_id"):
                return record.size == 40 and self.source.read(record.start + 20, 20) == b"%020d" % seal
            if record.size:
                seal ^= (crc + 0x9E3779B9 + (seal << 6) + (seal >> 2)) & 0xFFFFFFFFFFFFFFFF
        return False

    def _no_checksums(self) -> bool:
        """Nothing in the file has one: it was saved after torch.serialization.set_crc32_options(False)."""
        crcs = [crc for record in self.records if record.size for crc in record.checksums]
        return not any(crcs)
