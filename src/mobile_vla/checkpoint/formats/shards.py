"""Checkpoints in several files beside each other, as Hugging Face writes them, with or without their index.

The index (``model.safetensors.index.json``) maps names of tensors to names of files; the files' own names count them
(``model-00002-of-00003.safetensors``).
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mobile_vla.checkpoint.formats.kinds import identify
from mobile_vla.checkpoint.formats.texts import printable
from mobile_vla.checkpoint.layout import DTYPE_BYTES, Format, Layout, Problem, Scalar, Tensor
from mobile_vla.core import CheckpointError, DamagedCheckpointError, UnsafeCheckpointError

INDEX_SUFFIX = ".index.json"
MAX_INDEX_BYTES = 64 * 2**20

_NUMBERED = re.compile(
    r"(?P<stem>.+)-(?P<number>\d{1,9})-of-(?P<total>\d{1,9})(?P<suffix>(?:\.\w+)*\.(?:safetensors|bin|pt|pth|ckpt))"
)
_MOST_SHARDS = 10_000
_NO_CHECKSUM = "the index of the shards has no checksum; it was compared with what the shards themselves say"


@dataclass(frozen=True, slots=True)
class Numbered:
    """Files that count each other: ``files`` maps numbers to paths, ``total`` is how many there should be."""

    stem: str
    suffix: str
    total: int
    files: Mapping[int, Path]

    @property
    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        first = 0 if 0 in self.files else 1
        digits = len(re.findall(r"\d+", next(iter(self.files.values())).name)[-1])
        numbers = [number for number in range(first, first + self.total) if number not in self.files]
        return [f"{self.stem}-{number:0{digits}d}-of-{self.total:0{digits}d}{self.suffix}" for number in numbers]


def survey(folder_or_index: Path, survey_file: Callable[[Path], Layout]) -> Layout:
    """All shards' layouts as one, with what index, file names and shards say differently of each other.

    ``survey_file`` reads one shard. Tensors of a missing shard are in ``Problem.tensors``: their types and shapes are
    lost with it. CheckpointError when there are no shards; UnsafeCheckpointError for an index that leads elsewhere.
    """
    try:
        layout, others = _survey(folder_or_index, survey_file)
    except OSError as error:
        raise CheckpointError(f"{folder_or_index} cannot be read: {error.strerror}") from error
    if others:
        hint = f"beside it lies another set, which was not looked at: {_names(others)}"
        layout = replace(layout, unknowable=(*layout.unknowable, hint))
    return layout


def _survey(path: Path, survey_file: Callable[[Path], Layout]) -> tuple[Layout, list[str]]:
    """The layout, and the names of other sets beside it."""
    index, others = _index_of(path)
    if index is None:
        found = numbered_sets(path)
        if not found:
            raise CheckpointError(f"{path} holds neither an index of shards nor shards")
        others = [f"{one.stem}-*-of-{one.total}{one.suffix}" for one in found[1:]]
        return _by_numbers(path, found[0], survey_file, "there is no index"), others
    try:
        values = read_index(index)
    except DamagedCheckpointError as error:
        found = [one for one in numbered_sets(index.parent) if f"{one.suffix}." in index.name]
        if not found:
            raise
        return _by_numbers(path, found[0], survey_file, f"{index.name} is damaged: {error.damage}"), others
    return _by_index(path, index, values, survey_file), others


def read_index(path: Path) -> dict[str, Any]:
    """The index with a ``weight_map`` from names to names.

    DamagedCheckpointError when it is no index; UnsafeCheckpointError for a name that leads out of the folder.
    """
    try:
        size = path.stat().st_size
        if size > MAX_INDEX_BYTES:
            raise DamagedCheckpointError(path, f"an index of {size} bytes; {MAX_INDEX_BYTES} are the most read")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        kind = identify(path)
        what = f"no JSON ({error})" if kind.format else kind.what
        raise DamagedCheckpointError(path, what) from error
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedCheckpointError(path, "it has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str):
            raise DamagedCheckpointError(path, f"its weight_map holds {name!r} where the name of a file belongs")
        if name.startswith("/") or ".." in name.split("/") or re.search(r"[\\\0]", name):
            raise UnsafeCheckpointError(path, repr(name), "its weight_map leads out of its folder")
    return dict(values)


def numbered_sets(folder: Path) -> list[Numbered]:
    """Sets of files in ``folder`` that count each other; safetensors first, then the most complete, then by name."""
    groups: dict[tuple[str, str, int], dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := _NUMBERED.fullmatch(path.name)) and 0 < int(match["total"]) <= _MOST_SHARDS:
            key = match["stem"], match["suffix"], int(match["total"])
            if int(match["number"]) <= key[2]:
                groups.setdefault(key, {})[int(match["number"])] = path
    sets = [Numbered(stem, suffix, total, files) for (stem, suffix, total), files in groups.items()]
    return sorted(sets, key=lambda one: (one.suffix != ".safetensors", len(one.missing) / one.total, one.stem))


def _index_of(path: Path) -> tuple[Path | None, list[str]]:
    """The index to go by, and the names of others beside it; safetensors and short names (no variant) first."""
    if not path.is_dir():
        return path, []
    found = sorted(path.glob(f"*{INDEX_SUFFIX}"), key=lambda p: (".safetensors." not in p.name, len(p.name), p.name))
    return (found[0], [other.name for other in found[1:]]) if found else (None, [])


def _by_numbers(path: Path, shards: Numbered, survey_file: Callable[[Path], Layout], damage: str) -> Layout:
    layouts, problems = _survey_all(shards.files.values(), survey_file, {})
    problems.insert(0, Problem(f"{damage}: what the shards hold can be told from themselves alone", harmless=True))
    if shards.missing:
        problems.append(Problem(f"missing: {_names(shards.missing)}; what was in there is not known"))
    tensors, doubts = [], _Doubts()
    for name, places in _holders(layouts).items():
        if len(places) == 1:
            tensors.append(next(iter(places.values())))
        else:
            doubts.add(name, f"stands in {_names(places)}, and nothing says which is right", costs_it=True)
    problems += doubts.problems()
    return _joined(path, _format(shards.suffix), tensors, layouts.values(), problems, ())


def _by_index(path: Path, index: Path, values: Mapping[str, Any], survey_file: Callable[[Path], Layout]) -> Layout:
    weight_map: dict[str, str] = values["weight_map"]
    mapped: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        mapped.setdefault(file, []).append(name)
    # an index is no shard, and a folder may lead back here
    plain = {file: names for file, names in mapped.items() if "/" not in file and not file.endswith((".json", "."))}
    plain.pop("", None)
    layouts, problems = _survey_all((index.parent / file for file in sorted(plain)), survey_file, mapped)
    for file in mapped.keys() - plain.keys():
        problems.append(Problem(f"the index names {file!r}, which can be no shard", tuple(mapped[file])))
    for file in _strangers(layouts, weight_map):
        what = f"{file} belongs to another checkpoint: the index knows no tensor in it"
        problems.append(Problem(what, tuple(mapped[file])))
        del layouts[file]
    holders = _holders(layouts)
    tensors, doubts = [], _Doubts()
    for name, places in holders.items():
        if (tensor := _choose(name, places, weight_map.get(name), doubts)) is not None:
            tensors.append(tensor)
    problems += doubts.problems()
    tensors += _unnamed_shards(index, mapped, survey_file, holders)
    for file in layouts:
        if astray := [name for name in mapped[file] if name not in holders]:
            what = f"the index seeks {_names(astray)} in {file}, which does not hold it"
            problems.append(Problem(what, tuple(astray)))
    problems += _extra_files(index, mapped)
    problems += _wrong_sums(values, tensors) if len(tensors) == len(weight_map) else []
    form = _format(next(iter(mapped)))
    return _joined(path, form, tensors, layouts.values(), problems, (_NO_CHECKSUM,))


def _survey_all(
    files: Iterable[Path], survey_file: Callable[[Path], Layout], mapped: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Layout], list[Problem]]:
    """Layouts of the shards that can be read, by name; a problem for each other, and each of theirs with its name."""
    layouts, problems = {}, []
    for file in files:
        lost = tuple(mapped.get(file.name, ()))
        if not file.is_file():
            what = "no file" if file.exists() else "missing"
            problems.append(Problem(f"{_names([file.name])} is {what}", lost))
            continue
        try:
            layout = survey_file(file)
        except UnsafeCheckpointError:
            raise
        except CheckpointError as error:
            problems.append(Problem(f"{file.name}: {error}", lost))
        else:
            layouts[file.name] = layout
            problems += [replace(each, what=f"{file.name}: {each.what}") for each in layout.problems]
    return layouts, problems


def _strangers(layouts: Mapping[str, Layout], weight_map: Mapping[str, str]) -> list[str]:
    """Shards that hold tensors, but none of a name that the index knows."""
    return [
        file
        for file, layout in layouts.items()
        if layout.tensors and not any(tensor.name in weight_map for tensor in layout.tensors)
    ]


def _holders(layouts: Mapping[str, Layout]) -> dict[str, dict[str, Tensor]]:
    """For each name the shards that hold a tensor of it."""
    holders: dict[str, dict[str, Tensor]] = {}
    for file, layout in layouts.items():
        for tensor in layout.tensors:
            holders.setdefault(tensor.name, {})[file] = tensor
    return holders


class _Doubts:
    """Where index and shards differ on a tensor: names of the tensors by what is said of them."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, bool], list[str]] = {}

    def add(self, name: str, what: str, *, costs_it: bool = False) -> None:
        self._names.setdefault((what, costs_it), []).append(name)

    def problems(self) -> list[Problem]:
        return [
            Problem(f"{_names(names)} {what}", tuple(names) if costs_them else ())
            for (what, costs_them), names in self._names.items()
        ]


def _choose(name: str, places: Mapping[str, Tensor], sought: str | None, doubts: _Doubts) -> Tensor | None:
    """The tensor that the index means, or the only one of its name; None where two could be meant."""
    if sought is not None and sought in places:
        if others := [file for file in places if file != sought]:
            doubts.add(name, f"stands not only in {sought}, where the index seeks it, but in {_names(others)} too")
        return places[sought]
    where = "does not know it" if sought is None else f"seeks it in {sought}"
    alone = len(places) == 1
    doubts.add(name, f"stands in {_names(places)}, and the index {where}", costs_it=not alone)
    return next(iter(places.values())) if alone else None


def _extra_paths(index: Path, mapped: Collection[str]) -> list[Path]:
    """Numbered files that look like shards of this index, which does not name them."""
    stems = {(match["stem"], match["suffix"]) for name in mapped if (match := _NUMBERED.fullmatch(name))}
    return [
        path
        for one in numbered_sets(index.parent)
        for path in one.files.values()
        if (one.stem, one.suffix) in stems and path.name not in mapped
    ]


def _unnamed_shards(
    index: Path, mapped: Collection[str], survey_file: Callable[[Path], Layout], holders: Collection[str]
) -> list[Tensor]:
    """Tensors of shards that the index does not name: perhaps it lost a line, perhaps they are another checkpoint's."""
    layouts, _ = _survey_all(_extra_paths(index, mapped), survey_file, {})
    note = "its shard is not named by the index: the index may have lost a line, or the shard be another checkpoint's"
    return [
        replace(tensor, run=replace(tensor.run, checksum=None), note=note, doubtful=True)
        for layout in layouts.values()
        for tensor in layout.tensors
        if tensor.name not in holders and tensor.run is not None
    ]


def _extra_files(index: Path, mapped: Collection[str]) -> list[Problem]:
    extra = [path.name for path in _extra_paths(index, mapped)]
    return [Problem(f"named like shards, but unknown to the index: {_names(extra)}", harmless=True)] if extra else []


def _wrong_sums(values: Mapping[str, Any], tensors: Sequence[Tensor]) -> list[Problem]:
    """What the index says beside its map and the tensors do not bear out: no tensor hangs on it."""
    problems = []
    metadata = values.get("metadata", {})
    if unknown := [key for key in values if key not in {"metadata", "weight_map"}]:
        problems.append(f"the index holds {_names(map(repr, unknown))}, which belongs to no index")
    if not isinstance(metadata, dict):
        return [Problem(each, harmless=True) for each in (*problems, "the index has no metadata")]
    size, elements = sum(t.size for t in tensors), sum(t.size // DTYPE_BYTES[t.dtype] for t in tensors)
    # torch counts tensors that share bytes once
    shared = sum({(t.run, t.start, t.size): t.size for t in tensors}.values())
    for key, sums in (("total_size", {size, shared}), ("total_parameters", {elements})):
        if key in metadata and metadata[key] not in sums:
            problems.append(f"the index says {key} {metadata[key]!r}, its tensors have {min(sums)}")
        problems += [f"{other!r} in the index should be {key!r}" for other in metadata if _nearly(key, other)]
    return [Problem(each, harmless=True) for each in problems]


def _nearly(key: str, other: str) -> bool:
    return len(key) == len(other) and sum(a != b for a, b in zip(key, other, strict=True)) == 1


def _joined(
    path: Path,
    form: Format,
    tensors: Sequence[Tensor],
    layouts: Iterable[Layout],
    problems: Sequence[Problem],
    unknowable: Sequence[str],
) -> Layout:
    parts = list(layouts)
    metadata: dict[str, Scalar] = {}
    for part in reversed(parts):
        metadata |= part.metadata
    sentences = dict.fromkeys([*unknowable, *(each for part in parts for each in part.unknowable)])
    runs = tuple(dict.fromkeys(run for part in parts for run in part.runs))
    return Layout(path, form, tuple(tensors), runs, tuple(problems), tuple(sentences), metadata)


def _format(name: str) -> Format:
    return Format.SAFETENSORS_SHARDS if name.endswith(".safetensors") else Format.TORCH_SHARDS


def _names(names: Iterable[str]) -> str:
    """The first few, then how many more."""
    known = [printable(name) for name in names]
    shown = ", ".join(known[:3])
    return shown if len(known) <= 3 else f"{shown} and {len(known) - 3} more"
