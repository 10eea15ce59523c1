"""Names of a torch file's records, where the file says two things or nothing: the order of writing decides."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from mobile_vla.checkpoint.formats.torch_records import DATA, HEADER_BYTES, PICKLE, Record

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
_AROUND = 4
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
    records: Sequence[Record], order: Sequence[str], sizes: Mapping[str, int], prefix: str, alignment: int
) -> list[Record]:
    """The records with the names that their order leaves no doubt of; "" where doubt remains.

    A name that header and directory agree on stands. Others must be of the size that the pickle gives (``sizes``) and
    fit the records that touch them; a record without any sound name gets that of its place. Of two that differ and
    claim one name neither keeps it.
    """
    if all(record.sure for record in records):
        return list(records)
    index = {name: place for place, name in enumerate(order)}
    small = {f"{prefix}/{name}" for name in SMALL}
    chains: list[list[Record]] = []
    for record in records:
        alone = record.name in small or (record.sure and record.name not in index)
        if chains and not alone and chains[-1][-1].name not in small and _touch(chains[-1][-1], record):
            chains[-1].append(record)
        else:
            chains.append([record])
    widest = max((record.start - record.at for record in records if record.header is not None), default=0)
    settled: list[Record] = []
    for chain in chains:
        before = settled[-1] if settled else None
        if before is None or not HEADER_BYTES <= chain[0].start - before.end <= widest:
            # more than a header, lost, can lie between them
            before = None
        settled += _settle_chain(chain, before, order, index, sizes, small, alignment)
    settled = _without_joints(settled, index, len(order), small)
    # copies of one record would make strays of those between them
    return _keep_one(_without_strays(_keep_one(settled, differing=False), index), differing=True)


def labels(records: Sequence[Record], prefix: str) -> list[str]:
    """Names, and "<prefix>/data/?" for records without one, or "<prefix>/?" for those that stand beside the data."""
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
    chain: Sequence[Record],
    before: Record | None,
    order: Sequence[str],
    index: Mapping[str, int],
    sizes: Mapping[str, int],
    small: Collection[str],
    alignment: int,
) -> list[Record]:
    """Names for records that touch one another, and perhaps follow ``before``: each by those around it."""
    firsts = [[index[name] - place for name in record.witnesses if name in index] for place, record in enumerate(chain)]
    if not any(firsts) and before is not None and before.name in index:
        firsts[0] = [index[before.name] + 1]
    # data begin at multiples of the alignment, by whatever all of them have moved
    steps = {each.start % alignment for each in [*chain, *([before] if before else [])] if each.header is not None}
    settled = []
    for place, record in enumerate(chain):
        in_step = steps == {record.start % alignment}
        if record.sure or not order or record.name in small:
            settled.append(record)
            continue
        around = firsts[max(0, place - _AROUND) : place + _AROUND + 1]
        votes = Counter(first for said in around for first in said)
        most = max(votes.values(), default=0)
        best = [first for first, count in votes.items() if count == most]
        own = [first for first in firsts[place] if first in best]
        first = own[0] if len(own) == 1 else best[0] if len(best) == 1 else len(order)
        expected = order[first + place] if 0 <= first + place < len(order) else ""
        if sizes.get(expected, record.size) != record.size:
            expected = ""
        if expected in ("", record.name, *record.witnesses):
            settled.append(replace(record, name=expected))
        elif any(name in index for name in record.witnesses) or not in_step:
            # a sound name at a place that is another's: bytes are missing before it, or its name is damaged
            settled.append(replace(record, name=""))
        else:
            settled.append(replace(record, name=expected, note="; ".join(filter(None, (record.note, BY_PLACE)))))
    return settled


def _touch(before: Record, after: Record) -> bool:
    """The second begins where the first ends."""
    return before.end == after.at and (after.header is not None or after.entry is not None)


def _without_joints(
    records: Sequence[Record], index: Mapping[str, int], count: int, small: Collection[str]
) -> list[Record]:
    """Take back names of single witnesses before a record that should not follow them.

    Bytes are missing there, perhaps from behind the header of the first up to the data of another.
    """
    kept = list(records)
    for place, (first, second) in enumerate(pairwise(records)):
        called = second.name or _believable(second, records[place + 2 : place + 3], index)
        following = count if called in small else index.get(called)
        if first.name not in index or following is None or first.end != second.at or first.sure:
            continue
        if index[first.name] + 1 != following:
            kept[place] = replace(first, name="")
    return kept


def _believable(record: Record, behind: Sequence[Record], index: Mapping[str, int]) -> str:
    """A name in the file for a record that was left without one, if the record behind it goes on from there."""
    said = {index[name]: name for name in record.witnesses if name in index}
    goes_on = {index[name] - 1 for each in behind if each.at == record.end for name in each.witnesses if name in index}
    return next((name for place, name in said.items() if place in goes_on), "")


def _without_strays(records: Sequence[Record], index: Mapping[str, int]) -> list[Record]:
    """Take back names of single witnesses that stand out of order between names that are sure."""
    anchors = [
        (place, index[record.name]) for place, record in enumerate(records) if record.sure and record.name in index
    ]
    if any(before > after for (_, before), (_, after) in pairwise(anchors)):
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
    """Positions of the longest subsequence that never falls."""
    tails: list[int] = []
    tail_at: list[int] = []
    before: list[int] = []
    for position, number in enumerate(numbers):
        place = bisect_right(tails, number)
        before.append(tail_at[place - 1] if place else -1)
        tails[place : place + 1] = [number]
        tail_at[place : place + 1] = [position]
    chosen: set[int] = set()
    position = tail_at[-1] if tail_at else -1
    while position >= 0:
        chosen.add(position)
        position = before[position]
    return chosen


def _keep_one(records: Sequence[Record], differing: bool) -> list[Record]:
    """Of records with one name and one content the sure one keeps it, or the first; of ``differing`` ones, none."""
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
            if record is not keeper and (keeper is not None or differing):
                record = replace(record, name="")
        kept.append(record)
    return kept


def _breaks(order: Sequence[str], present: Sequence[str]) -> int:
    """How often records follow one another that do not in ``order``."""
    index = {name: place for place, name in enumerate(order)}
    places = [index[name] for name in present if name in index]
    return sum(after != before + 1 for before, after in pairwise(places))
