"""Bring together what several processes recorded, each into a folder of its own."""

import errno
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mobile_vla.core import DatasetError
from mobile_vla.data import folding, table
from mobile_vla.data.reader import find_damage
from mobile_vla.data.schema import NUMBERED_BY_PLACE
from mobile_vla.data.store import (
    HOUSE_PATH,
    JOURNAL_PATH,
    EpisodeRecord,
    House,
    Journal,
    data_path,
    exclusive,
    read_journal,
    require_ours_or_empty,
    serialise,
    sync_folder,
    write_durably,
)

SHARD = "shard"
CONTENT = "shard_content"
"""Keys that a merged session has besides its own."""


@dataclass(frozen=True, slots=True)
class MergeReport:
    """``moved`` files kept their bytes; ``renumbered`` ones were written again around the same JPEG files.

    ``present`` episodes were in the data set already, from an earlier merge.
    """

    moved: int
    renumbered: int
    total_episodes: int
    present: int = 0


def merge_shards(root: str | Path, shards: Sequence[str | Path], keep: bool = False) -> MergeReport:
    """Append the episodes of ``shards``, in order, to the data set at ``root`` (a new folder, or one to be continued).

    A file whose numbers stay the same is moved; the others are written again with new numbers around the same JPEG
    files. The shards are deleted once all of them are durable in ``root``. With ``keep`` all are written again, and
    nothing is changed in a shard. Run again, after a crash for one, it goes on where it was: no episode comes twice
    from a shard of the same name. DatasetError when a shard is missing, damaged or, without ``keep``, in use;
    ContractMismatchError when contracts differ.
    """
    root, folders = Path(root), [Path(shard) for shard in shards]
    if len({folder.resolve() for folder in (root, *folders)}) != 1 + len(folders):
        raise DatasetError(f"{root} and its shards must be different folders, got {', '.join(map(str, folders))}")
    if len({folder.name for folder in folders}) != len(folders):
        raise DatasetError(f"shards must have different names, got {', '.join(map(str, folders))}")
    due = [folder for folder in folders if keep or not _is_leftover(root, folder)]
    houses = [House.read(folder) for folder in due]
    require_ours_or_empty(root)
    known = (root / HOUSE_PATH).exists()
    ours, name = (House.read(root), root) if known or not houses else (houses[0], due[0])
    for folder, house in zip(due, houses, strict=True):
        ours.require_same(house, str(name), str(folder))
    if not known:
        replace(ours, sessions=()).write(root)
    with exclusive(root), ExitStack() as stack:
        merge = _Merge(root, stack, keep)
        for folder, house in zip(due, houses, strict=True):
            merge.take(folder, house)
        folding.fold(root, merge.house, merge.journal.records, merge.stats)
    for folder in folders:
        if folder.exists() and not keep:
            shutil.rmtree(folder)
    return MergeReport(merge.moved, merge.renumbered, len(merge.journal.records), merge.present)


def _is_leftover(root: Path, shard: Path) -> bool:
    """An earlier run took the shard in and was cut off while it deleted the folder."""
    if (shard / HOUSE_PATH).exists() or not (root / HOUSE_PATH).exists():
        return False
    return any(session.get(SHARD) == shard.name for session in House.read(root).sessions)


class _Merge:
    """One run of ``merge_shards``, while it holds the root."""

    def __init__(self, root: Path, stack: ExitStack, keep: bool) -> None:
        self.root, self.keep = root, keep
        self.house = House.read(root)
        self.journal = Journal(root)
        stack.callback(self.journal.close)
        self.stats = folding.caught_up(root, self.house, self.journal.records)
        self.moved = self.renumbered = self.present = 0
        self._tasks: dict[str, int] = {}
        for record in self.journal.records:
            self._tasks.setdefault(record.instruction, record.task_index)

    def take(self, shard: Path, house: House) -> None:
        """All episodes of one shard that are not here yet."""
        if self.keep:
            records, _ = read_journal(shard)
            if (shard / data_path(len(records))).exists():
                raise DatasetError(
                    f"the last recording into {shard} was cut off: have it mended first (mobile-vla data stats {shard})"
                )
            self._take(shard, house, records)
            return
        with exclusive(shard):
            listed = Journal(shard)
            listed.close()
            self._take(shard, house, listed.records)

    def _take(self, shard: Path, house: House, records: Sequence[EpisodeRecord]) -> None:
        due = self._missing(shard, records)
        self.present += len(records) - len(due)
        damaged = next(find_damage(shard, due, thoroughly=False), None)
        if damaged is not None:
            raise DatasetError(f"{damaged.path}: {damaged.what}; restore the file or record the shard again")
        first_session = self._first_session(shard, house)
        whole = folding.caught_up(shard, house, records) if len(due) == len(records) else None
        for record in due:
            self._place(shard, record, first_session)
        if whole is None:
            self.stats = folding.caught_up(self.root, self.house, self.journal.records)
        else:
            self.stats.merge(whole)

    def _missing(self, shard: Path, records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
        """Those that no earlier, interrupted run brought here; a file moved just before a crash bears no origin yet."""
        origins = {ours.origin for ours in self.journal.records}
        hashes = {ours.sha256 for ours in self.journal.records}
        return [
            record
            for record in records
            if _origin(shard, record) not in origins
            and not (record.sha256 in hashes and not (shard / record.path).exists())
        ]

    def _first_session(self, shard: Path, house: House) -> int:
        """Where the shard's sessions stand among ours; they are added the first time."""
        for place, session in enumerate(self.house.sessions):
            if session.get(SHARD) == shard.name and session.get(CONTENT) == _content(shard):
                return place
        place = len(self.house.sessions)
        added = tuple({**session, SHARD: shard.name, CONTENT: _content(shard)} for session in house.sessions)
        self.house = replace(self.house, sessions=self.house.sessions + added)
        self.house.write(self.root)
        return place

    def _place(self, shard: Path, record: EpisodeRecord, first_session: int) -> None:
        source = shard / record.path
        placed = replace(
            record,
            episode_index=len(self.journal.records),
            from_index=self.journal.records[-1].to_index if self.journal.records else 0,
            task_index=self._tasks.get(record.instruction, len(self._tasks)),
            session=first_session + record.session,
        )
        target = self.root / placed.path
        if placed == record and not self.keep and _moved(source, target):
            self.moved += 1
        else:
            placed = self._renumber(source, target, record, replace(placed, origin=_origin(shard, record)))
            self.renumbered += 1
        self.journal.append(replace(placed, origin=_origin(shard, record)))
        self._tasks[placed.instruction] = placed.task_index
        if not self.keep:
            source.unlink(missing_ok=True)

    def _renumber(self, source: Path, target: Path, record: EpisodeRecord, placed: EpisodeRecord) -> EpisodeRecord:
        payload = source.read_bytes()
        if sha256(payload).hexdigest() != record.sha256:
            raise DatasetError(f"{source} is not what was written; restore the file or record the shard again")
        content = pq.read_table(pa.BufferReader(payload))
        numbers = table.bookkeeping(placed, self.house.contract.frame_rate_hz)
        for name in NUMBERED_BY_PLACE:
            content = content.set_column(content.column_names.index(name), name, pa.array(numbers[name]))
        written = serialise(content, replace(placed, size_bytes=0, sha256=""))
        write_durably(target, written)
        return replace(placed, size_bytes=len(written), sha256=sha256(written).hexdigest())


def _origin(shard: Path, record: EpisodeRecord) -> str:
    return f"{shard.name}:{record.episode_index}:{record.sha256[:16]}"


def _content(shard: Path) -> str:
    """Tells two shards of one name apart."""
    return sha256((shard / HOUSE_PATH).read_bytes() + (shard / JOURNAL_PATH).read_bytes()).hexdigest()[:16]


def _moved(source: Path, target: Path) -> bool:
    """Move a file within one file system; False when the two lie on different ones."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(target.parent.parent)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    sync_folder(target.parent)
    return True
