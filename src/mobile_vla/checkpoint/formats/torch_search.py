"""Find the records of a torch zip file: where its directory says, or, where that is not whole, wherever they can be."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from mobile_vla.checkpoint.formats.record_names import SMALL, same_but_a_byte, settle_names, writing_order
from mobile_vla.checkpoint.formats.torch_records import (
    DATA,
    HEADER_BYTES,
    MAX_PICKLE_BYTES,
    PICKLE,
    Known,
    Record,
    data_start,
    descriptor_bytes,
    prefix_of,
)
from mobile_vla.checkpoint.formats.zip_directory import MAX_ENTRIES, Directory, entry_at
from mobile_vla.checkpoint.formats.zip_parts import (
    DESCRIPTOR,
    ENTRY,
    HAS_DESCRIPTOR,
    HEADER,
    MAX32,
    Descriptor,
    Entry,
    Header,
    Source,
    descriptor_of,
    descriptors_at,
    header_at,
    is_filling,
    signatures,
)
from mobile_vla.core import UnsafeCheckpointError

_HALF = 2
_MAX_SMALL = 1 << 16
_MAX_NAME = 1024
_NO_CHECKSUM = "its checksum is lost"
_BY_NEIGHBOURS = "placed by its neighbours and its size"


def find_records(source: Source, directory: Directory, opaque: Collection[str]) -> Known:
    """What is known of a file once all of it has been looked at that needs to be.

    Reads no tensor's bytes as long as the directory is whole, else only those that nothing accounts for, and those of
    records about which the file contradicts itself. UnsafeCheckpointError for a hostile pickle, or for an absurd number
    of records.
    """
    if (directory.shift or not directory.whole) and _stands_in_a_tensor(source, directory, opaque):
        directory = _nothing(source)
    known = Known(source, directory, opaque)
    unsettled = _by_directory(known)
    known.read_pickle()
    if unsettled or not directory.whole:
        search = _Search(known, unsettled)
        search.walk([0, *(record.end for record in known.records)])
        search.scan()
        search.settle()
        _by_neighbours(known)
    _name(known)
    return known


def _nothing(source: Source) -> Directory:
    return Directory(source.size, source.size, source.size, (), False, None)


def _stands_in_a_tensor(source: Source, directory: Directory, opaque: Collection[str]) -> bool:
    """The archive at the end of the file is what a tensor holds, in a file whose own end is lost."""
    known = Known(source, _nothing(source), opaque)
    search = _Search(known, [])
    search.walk([0])
    if known.near(directory.start, directory.start + 1):
        return True
    own = {(entry.name, entry.size) for entry in directory.entries}
    return any(
        header.start <= directory.start < header.start + known.sizes.get(header.name, 0)
        and (header.name, known.sizes[header.name]) not in own
        for header in search.open.values()
    )


# by the directory


def _by_directory(known: Known) -> list[Entry]:
    """Add what the directory's entries point to; what does not lie there is given back."""
    entries = known.directory.entries
    shifts = _shifts(known, entries)
    _read_alignment(known, entries, shifts)
    doubtful: list[tuple[Entry, list[_Fit], int]] = []
    before: Record | None = None
    for place, entry in enumerate(entries):
        behind = entries[place + 1] if place + 1 < len(entries) else None
        following = None
        if behind is not None and behind.at == entry.end:
            following = behind.offset
        elif behind is None and known.directory.whole:
            following = known.directory.start - shifts[0]
        places = [entry.offset + shift for shift in shifts]
        if before is not None and before.entry is not None and before.entry.end == entry.at:
            places.append(before.end)
        ranked = _ranked(known, entry, following, list(dict.fromkeys(places)))
        before = ranked[0][1] if ranked else None
        if not ranked or ranked[0][0] < 2 * _HALF or not known.add(ranked[0][1]):
            doubtful.append((entry, ranked, places[0]))
    if known.directory.shift:
        # records that were cut short claim bytes of those behind them: what a checksum proves comes first
        doubtful = [
            (entry, ranked, at)
            for entry, ranked, at in doubtful
            if not entry.name.isprintable() or not _add_proven(known, ranked)
        ]
    return [entry for entry, ranked, at in doubtful if not _decide(known, entry, ranked, at)]


_Fit = tuple[int, Record]


def _ranked(known: Known, entry: Entry, following: int | None, places: Sequence[int]) -> list[_Fit]:
    """The records that ``entry`` can mean if its header is (or was) at one of ``places``, those that fit best first."""
    fits: dict[int, _Fit] = {}
    for at in places:
        for score, record in _fits(known, entry, following, at):
            # where nothing else speaks for a place, the directory's word is for the first one, if it leaves no gap
            tight = following is not None and record.end - at == following - entry.offset
            if (score or (tight and at == places[0])) and score > fits.get(record.start, (-1, record))[0]:
                fits[record.start] = score, record
    return sorted(fits.values(), key=lambda fit: -fit[0])


def _add_proven(known: Known, ranked: Iterable[_Fit]) -> bool:
    """The first of them that its checksum fits; that of no bytes fits anywhere, and proves nothing."""
    return any(
        record.size > 0
        and not known.near(record.start, record.start + record.size)
        and known.checks(record)
        and known.add(record)
        for _, record in ranked
    )


def _decide(known: Known, entry: Entry, ranked: Sequence[_Fit], at: int) -> bool:
    """Between places of which none fits wholly the checksum decides; False if it cannot."""
    if not entry.name.isprintable():
        # its name is damaged: better names may stand elsewhere
        return False
    if not ranked:
        known.lost[entry.name] = _why_lost(known, entry, at)
        # before a whole directory nothing is cut off but a head
        return at < 0 or not known.directory.whole
    free = [(score, record) for score, record in ranked if not known.near(record.start, record.start + record.size)]
    if len(free) > 1:
        return _add_proven(known, free)
    certain = bool(free) and (free[0][0] > 0 or (known.directory.whole and not known.directory.shift))
    return certain and known.add(free[0][1])


def _fits(known: Known, entry: Entry, following: int | None, at: int) -> Iterator[tuple[int, Record]]:
    """Records that ``entry`` can mean if its header is (or was) at ``at``, with how much of them agrees.

    Half of it is the header, half the descriptor. Beside a right other half, a descriptor with another checksum or a
    name with a wrong byte count for a little.
    """
    source, moved = known.source, at - entry.offset
    header = header_at(source, at)
    named = header is not None and same_but_a_byte(header.raw_name, entry.raw_name)
    starts = dict.fromkeys([header.start] if header is not None and named else [])
    starts |= dict.fromkeys(start + moved for start in _starts(known, entry, following))
    for start in starts:
        sizes = [entry.size]
        if entry.packed != entry.size:
            sizes.append(entry.packed)
        if following is not None and following + moved > start:
            sizes += [following + moved - start - width for width in (16, 24, 0)]
        for size in dict.fromkeys(sizes):
            if start < 0 or size < 0 or start + size > source.size:
                continue
            descriptor = descriptor_of(source, start, size) if size or entry.flags & HAS_DESCRIPTOR else None
            bare = descriptor is None and not descriptor_bytes_of(entry, size)
            begins = header is not None and named and header.start == start
            # without a descriptor the next record's place is the only sign of an end, and that is worked out from it
            follows = bare and begins and following is not None and start + size == following + moved
            ends = follows or (descriptor is not None and descriptor.crc == entry.crc)
            if size != entry.size and (descriptor is None or not (begins or descriptor.crc == entry.crc)):
                continue
            end = descriptor.end if descriptor is not None else start + size + descriptor_bytes_of(entry, size)
            kept = header if header is not None and (named or (ends and header.start == start)) else None
            exact = begins and header is not None and header.raw_name == entry.raw_name
            nearly = (exact and not ends and descriptor is not None) or (begins and ends and not exact)
            score = _HALF * (exact + ends) + nearly
            yield score, Record(entry.name, at, start, size, end, kept, entry, descriptor)


def descriptor_bytes_of(entry: Entry, size: int) -> int:
    """What follows ``size`` bytes of data of an entry."""
    return max(16, descriptor_bytes(entry.offset, size)) if entry.flags & HAS_DESCRIPTOR else 0


def _starts(known: Known, entry: Entry, following: int | None) -> list[int]:
    """Where an entry's data began when the file was whole, without a look at its header."""
    name = len(entry.raw_name)
    starts = [data_start(entry.offset, name, entry.size, known.alignment)] if known.by_torch else []
    if following is not None:
        start = following - descriptor_bytes_of(entry, entry.size) - entry.size
        if (
            entry.offset + HEADER_BYTES + name
            <= start
            <= entry.offset + HEADER_BYTES + name + _MAX_NAME + known.alignment
        ):
            starts.append(start)
    return starts


def _why_lost(known: Known, entry: Entry, at: int) -> str:
    start = next(iter(_starts(known, entry, None)), entry.offset) + at - entry.offset
    if start < 0:
        return "it was in the part that is missing at the start of the file"
    return f"the file ends {max(1, start + entry.size - known.source.size)} bytes too early for it"


def _shifts(known: Known, entries: Sequence[Entry]) -> list[int]:
    """By how much all may stand elsewhere than the directory says, the likeliest first."""
    shifts = [known.directory.shift or 0, 0]
    if entries and known.directory.shift is None:
        # should the directory begin with its first entry, and follow the record of its last
        last = entries[-1]
        for start in _starts(known, last, None):
            shifts.append(known.directory.start - start - last.size - descriptor_bytes_of(last, last.size))
    return list(dict.fromkeys(shifts))


def _read_alignment(known: Known, entries: Iterable[Entry], shifts: Sequence[int]) -> None:
    for entry in entries:
        if entry.name.endswith("/.storage_alignment") and 0 < entry.size < 9:
            for shift in shifts:
                header = header_at(known.source, entry.offset + shift)
                data = known.source.read(header.start, entry.size) if header is not None else b""
                if (
                    data.isdigit()
                    and int(data)
                    and known.source.crc32(header.start if header else 0, len(data)) == entry.crc
                ):
                    known.alignment = int(data)


# without a whole directory


class _Search:
    """Looks for records by what stands in the file itself. ``open`` are headers whose record's end is not found."""

    def __init__(self, known: Known, unsettled: Sequence[Entry]) -> None:
        self.known, self.unsettled = known, list(unsettled)
        self.open: dict[int, Header] = {}
        self._loose: list[Descriptor] = []
        self._seen: set[str] = set()
        self._claimed = 0
        self._moves: list[tuple[int, int]] = []
        self._heads: list[int] = []

    def walk(self, places: Iterable[int]) -> None:
        """From record to record, as far as each one's end can be told."""
        for place in places:
            at: int | None = place
            while at is not None and self.known.at(at) is None:
                header = header_at(self.known.source, at)
                at = self._by_header(header) if header is not None else None

    def scan(self) -> None:
        """Look at every byte that belongs to nothing yet."""
        self._seen = {record.name for record in self.known.records}
        for start, stop in list(self.known.gaps()):
            self._scan(start, stop)
        self.known.read_pickle()
        self._find_pickle()
        for header in list(self.open.values()):
            # sizes may have come to light
            self._by_header(header)

    def settle(self) -> None:
        """Records of which not all parts agree, or not all are there: checksums decide."""
        known = self.known
        joined = {record.entry.at for record in known.records if record.entry is not None}
        for record in known.records:
            entry = known.entry(record.name)
            if record.entry is not None or entry is None or entry.at in joined or entry.size != record.size:
                continue
            # of records with one name the directory means the one with its checksum
            if record.descriptor is None or entry.crc == record.descriptor.crc or not self._has_twin(record):
                known.replace(record, replace(record, entry=entry))
                joined.add(entry.at)
        self._moves = sorted(
            (record.entry.offset, record.at - record.entry.offset)
            for record in known.records
            if record.entry is not None and record.header is not None
        )
        self._heads = sorted({record.at for record in known.records} | {header.at for header in self.open.values()})
        self._name_by_checksum()
        placed = {record.entry.at for record in known.records if record.entry is not None}
        lacking = [entry for entry in known.entries.values() if entry.at not in placed and entry.name.isprintable()]
        for entry in [entry for entry in lacking if not self._by_checksum(entry)]:
            self._by_any_sign(entry)
        names = {record.name for record in known.records}
        for header in list(self.open.values()):
            if header.name not in names:
                self._by_size(header)
        self._by_checksums()

    def _is_filled(self, header: Header) -> bool:
        name = len(header.raw_name)
        ways = {data_start(header.at, name, size, self.known.alignment) for size in (0, MAX32)}
        return is_filling(header.extra, self.known.alignment) or header.start in ways

    def _has_twin(self, record: Record) -> bool:
        return sum(each.name == record.name for each in self.known.records) > 1

    def _by_header(self, header: Header) -> int | None:
        """Add the record behind ``header`` if its end fits what something says of its size; where that end is."""
        known = self.known
        if len(header.raw_name) > _MAX_NAME or not header.name.isprintable() or known.near(header.at, header.start + 1):
            return None
        if known.by_torch and header.flags & HAS_DESCRIPTOR and not self._is_filled(header):
            # where its data begins cannot be trusted
            return None
        self.open[header.start] = header
        entry = known.entry(header.name)
        sizes = [entry.size] if entry is not None else []
        if not header.flags & HAS_DESCRIPTOR and header.method == 0 and header.packed == header.size:
            sizes.append(header.size)
        if header.name in known.sizes:
            sizes.append(known.sizes[header.name])
        record: Record | None = None
        for size in dict.fromkeys(sizes):
            end = header.start + size
            descriptor = descriptor_of(known.source, header.start, size) if size else None
            if descriptor is not None and entry is not None and entry.size == size != 0 and descriptor.crc != entry.crc:
                continue
            if descriptor is not None or (not header.flags & HAS_DESCRIPTOR and end <= known.source.size):
                end = descriptor.end if descriptor is not None else end
                record = Record(header.name, header.at, header.start, size, end, header, None, descriptor)
                break
        else:
            record = self._search_end(header)
        if record is None or not known.add(record):
            return None
        del self.open[header.start]
        if record.name.endswith(f"/{PICKLE}"):
            known.read_pickle()
        return record.end

    def _search_end(self, header: Header) -> Record | None:
        """Of a record that is no tensor's: up to the first descriptor with its distance and the right checksum."""
        source, start = self.known.source, header.start
        folder, _, name = header.name.partition("/")
        if not header.flags & HAS_DESCRIPTOR or not folder or name not in SMALL:
            return None
        limit = MAX_PICKLE_BYTES if name == PICKLE else _MAX_SMALL
        for at, signature in signatures(source, start, min(source.size, start + limit + 4)):
            if signature == DESCRIPTOR:
                descriptor = descriptor_of(source, start, at - start)
                # 0 where the file was saved without checksums
                if descriptor is not None and descriptor.crc in (0, source.crc32(start, descriptor.size)):
                    return Record(
                        header.name, header.at, start, descriptor.size, descriptor.end, header, None, descriptor
                    )
        return None

    def _scan(self, start: int, stop: int) -> None:
        source = self.known.source
        hits = signatures(source, start, stop)
        hit = next(hits, None)
        while hit is not None:
            at, signature = hit
            jump: int | None = None
            if signature == HEADER:
                header = header_at(source, at)
                jump = self._header_found(header) if header is not None else None
            elif signature == DESCRIPTOR:
                self._end_found(at)
            elif signature == ENTRY and (entry := entry_at(source, at)) is not None:
                self.known.learn(entry)
            if len(self.open) + len(self._loose) + len(self.known.entries) > 3 * MAX_ENTRIES:
                reason = "no model has so many records"
                raise UnsafeCheckpointError(source.path, "a million zip headers", reason)
            try:
                hit = hits.send(jump)
            except StopIteration:
                hit = None

    def _header_found(self, header: Header) -> int | None:
        """What a header brings; from where on to look further, if not right behind it."""
        if header.start <= self._claimed and header.name in self._seen:
            # a name that was there before, in what a tensor may reach over: a torch file stored in that tensor
            return self._claimed
        self._seen.add(header.name)
        end = self._by_header(header)
        if end is None and header.start in self.open:
            self._claimed = max(self._claimed, header.start + self.known.sizes.get(header.name, 0))
        return end

    def _find_pickle(self) -> None:
        """The pickle without its name or header: the first record, if a checksum proves it and it reads as one."""
        known = self.known
        prefix = prefix_of([*known.names(), *(header.name for header in self.open.values())])
        if known.contents is not None or not prefix:
            return
        records = known.records[:1]
        first = records[0].start if records else known.source.size
        for descriptor in self._loose:
            start = descriptor.at - descriptor.size
            if 0 <= start < first and not known.near(start, descriptor.end):
                records.append(Record("", start, start, descriptor.size, descriptor.end, descriptor=descriptor))
        for record in records:
            data = any(f"/{DATA}" in name for name in record.witnesses)
            if not data and known.checks(record) and known.take_for_pickle(record, prefix):
                if record.witnesses:
                    known.replace(record, None)
                known.add(replace(record, name=f"{prefix}/{PICKLE}", note="recognised by what it holds"))
                return

    def _end_found(self, at: int) -> None:
        known = self.known
        for descriptor in descriptors_at(known.source, at):
            header = self.open.get(at - descriptor.size)
            if header is None:
                self._loose.append(descriptor)
                continue
            start, size = header.start, descriptor.size
            record = Record(header.name, header.at, start, size, descriptor.end, header, None, descriptor)
            inside = known.near(start, descriptor.end)
            if inside and not known.checks(record):
                continue
            for each in inside:
                # what a whole record holds is its contents: a torch file stored in a tensor
                known.replace(each, None)
            known.add(record)
            del self.open[start]

    def _name_by_checksum(self) -> None:
        """Records whose content the directory knows, perhaps under another name: then that counts, if it is sound."""
        known = self.known
        taken = {record.entry.at for record in known.records if record.entry is not None}
        lacking: dict[tuple[int, int], list[Entry]] = {}
        for entry in known.entries.values():
            if entry.at not in taken and entry.size:
                lacking.setdefault((entry.size, entry.crc), []).append(entry)
        for record in known.records:
            meant = lacking.get((record.size, record.checksums[0]), []) if record.checksums else []
            if record.entry is not None or len(meant) != 1:
                continue
            entry = meant.pop()
            if entry.name == record.name or entry.name not in known.sizes or known.entry(entry.name) is not entry:
                known.replace(record, replace(record, entry=entry))
            elif known.entry(record.name) is not None or record.name not in known.sizes:
                # what the header names has other content, or is no name at all
                note = "named by its checksum in the directory"
                known.replace(record, replace(record, name=entry.name, header=None, entry=entry, note=note))
            else:
                known.replace(record, replace(record, name="", header=None))

    def _by_checksum(self, entry: Entry) -> bool:
        """An entry whose own place does not hold its record: wherever its checksum fits."""
        if not _add_proven(self.known, ((0, record) for record in self._places(entry))):
            return False
        self.known.lost.pop(entry.name, None)
        return True

    def _by_any_sign(self, entry: Entry) -> None:
        """What stands behind its header, or at its place, is what became of it: its checksum will say so."""
        known = self.known
        for record in self._places(entry):
            damaged = known.sizes.get(entry.name, entry.size) != entry.size
            if not damaged and (record.header is not None or known.directory.whole) and known.add(record):
                known.lost.pop(entry.name, None)
                return
        known.lost.setdefault(entry.name, "its bytes are not where they should be, nor anywhere else")

    def _places(self, entry: Entry) -> list[Record]:
        """Where its record may be: behind a header of its name, before its descriptor, or moved with its neighbours."""
        known = self.known
        places: dict[int, Record] = {}
        for header in self.open.values():
            if header.name == entry.name:
                end = header.start + entry.size + descriptor_bytes_of(entry, entry.size)
                behind = descriptor_of(known.source, header.start, entry.size)
                places[header.start] = Record(
                    entry.name, header.at, header.start, entry.size, end, header, entry, behind
                )
        for descriptor in self._loose:
            if (descriptor.size, descriptor.crc) == (entry.size, entry.crc):
                start = descriptor.at - descriptor.size
                places[start] = Record(entry.name, start, start, entry.size, descriptor.end, None, entry, descriptor)
        for shift in self._nearest_shifts(entry):
            for _, record in _fits(known, entry, None, entry.offset + shift):
                places.setdefault(record.start, record)
        return [record for start, record in places.items() if 0 <= start <= known.source.size - record.size]

    def _nearest_shifts(self, entry: Entry) -> list[int]:
        """By how much the records before and behind an entry's have moved."""
        place = bisect_left(self._moves, (entry.offset, 0))
        nearest = [shift for _, shift in self._moves[max(0, place - 1) : place + 2]]
        return list(dict.fromkeys([*nearest, self.known.directory.shift or 0]))

    def _by_size(self, header: Header) -> None:
        """A record with a header of which only the pickle tells the size: its end is lost, cut off, or moved."""
        known, start = self.known, header.start
        size = known.sizes.get(header.name)
        if size is None or known.entry(header.name) is not None:
            return
        if start + size > known.source.size:
            known.lost[header.name] = f"the file ends {start + size - known.source.size} bytes too early for it"
            return
        end = start + size + (descriptor_bytes(header.at, size) if header.flags & HAS_DESCRIPTOR else 0)
        record = Record(header.name, header.at, start, size, min(end, known.source.size), header, note=_NO_CHECKSUM)
        place = bisect_left(self._heads, header.at + 1)
        following = self._heads[place] if place < len(self._heads) else known.source.size
        # not so far that it could be the next one's, its own being lost
        moved = [
            each
            for each in self._loose
            if each.size == size and start < each.at < following and abs(each.at - start - size) < size
        ]
        if moved:
            # bytes were added or lost behind its header: only right before this could that do no harm
            record = replace(record, descriptor=moved[0], note="")
            if not known.checks(record):
                known.lost[header.name] = "bytes were added to it, or lost from it"
                return
        known.add(record)

    def _by_checksums(self) -> None:
        """Records that only a descriptor tells of: their headers are overwritten or cut off."""
        known = self.known
        for descriptor in self._loose:
            start = descriptor.at - descriptor.size
            if start < 0 or not descriptor.size or known.near(start, descriptor.end):
                continue
            if known.source.crc32(start, descriptor.size) == descriptor.crc:
                known.add(Record("", start, start, descriptor.size, descriptor.end, descriptor=descriptor))


# by the order of writing


def _by_neighbours(known: Known) -> None:
    """Records without header and entry, from the ends of their neighbours and the sizes in the pickle."""
    if known.contents is None or not known.by_torch:
        return
    order = writing_order([storage.key for storage in known.contents.storages], known.prefix, known.records)
    index = {name: place for place, name in enumerate(order)}
    records: list[Record | None] = [None, *known.records, None]
    last = -1
    for before, after in pairwise(records):
        if before is not None:
            last = index.get(before.name, last if before.name else len(order))
        stop = len(order) if after is None else index.get(after.name, len(order))
        if last + 1 < stop:
            left = _fill(known, before, after, order[last + 1 : stop])
            if after is not None and after.name in index:
                _fill_backwards(known, before, after, left)


def _fill(known: Known, before: Record | None, after: Record | None, names: Sequence[str]) -> list[str]:
    """Place records behind ``before``; one stays if its descriptor is there, or the next known record follows."""
    at = before.end if before is not None else 0
    waiting: list[Record] = []
    for place, name in enumerate(names):
        size = known.sizes[name]
        start = data_start(at, len(name.encode()), size, known.alignment)
        if start + size > (after.at if after is not None else known.source.size):
            return list(names[place - len(waiting) :])
        descriptor = descriptor_of(known.source, start, size) if size else None
        note = _BY_NEIGHBOURS if descriptor is not None or not size else f"{_BY_NEIGHBOURS}; {_NO_CHECKSUM}"
        end = start + size + descriptor_bytes(at, size)
        waiting.append(Record(name, at, start, size, end, descriptor=descriptor, note=note))
        at = end
        if descriptor is not None or (after is not None and at == after.at):
            for record in waiting:
                known.add(record)
            waiting.clear()
    return list(names[len(names) - len(waiting) :])


def _fill_backwards(known: Known, before: Record | None, after: Record, names: Sequence[str]) -> None:
    """Place records before ``after``, as far as their descriptors are there."""
    for name in reversed(names):
        size = known.sizes[name]
        found = (descriptor_of(known.source, after.at - width - size, size) for width in (16, 24))
        descriptor = next((each for each in found if each is not None and each.end == after.at), None)
        if not size or descriptor is None or descriptor.at - size < (before.end if before is not None else 0):
            return
        # its header began somewhere before its data; where does not matter to anything
        start = descriptor.at - size
        after = Record(name, start, start, size, descriptor.end, descriptor=descriptor, note=_BY_NEIGHBOURS)
        if not known.add(after):
            return


def _drop_misplaced_headers(known: Known) -> None:
    """Where bytes are missing, one record's header may be followed by another's data, which the directory knows."""
    for record in known.records:
        header, entry = record.header, record.entry
        if header is None or entry is None or header.name == entry.name:
            continue
        other = known.entry(header.name)
        if other is not None and other.at != entry.at and known.entry(entry.name) is entry:
            known.replace(record, replace(record, header=None))


def _name(known: Known) -> None:
    """Settle names that are in doubt."""
    _drop_misplaced_headers(known)
    records = known.records
    prefix = known.prefix or prefix_of(known.names())
    known.prefix = prefix
    if not known.by_torch:
        return
    keys = [storage.key for storage in known.contents.storages] if known.contents is not None else []
    order = writing_order(keys, prefix, records)
    for old, new in zip(records, settle_names(records, order, known.sizes, prefix, known.alignment), strict=True):
        if old != new:
            known.replace(old, new)
