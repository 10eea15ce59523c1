"""Zip files made to be read in two ways, or to exhaust or mislead their reader.

Damage changes one place. What is refused here stands in two places alike (local header and directory, or two intact
entries), so no damage made it. Where only one place says so, the file is damaged, and is dealt with as such.
"""

from mobile_vla.checkpoint.formats.record_names import same_but_a_byte
from mobile_vla.checkpoint.formats.zip_directory import Directory
from mobile_vla.checkpoint.formats.zip_parts import HAS_DESCRIPTOR, Entry, Header, Source, descriptor_of, header_at
from mobile_vla.core import UnsafeCheckpointError

_ENCRYPTED = 1 | 1 << 6 | 1 << 13


def refuse_tricks(source: Source, directory: Directory) -> None:
    """UnsafeCheckpointError that names the trick."""
    intact: list[tuple[Entry, Header]] = []
    names = {entry.raw_name for entry in directory.entries}
    for entry in directory.entries:
        header = header_at(source, entry.offset + (directory.shift or 0))
        if header is None:
            continue
        if header.raw_name == entry.raw_name:
            intact.append((entry, header))
        elif header.raw_name in names and directory.whole and not directory.shift:
            # where bytes are missing an entry may well point to its neighbour's header
            _refuse_two_names(source, entry, header)
    for entry, header in intact:
        _refuse_name(source, entry.name)
        _refuse_packed(source, entry, header)
    _refuse_twice(source, intact)
    _refuse_overlaps(source, intact)


def _refuse(source: Source, trick: str, reason: str) -> None:
    raise UnsafeCheckpointError(source.path, trick, reason)


def _refuse_two_names(source: Source, entry: Entry, header: Header) -> None:
    """Both names mean something and are far apart, and all else about the entry is right."""
    alike = (header.flags, header.method, header.version, header.stamp)
    expected = (entry.flags, entry.method, entry.version, entry.stamp)
    folders = {name.partition("/")[0] for name in (header.name, entry.name)}
    sound = len(folders) == 1 and header.name.isprintable() and entry.name.isprintable()
    if alike != expected or not sound or same_but_a_byte(header.raw_name, entry.raw_name):
        return
    if entry.size and entry.flags & HAS_DESCRIPTOR:
        descriptor = descriptor_of(source, header.start, entry.size)
        if descriptor is None or descriptor.crc != entry.crc:
            return
    elif (header.size, header.crc) != (entry.size, entry.crc):
        return
    if source.crc32(header.start, entry.size) == entry.crc:
        _refuse(
            source,
            f"an entry with two names, {entry.name!r} and {header.name!r}",
            "programs would disagree on what it holds",
        )


def _refuse_name(source: Source, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\\" in name or parts[0].endswith(":"):
        _refuse(source, f"an entry named {name!r}", "it names a place outside of the archive")
    if not name.isprintable():
        _refuse(source, f"an entry named {name!r}", "its name holds characters that cannot be seen")


def _refuse_packed(source: Source, entry: Entry, header: Header) -> None:
    if entry.flags & header.flags & _ENCRYPTED:
        _refuse(source, f"the encrypted entry {entry.name!r}", "torch never encrypts")
    if entry.method and entry.method == header.method:
        _refuse(
            source, f"the compressed entry {entry.name!r}", "torch stores its records as they are; pack them anew so"
        )
    sizes = entry.packed, entry.size
    if entry.packed != entry.size and sizes == (header.packed, header.size):
        _refuse(
            source, f"the entry {entry.name!r} of two sizes, {sizes[0]} and {sizes[1]} bytes", "only one can be true"
        )


def _refuse_twice(source: Source, intact: list[tuple[Entry, Header]]) -> None:
    places: dict[str, int] = {}
    folders: dict[str, str] = {}
    for entry, _ in intact:
        if places.setdefault(entry.name, entry.offset) != entry.offset:
            _refuse(source, f"two entries named {entry.name!r}", "programs would disagree on which one counts")
        folder, inner, _ = entry.name.partition("/")
        if inner:
            folders.setdefault(folder, entry.name)
    if len(folders) > 1:
        first, second, *_ = folders.values()
        _refuse(
            source, f"two archives in one, with {first!r} and {second!r}", "programs would disagree on which one counts"
        )


def _refuse_overlaps(source: Source, intact: list[tuple[Entry, Header]]) -> None:
    """Both entries with their own header and their own true checksum."""
    before: tuple[Entry, Header] | None = None
    filled = [(entry, header) for entry, header in intact if entry.size]
    for entry, header in sorted(filled, key=lambda pair: pair[1].at):
        if before is not None and header.at != before[1].at:
            known, inside = before
            if header.at < inside.start + known.size and header.start + entry.size <= source.size:
                both = [source.crc32(h.start, e.size) == e.crc for e, h in (before, (entry, header))]
                if all(both):
                    _refuse(source, f"{entry.name!r} inside of {known.name!r}", "entries that overlap")
        if before is None or header.start + entry.size > before[1].start + before[0].size:
            before = entry, header
