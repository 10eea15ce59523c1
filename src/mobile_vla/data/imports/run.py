"""An import from beginning to end: read all numbers, refuse what does not fit, then write what is not there yet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ConfigError, DatasetError
from mobile_vla.core.provenance import git_commit, machine
from mobile_vla.data import folding, schema
from mobile_vla.data.imports.bag import BagSource
from mobile_vla.data.imports.contents import Contents, Counter, SourceEpisode, quiet
from mobile_vla.data.imports.hdf5 import Hdf5Source
from mobile_vla.data.imports.lerobot import LerobotSource
from mobile_vla.data.imports.mapping import ImportMapping
from mobile_vla.data.store import HOUSE_PATH, EpisodeRecord, House, require_ours_or_empty
from mobile_vla.data.writer import EpisodeWriter

KEY, MAPPING, SOURCE = "import.key", "import.mapping", "import.source"
CLIPPED, LEFT_OUT = "import.clipped_frames", "import.left_out"


class Source(Protocol):
    """A kind of source, opened."""

    @property
    def contents(self) -> Contents:
        """What it holds."""
        ...

    def episodes(self, mapping: ImportMapping) -> Iterator[SourceEpisode]:
        """Its episodes; ConfigError or DatasetError for what does not fit."""
        ...


KINDS: Mapping[str, Callable[[Path], Source]] = {"lerobot": LerobotSource, "hdf5": Hdf5Source, "bag": BagSource}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """``imported`` now, ``already_there`` from before; the rest counts frames of what was imported now."""

    root: Path
    imported: int
    already_there: int
    frames: int
    clipped: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def open_source(path: Path, kind: str) -> Source:
    """ConfigError for an unknown ``kind``, DatasetError when ``path`` is no such source."""
    if kind not in KINDS:
        raise ConfigError(f"there is no kind of source called {kind!r}: write {', '.join(KINDS)}")
    if not path.exists():
        raise DatasetError(f"there is nothing at {path}: give the place of a source")
    return KINDS[kind](path)


def import_data(path: Path, kind: str, out: Path, values: Mapping[str, Any], count: Counter = quiet) -> ImportReport:
    """Write the episodes of the source at ``path`` into the data set ``out``, new or to be continued.

    ``values`` is a mapping as ``read_mapping`` gives it. All numbers are read and checked before the first episode is
    written. An episode that an earlier run brought is not brought again, so an interrupted import is run again.
    ConfigError for a mapping that does not answer or fit, DatasetError for a source that cannot be imported or was
    imported under another mapping, ContractMismatchError when ``out`` has another contract.
    """
    source = open_source(path, kind)
    mapping = ImportMapping.of(values, source.contents)
    require_ours_or_empty(out)
    there: dict[str, str] = {}
    if (out / HOUSE_PATH).exists():
        House.read(out).contract.require_same(mapping.contract, str(out), "the mapping")
        there = _there(folding.recover(out))
    due: list[SourceEpisode] = []
    already = 0
    for number, episode in enumerate(source.episodes(mapping)):
        count("reading the numbers", number, source.contents.episodes)
        if episode.key in there:
            _require_same_mapping(there[episode.key], mapping, episode, out)
            already += 1
            continue
        there[episode.key] = mapping.digest
        due.append(episode)
    if due:
        _write(due, mapping, out, _metadata(path, kind, values, mapping), count)
    left_out: dict[str, int] = {}
    for episode in due:
        for reason, frames in episode.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + frames
    return ImportReport(
        out,
        len(due),
        already,
        sum(len(episode.sequence) for episode in due),
        sum(episode.clipped for episode in due),
        left_out,
    )


def _write(
    due: Sequence[SourceEpisode], mapping: ImportMapping, out: Path, metadata: Mapping[str, Any], count: Counter
) -> None:
    shape = _first_shape(due[0])
    with EpisodeWriter(out, mapping.contract, shape, metadata) as writer:
        for number, episode in enumerate(due):
            count("writing", number, len(due))
            with writer.episode(episode.instruction, _extras(episode, mapping)) as recording:
                pictures = _paired(episode, shape, out)
                for place, pixels in enumerate(pictures):
                    recording.add(
                        {
                            schema.IMAGE_FRONT: pixels,
                            schema.STATE: episode.states[place],
                            schema.ACTION: episode.actions[place],
                            schema.ACTION_CHUNK: episode.chunks[place],
                            schema.CAPTURE_NS: episode.capture_ns[place],
                            schema.SEQUENCE: episode.sequence[place],
                        }
                    )
        count("writing", len(due), len(due))


def _first_shape(episode: SourceEpisode) -> tuple[int, int, int]:
    for pixels in episode.pictures():
        height, width, channels = pixels.shape
        return height, width, channels
    raise DatasetError(f"{episode.name} has no picture: leave it out")


def _paired(episode: SourceEpisode, shape: tuple[int, int, int], out: Path) -> Iterator[NDArray[np.uint8]]:
    """The pictures, as many as there are numbers and all of one size."""
    length, found = len(episode.sequence), 0
    with ExitStack() as stack:
        pictures = episode.pictures()
        if close := getattr(pictures, "close", None):
            stack.callback(close)
        for pixels in pictures:
            if pixels.shape != shape:
                raise DatasetError(
                    f"{episode.name} has pictures of {pixels.shape[1]}x{pixels.shape[0]} and {out} holds "
                    f"{shape[1]}x{shape[0]}: import it into another folder (pictures are never resized)"
                )
            if found == length:
                break
            found += 1
            yield pixels
    if found != length:
        raise DatasetError(f"{episode.name} has {found} of its {length} pictures: it is cut off, leave it out")


def _extras(episode: SourceEpisode, mapping: ImportMapping) -> dict[str, str | int | float | bool | None]:
    extras = {**episode.extras, **mapping.extras, SOURCE: episode.name, KEY: episode.key, MAPPING: mapping.digest}
    if episode.clipped:
        extras[CLIPPED] = episode.clipped
    if episode.left_out:
        extras[LEFT_OUT] = ", ".join(f"{frames} frames: {reason}" for reason, frames in episode.left_out.items())
    extras["import.state"] = "measured" if mapping.states is not None else "the action before"
    return extras


def _there(records: Sequence[EpisodeRecord]) -> dict[str, str]:
    """Mapping by key, of the imported episodes among ``records``."""
    return {str(record.extras[KEY]): str(record.extras.get(MAPPING)) for record in records if KEY in record.extras}


def _require_same_mapping(before: str, mapping: ImportMapping, episode: SourceEpisode, out: Path) -> None:
    if before != mapping.digest:
        raise DatasetError(
            f"{out} holds {episode.name} already, imported under another mapping: choose another folder, "
            "or go on with the mapping of then (its sessions in meta/mobile_vla.json have it)"
        )


def _metadata(path: Path, kind: str, values: Mapping[str, Any], mapping: ImportMapping) -> dict[str, Any]:
    return {
        "command": "data import",
        "source": str(path.resolve()),
        "kind": kind,
        "mapping": dict(values),
        "mapping_hash": mapping.digest,
        "clock": mapping.stamps,
        "git_commit": git_commit(),
        "machine": machine(),
    }
