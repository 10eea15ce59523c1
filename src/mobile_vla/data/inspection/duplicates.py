"""Episodes that are there twice, and scenes on two sides of the split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobile_vla.data.inspection.findings import Finding, Grade, Thresholds
from mobile_vla.data.inspection.trace import Seen, Trace
from mobile_vla.data.schema import EXTRA_SCENE_SEED
from mobile_vla.data.split import Split

MAX_BITS = 6
"""In which the hashes of two pictures may differ."""
LENGTH_SHARE = 0.1


def parts_of(split: Split | None) -> dict[int, str]:
    """The part of each episode; empty without a split."""
    if split is None:
        return {}
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {index: name for name, members in parts.items() for index in members}


def of_scenes(traces: Sequence[Trace], parts: Mapping[int, str]) -> Iterator[Finding]:
    """One scene seed in two parts of the split."""
    places: dict[str | int | float, dict[str, int]] = defaultdict(dict)
    for trace in traces:
        seed = trace.record.extras.get(EXTRA_SCENE_SEED)
        if seed is not None and trace.index in parts:
            places[seed].setdefault(parts[trace.index], trace.index)
    for seed, found in places.items():
        if len(found) > 1:
            where = " and ".join(f"{part} (episode {index})" for part, index in found.items())
            what = f"scene {seed} is in {where}"
            remedy = "the figures of the test would flatter: divide again with mobile-vla data split --again"
            yield Finding(Grade.ERROR, "split", what, remedy, max(found.values()))


def of_duplicates(traces: Sequence[Seen], parts: Mapping[int, str], limits: Thresholds) -> Iterator[Finding]:
    """Episodes with the pictures and actions of an earlier one, to the byte or almost."""
    first: dict[str, Seen] = {}
    single: list[Seen] = []
    for trace in traces:
        earlier = first.setdefault(trace.pictures.digest, trace)
        if earlier is trace:
            single.append(trace)
        else:
            yield _finding(earlier, trace, parts, exactly=True)
    for one, two in _near(single, limits):
        yield _finding(one, two, parts, exactly=False)


def _near(traces: Sequence[Seen], limits: Thresholds) -> Iterator[tuple[Seen, Seen]]:
    """Each later episode that is almost an earlier one, with the first such."""
    if len(traces) < 2:
        return
    hashes = np.stack([_hash(trace) for trace in traces])
    lengths = np.array([trace.record.length for trace in traces])
    for place in range(1, len(traces)):
        bits = np.bitwise_count(hashes[:place] ^ hashes[place]).reshape(place, 3, -1).sum(axis=2)
        alike = (bits <= MAX_BITS).all(axis=1)
        alike &= np.abs(lengths[:place] - lengths[place]) <= np.maximum(1, LENGTH_SHARE * lengths[place])
        for earlier in np.flatnonzero(alike):
            if _almost(traces[int(earlier)], traces[place], limits):
                yield traces[int(earlier)], traces[place]
                break


def _almost(one: Seen, two: Seen, limits: Thresholds) -> bool:
    levels = np.abs(one.pictures.sketches.astype(np.int16) - two.pictures.sketches).mean(axis=(1, 2, 3))
    actions = float(np.abs(one.motion.sketch - two.motion.sketch).mean())
    return bool((levels < limits.duplicate_levels).all()) and actions < limits.duplicate_share


def _hash(trace: Seen) -> NDArray[np.uint8]:
    """Of the three pictures: whether each field is brighter than its neighbour (dHash), packed, uint8 (24,)."""
    grey = trace.pictures.sketches.astype(np.int16).sum(axis=3)
    return np.packbits((np.diff(grey, axis=2) > 0).reshape(3, -1), axis=1).reshape(-1)


def _finding(earlier: Trace, later: Trace, parts: Mapping[int, str], exactly: bool) -> Finding:
    alike = "the same pictures and actions as" if exactly else "almost the same pictures and actions as"
    words = "" if earlier.record.instruction == later.record.instruction else ", under other words"
    what = f"it has {alike} episode {earlier.index}{words}"
    one, two = parts.get(earlier.index), parts.get(later.index)
    if one is not None and two is not None and one != two:
        remedy = "remove one of the two: the split tells nothing while both sides have it"
        return Finding(Grade.ERROR, "duplicate", f"{what}; one is in {one}, the other in {two}", remedy, later.index)
    remedy = "remove one, unless it is meant to count twice"
    return Finding(Grade.WARNING if exactly else Grade.NOTE, "duplicate", what, remedy, later.index)
