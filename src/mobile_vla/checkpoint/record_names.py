"""Names of a torch file's records, where the file says two things or nothing: the order of writing decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mobile_vla.checkpoint.torch_records import DATA, HEADER_BYTES, PICKLE, Record

SMALL = (
    PICKLE,
    "version",
    "byteorder",
    ".format_version",
    ".storage_alignment",
    ".data/serialization_id",
    ".data/version",
)
"""Records beside the tensors' data."""
BY_PLACE = "named by its place among the others"


def same_but_a_byte(first: bytes, second: bytes) -> bool:
    """Two names that damage alone can have made of one."""
    return len(first) == len(second) and sum(a != b for a, b in zip(first, second, strict=True)) <= 1


def writing_order(keys: Sequence[str], prefix: str, records: Sequence[Record]) -> list[str]:
    """Names of the data records as torch wrote them: as met in the pickle or, before 2.0, sorted as text.

    Without ``keys`` (the pickle is lost) by number, if they are small numbers.
    """
    present = [record.name for record in records if record.name.startswith(f"{prefix}/{DATA}")]
    if not keys:
        numbers = [
            int(key) for name in present if (key := name[len(prefix) + 1 + len(DATA) :]).isdecimal() and len(key) < 8
        ]
        count = max(numbers, default=-1) + 1
        if count > 100 + 10 * len(present):
            return []
        as_met = [f"{prefix}/{DATA}{number}" for number in range(count)]
    else:
        as_met = [f"{prefix}/{DATA}{key}" for key in keys]
    return min((as_met, sorted(as_met)), key=lambda order: _breaks(order, present))


def settle_names(
    records: Sequence[Record], order: Sequence[str], sizes: Mapping[str, int], prefix: str
) -> list[Record]:
    """The records with the names that their order leaves no doubt of; "" where doubt remains.

    A name that header and directory agree on stands. Others must be of the size that the pickle gives (``sizes``) and
    fit the records that touch them. Of two that differ and claim one name neither keeps it.
    """
    if all(record.sure for record in records):
        return list(records)
    index = {name: place for place, name in enumerate(order)}
    small = {f"{prefix}/{name}" for name in SMALL}
    widest = max((record.start - record.at for record in records if record.header is not None), default=0)
    settled: list[Record] = []
    chain: list[Record] = []
    for record in records:
        if record.name in small or (record.sure and record.name not in index):
            settled += [*_settle_chain(chain, order, index, sizes), record]
            chain = []
            continue
        if chain and not _touch(chain[-1], record, widest):
            settled += _settle_chain(chain, order, index, sizes)
            chain = []
        chain.append(record)
    settled += _settle_chain(chain, order, index, sizes)
    return _without_rivals(_without_strays(settled, index))


def labels(records: Sequence[Record], prefix: str) -> list[str]:
    """Names, and for records without one "<prefix>/data/?", or "<prefix>/?" for those that stand beside the tensors'."""
    small = {f"{prefix}/{name}" for name in SMALL}
    followers = small | {f"{prefix}/{DATA}0"}
    behind = ""
    behinds: list[str] = []
    for record in reversed(records):
        behind = record.name or behind
        behinds.append(behind)
    before = ""
    found: list[str] = []
    for record, behind in zip(records, reversed(behinds), strict=True):
        beside = (not before or before in small) and behind in followers
        found.append(record.name or (f"{prefix}/?" if beside else f"{prefix}/{DATA}?"))
        before = record.name or before
    return found


def _settle_chain(
    chain: Sequence[Record], order: Sequence[str], index: Mapping[str, int], sizes: Mapping[str, int]
) -> list[Record]:
    votes: Counter[int] = Counter()
    for place, record in enumerate(chain):
        for name in record.witnesses or (record.name,):
            if name in index:
                votes[index[name] - place] += 1
    ranked = votes.most_common(2)
    clear = bool(ranked) and (len(ranked) == 1 or ranked[0][1] > ranked[1][1])
    first = ranked[0][0] if clear else 0
    settled = []
    for place, record in enumerate(chain):
        if record.sure or not order:
            settled.append(record)
            continue
        expected = order[first + place] if clear and 0 <= first + place < len(order) else ""
        if expected and sizes.get(expected, record.size) != record.size:
            expected = ""
        if expected == record.name or not expected or expected in record.witnesses:
            settled.append(replace(record, name=expected))
        elif ranked[0][1] >= 2:
            settled.append(replace(record, name=expected, note="; ".join(filter(None, (record.note, BY_PLACE)))))
        else:
            settled.append(replace(record, name=""))
    return settled


def _touch(before: Record, after: Record, widest_header: int) -> bool:
    """Nothing but a header lies between them."""
    if after.header is not None or after.entry is not None:
        return before.end == after.at
    return HEADER_BYTES <= after.start - before.end <= widest_header


def _without_strays(records: Sequence[Record], index: Mapping[str, int]) -> list[Record]:
    """Take back names of single witnesses that stand out of order between names that are sure."""
    anchors = [
        (place, index[record.name]) for place, record in enumerate(records) if record.sure and record.name in index
    ]
    if any(before > after for (_, before), (_, after) in zip(anchors, anchors[1:], strict=False)):
        # another order than torch's: packed by another program
        return list(records)
    kept = list(records)
    names = [(place, index[record.name]) for place, record in enumerate(records) if record.name in index]
    longest = _longest_rise([number for _, number in names])
    for position, (place, _) in enumerate(names):
        if position not in longest and not records[place].sure:
            kept[place] = replace(records[place], name="")
    return kept


def _longest_rise(numbers: Sequence[int]) -> set[int]:
    """Positions of the longest rising subsequence; empty rises are the only ones of an empty sequence."""
    from bisect import bisect_left

    tails: list[int] = []
    tail_at: list[int] = []
    before: list[int] = []
    for position, number in enumerate(numbers):
        place = bisect_left(tails, number)
        before.append(tail_at[place - 1] if place else -1)
        tails[place : place + 1] = [number]
        tail_at[place : place + 1] = [position]
    chosen: set[int] = set()
    position = tail_at[-1] if tail_at else -1
    while position >= 0:
        chosen.add(position)
        position = before[position]
    return chosen


def _without_rivals(records: Sequence[Record]) -> list[Record]:
    """Of records with one name the sure one keeps it, or the first of equal bytes, or none."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.name, []).append(record)
    kept = []
    for record in records:
        group = groups[record.name]
        if record.name and len(group) > 1:
            sure = [each for each in group if each.sure]
            same = len({(each.size, each.checksums[:1]) for each in group}) == 1 and bool(record.checksums)
            keeper = sure[0] if len(sure) == 1 else group[0] if same else None
            if record is not keeper:
                record = replace(record, name="")
        kept.append(record)
    return kept


def _breaks(order: Sequence[str], present: Sequence[str]) -> int:
    """How often records follow one another that do not in ``order``."""
    index = {name: place for place, name in enumerate(order)}
    places = [index[name] for name in present if name in index]
    return sum(after != before + 1 for before, after in zip(places, places[1:], strict=False))
