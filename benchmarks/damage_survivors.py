"""What a good salvage must bring back of a damaged checkpoint, from what is known of the damage alone.

Asked for is what a patient person with the file, the format's description and a calculator could still prove or place,
whether or not our code can: checksums that survive anywhere, names that survive anywhere, arithmetic over sizes. By
arithmetic alone no tensor of zeros is due: nothing tells it from a lost block.
"""

from enum import IntEnum

from damage_corpus import Case, Keep
from damage_pristine import Truth
from damage_structure import Kind, Region


class Due(IntEnum):
    """What must come back of a tensor."""

    NOTHING = 0
    BYTES = 1
    """Its proven bytes, without a name."""
    RECOVERED = 2
    """By name, bit for bit, proven or not."""
    PROVEN = 3
    """By name, bit for bit, with the checksum that proves it."""


Spot = tuple[str, int]
"""A file of the damaged checkpoint, and by how many bytes the piece has moved there."""


def due(case: Case, truth: Truth, templated: bool) -> Due:
    """``templated``: a whole checkpoint of the same architecture is at hand."""
    match case.pristine.kinds[truth.file]:
        case Kind.ZIP:
            found = _of_a_zip(case, truth, templated)
            # a changed index can strike a tensor from the set: a reader may then doubt that it belongs there
            return found if _unchanged(case, Kind.INDEX) else min(found, Due.RECOVERED)
        case Kind.LEGACY:
            return _of_legacy(case, truth)
        case _:
            return _of_safetensors(case, truth, templated)


def only_an_end_is_lost(case: Case, truth: Truth) -> bool:
    """Nothing is changed or in between: sizes alone tell for each tensor whether and where it is left."""
    file = truth.file if truth.file in case.files else case.target
    match case.files.get(file):
        case (Keep(start=start, end=end),):
            return start == 0 or end == len(case.pristine.files[truth.file])
        case _:
            return False


def checksum_survives(case: Case, truth: Truth) -> bool:
    """A wrong tensor under this name could have been told from a right one."""
    match case.pristine.kinds[truth.file]:
        case Kind.ZIP:
            parts = [("central entry", truth.label), ("descriptor", truth.label)]
            return any(_moved(case, truth.file, _region(case, truth.file, label, part)) for part, label in parts)
        case Kind.SELF_PROVING:
            return _manifest(case) or bool(_header(case, truth.file))
        case _:
            return False


def _moved(case: Case, file: str, *regions: Region | None) -> set[Spot]:
    """Where the stretch from the first to the last of ``regions`` survives in one piece, in files a reader looks at."""
    if None in regions:
        return set()
    start, end = regions[0].start, regions[-1].end
    looked_at = {case.target} if case.target != "." else set(case.pristine.files)
    return {(name, at - start) for name, at in case.spots(file, start, end) if name in looked_at}


def _region(case: Case, file: str, label: str, part: str) -> Region | None:
    return next((r for r in case.pristine.regions[file] if r.label == label and r.part == part), None)


# torch zip ------------------------------------------------------------------------------------------------------------


class _Record:
    """What is left of one record of a torch zip: its data, and what tells of them."""

    def __init__(self, case: Case, file: str, label: str) -> None:
        regions = {r.part: r for r in case.pristine.regions[file] if r.label == label}
        data = regions["data"]
        entry = _moved(case, file, regions["central entry"])
        end = _moved(case, file, _region(case, file, "end", "end record"))
        self.data = _moved(case, file, data)
        named_by_header = _moved(case, file, regions["header"], data)
        described = _moved(case, file, data, regions["descriptor"]) if "descriptor" in regions else set()
        # an entry of the directory says where its record was; the end record, by how much all has moved
        listed = {
            (name, by)
            for name, by in self.data
            if any(name == other and (by == 0 or (by == moved and (name, moved) in end)) for other, moved in entry)
        }
        listed |= {spot for spot in named_by_header if any(spot[0] == name for name, _ in entry)}
        self.proven = described | listed
        self.named = named_by_header | listed
        self.in_place = {spot for spot in self.data if spot[1] == 0}


def _of_a_zip(case: Case, truth: Truth, templated: bool) -> Due:
    prefix = next(r.label for r in case.pristine.regions[truth.file] if r.label.endswith("/data.pkl"))
    pickle = _Record(case, truth.file, prefix)
    names_known = bool(pickle.proven & (pickle.named | pickle.in_place))
    if truth.start == truth.end:
        return Due.RECOVERED if names_known else Due.NOTHING
    record = _Record(case, truth.file, truth.label)
    if names_known and record.proven & record.named:
        return Due.PROVEN
    if names_known and (record.named or (record.in_place and any(truth.data))):
        return Due.RECOVERED
    if templated and record.proven & record.named:
        return Due.PROVEN
    return Due.BYTES if record.proven else Due.NOTHING


# torch before 1.6 -----------------------------------------------------------------------------------------------------


def _of_legacy(case: Case, truth: Truth) -> Due:
    """The pickles of objects and keys give names, sizes and order; each storage begins with its count."""
    file, regions = truth.file, case.pristine.regions[truth.file]
    pickles = {region.label: region for region in regions if region.part == "pickle"}
    starts = {spot for spot in _moved(case, file, pickles["objects"], pickles["keys"]) if spot[1] == 0}
    starts = starts or _moved(case, file, pickles["magic"], pickles["keys"])
    if not starts or truth.start == truth.end:
        return Due.RECOVERED if starts else Due.NOTHING
    counts = [region for region in regions if region.part == "count"]
    size = len(case.pristine.files[file])
    after = next((region for region in counts if region.start >= truth.end), Region("", "", size, size))
    spots = _moved(case, file, Region("", "", truth.start, after.end))
    # otherwise bytes came in or went somewhere between two counts, and nothing tells where
    sure = {name for name in case.files if case.length(name) == size or _moved_as_one(case, name)}
    spots |= {spot for spot in _moved(case, file, Region("", "", truth.start, truth.end)) if spot[0] in sure}
    own = next(region for region in counts if region.label == truth.label)
    to_the_end = _moved(case, file, own, Region("", "", size, size))
    at_the_end = {(name, by) for name, by in to_the_end if by == case.length(name) - size}
    return Due.RECOVERED if spots & starts or at_the_end else Due.NOTHING


# safetensors ----------------------------------------------------------------------------------------------------------


def _of_safetensors(case: Case, truth: Truth, templated: bool) -> Due:
    header = _header(case, truth.file)
    size = len(case.pristine.files[truth.file])
    spots = _moved(case, truth.file, Region(truth.label, "", truth.start, truth.end))
    proves_itself = case.pristine.kinds[truth.file] is Kind.SELF_PROVING
    if _manifest_of_another(case):
        return Due.NOTHING
    if proves_itself and (_manifest(case) or header):
        if truth.start == truth.end:
            return Due.PROVEN
        known = {(name, by) for name, by in spots if by in (0, case.length(name) - size) or _moved_as_one(case, name)}
        return Due.PROVEN if known else Due.NOTHING
    if header:
        return Due.RECOVERED if truth.start == truth.end or spots & header else Due.NOTHING
    entry = _moved(case, truth.file, _region(case, truth.file, truth.label or truth.name, "entry"))
    in_place = {(name, by) for name, by in spots | entry if by == 0 and case.length(name) == size}
    if in_place & entry and (truth.start == truth.end or (any(truth.data) and in_place & spots)):
        return Due.RECOVERED
    # names and sizes from a template, or from the entries of a header that lost its first bytes
    entries = [region for region in case.pristine.regions[truth.file] if region.part == "entry"]
    listed = set.intersection(*(_moved(case, truth.file, region) for region in entries))
    if (templated or any(by < 0 for _, by in listed)) and any(truth.data) and spots & _from_the_end(case, truth):
        return Due.RECOVERED
    return Due.NOTHING


def _from_the_end(case: Case, truth: Truth) -> set[Spot]:
    """Where the sizes of all tensors put this one, counted back from the end of a file that lost its header."""
    size = len(case.pristine.files[truth.file])
    first = min(region.start for region in case.pristine.regions[truth.file] if region.part == "data")
    found = set()
    for name in case.files:
        moved = case.length(name) - size
        needed = Region("", "", first if moved > 0 else truth.start, size if moved else truth.end)
        found |= {spot for spot in _moved(case, truth.file, needed) if spot == (name, moved)}
    return found


def _header(case: Case, file: str) -> set[Spot]:
    """Where the whole header survives; at the start of a file, if it does there."""
    length = _region(case, file, "header", "length")
    spots = _moved(case, file, length, _region(case, file, "header", "text"))
    return {spot for spot in spots if spot[1] == 0} or spots


def _moved_as_one(case: Case, file: str) -> bool:
    """All that is left of the file has moved by one distance."""
    at, moves = 0, set()
    for piece in case.files[file]:
        if isinstance(piece, Keep):
            moves.add(at - piece.start)
        at += len(piece) if isinstance(piece, bytes) else piece.end - piece.start
    return len(moves) == 1


def _manifest(case: Case) -> bool:
    return Kind.MANIFEST in case.pristine.kinds.values() and _unchanged(case, Kind.MANIFEST)


def _manifest_of_another(case: Case) -> bool:
    """One that is whole and denies what is there: nobody can say which of the two is the wrong one."""
    return any(
        kind is Kind.MANIFEST and file in case.files and case.content(file) == case.pristine.sibling[file]
        for file, kind in case.pristine.kinds.items()
    )


def _unchanged(case: Case, kind: Kind) -> bool:
    files = [file for file, each in case.pristine.kinds.items() if each is kind]
    return all(file in case.files and case.content(file) == case.pristine.files[file] for file in files)
