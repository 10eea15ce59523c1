"""Recording. An episode is durable when its ``with`` block ends; until then nothing of it is on the disk."""

import difflib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import simplejpeg
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

from mobile_vla import __version__
from mobile_vla.core import ActionContract, DatasetError, Instruction
from mobile_vla.data import folding, images, table
from mobile_vla.data.schema import IMAGE_FRONT, Feature, all_features, recorded_features
from mobile_vla.data.stats import ImageHistogram
from mobile_vla.data.store import (
    HOUSE_PATH,
    EpisodeRecord,
    Extras,
    House,
    Journal,
    exclusive,
    require_ours_or_empty,
    serialise,
    write_durably,
)

MIN_FREE_BYTES = 512 * 2**20
FOLD_EVERY = 500
"""Episodes between two foldings, so that opening after a crash has little to catch up with."""


class EpisodeWriter:
    """Records into ``root``, a new folder or a data set to be continued; one writer a folder.

    ``image_shape`` is (height, width, 3). ``metadata`` tells where this session's data come from (renderer, clock,
    seed, git commit, grammar split hash, ...) and must be plain JSON. DatasetError when the folder holds something
    else, is being written by another process, or has less than ``min_free_bytes`` left; ContractMismatchError when it
    was recorded under another contract.
    """

    def __init__(
        self,
        root: str | Path,
        contract: ActionContract,
        image_shape: tuple[int, int, int],
        metadata: Mapping[str, Any],
        min_free_bytes: int = MIN_FREE_BYTES,
    ) -> None:
        self.root = Path(root)
        self.contract = contract
        self.image_shape = image_shape
        self._min_free_bytes = min_free_bytes
        self._features = all_features(contract, image_shape)
        self._recording = False
        self._stack = ExitStack()
        try:
            self._open(metadata)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, metadata: Mapping[str, Any]) -> None:
        require_ours_or_empty(self.root)
        _require_json("the metadata of a recording", metadata)
        house = House(self.contract, self.image_shape, ({**versions(), **metadata},))
        if (self.root / HOUSE_PATH).exists():
            known = House.read(self.root)
            known.require_same(house, str(self.root), "this recording")
            house = replace(known, sessions=known.sessions + house.sessions)
        self.root.mkdir(parents=True, exist_ok=True)
        self._require_space()
        self._stack.enter_context(exclusive(self.root))
        house.write(self.root)
        self._house = house
        self._journal = Journal(self.root)
        self._stack.callback(self._journal.close)
        self._task_numbers: dict[str, int] = {}
        for record in self._journal.records:
            self._task_numbers.setdefault(record.instruction, record.task_index)
        self._stats = folding.caught_up(self.root, house, self._journal.records)

    @property
    def total_episodes(self) -> int:
        """Episodes that are safe on the disk, of all sessions."""
        return len(self._journal.records)

    @property
    def total_frames(self) -> int:
        """Frames that are safe on the disk, of all sessions."""
        return self._journal.records[-1].to_index if self._journal.records else 0

    @contextmanager
    def episode(self, instruction: str, extras: Mapping[str, str | int | float | bool | None]) -> Iterator["Recording"]:
        """Record one episode; it is committed at the end of the block unless discarded, empty, or left by an exception.

        InstructionError for words nobody could follow; DatasetError when the disk is nearly full.
        """
        if self._recording:
            raise DatasetError("an episode is being recorded already: end it before the next begins")
        self._require_space()
        _require_json("the instruction", instruction)
        recording = Recording(Instruction(instruction).text, dict(extras), self.contract, self.image_shape)
        self._recording = True
        try:
            yield recording
            if recording.length and not recording.discarded:
                self._commit(recording)
        finally:
            self._recording = False

    def finalise(self) -> None:
        """Bring LeRobot's meta files up to date; ``close`` does so too."""
        folding.fold(self.root, self._house, self._journal.records, self._stats)

    def close(self) -> None:
        """Finalise and let go of the folder."""
        with self._stack:
            self.finalise()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self, recording: "Recording") -> None:
        task_index = self._task_numbers.get(recording.instruction, len(self._task_numbers))
        record = EpisodeRecord(
            episode_index=self.total_episodes,
            from_index=self.total_frames,
            length=recording.length,
            instruction=recording.instruction,
            task_index=task_index,
            session=len(self._house.sessions) - 1,
            extras=recording.extras,
        )
        columns = recording.columns() | table.bookkeeping(record, self.contract.frame_rate_hz)
        payload = serialise(table.to_table(self._features, columns, recording.jpegs), record)
        record = replace(record, size_bytes=len(payload), sha256=sha256(payload).hexdigest())
        write_durably(self.root / record.path, payload)
        self._journal.append(record)
        self._task_numbers[record.instruction] = task_index
        self._stats.update(columns, recording.histogram)
        if self.total_episodes % FOLD_EVERY == 0:
            self.finalise()

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.root).free
        if free < self._min_free_bytes:
            raise DatasetError(
                f"only {free / 2**20:.0f} MiB are free for {self.root}, and recording keeps "
                f"{self._min_free_bytes / 2**20:.0f} MiB: make room or choose another disk; "
                "all recorded episodes are safe"
            )


class Recording:
    """The episode being recorded, in memory with its images already coded."""

    def __init__(
        self, instruction: str, extras: Extras, contract: ActionContract, image_shape: tuple[int, int, int]
    ) -> None:
        _require_json("what is noted beside an episode", extras)
        self.instruction = instruction
        self.extras = extras
        self.discarded = False
        self.jpegs: list[bytes] = []
        self.histogram = ImageHistogram()
        self._image_shape = image_shape
        self._features = [feature for feature in recorded_features(contract, image_shape) if not feature.is_image]
        self._names = {IMAGE_FRONT, *(feature.name for feature in self._features)}
        self._rows: dict[str, list[NDArray[Any]]] = {feature.name: [] for feature in self._features}

    @property
    def length(self) -> int:
        """Frames so far."""
        return len(self.jpegs)

    def add(self, frame: Mapping[str, ArrayLike]) -> None:
        """One frame under the names of ``schema``; labels may be left out.

        DatasetError naming the key when one is unknown, missing, of the wrong shape, or not finite where it must be;
        the episode is as it was before.
        """
        for name in frame:
            if name not in self._names:
                near = difflib.get_close_matches(name, self._names, 1)
                raise DatasetError(f"a frame has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        pixels = np.asarray(_given(frame, IMAGE_FRONT))
        if pixels.dtype != np.uint8 or pixels.shape != self._image_shape:
            raise DatasetError(
                f"{IMAGE_FRONT} must be RGB uint8 {self._image_shape}, got {pixels.dtype} {pixels.shape}"
            )
        row = [_checked(feature, frame) for feature in self._features]
        jpeg = images.encode(pixels)
        self.histogram.add(self.length, pixels)
        for feature, values in zip(self._features, row, strict=True):
            self._rows[feature.name].append(values)
        self.jpegs.append(jpeg)

    def note(self, **extras: str | int | float | bool | None) -> None:
        """Add what is known only later, such as the outcome."""
        _require_json("what is noted beside an episode", extras)
        self.extras.update(extras)

    def discard(self) -> None:
        """Leave this episode out when its block ends."""
        self.discarded = True

    def columns(self) -> dict[str, NDArray[Any]]:
        """What was recorded beside the images, (T,) or (T, width)."""
        return {
            feature.name: np.concatenate(self._rows[feature.name]).reshape(
                (-1,) if feature.width == 1 else (-1, feature.width)
            )
            for feature in self._features
        }


def versions() -> dict[str, str]:
    """Of what decides the bytes of a data file."""
    return {
        "mobile_vla": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
        "simplejpeg": simplejpeg.__version__,
    }


def _require_json(what: str, values: object) -> None:
    """Now, rather than when the episode is to be saved."""
    try:
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{what} must be plain JSON: {error}") from error


def _given(frame: Mapping[str, ArrayLike], name: str) -> ArrayLike:
    if name not in frame:
        raise DatasetError(f"a frame needs {name!r}")
    return frame[name]


def _checked(feature: Feature, frame: Mapping[str, ArrayLike]) -> NDArray[Any]:
    """A copy of shape (width,)."""
    if feature.default is not None and feature.name not in frame:
        return np.full(feature.width, feature.default, dtype=feature.dtype)
    try:
        values = np.array(_given(frame, feature.name), dtype=feature.dtype).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{feature.name} must be numbers of type {feature.dtype}: {error}") from error
    if values.size != feature.width:
        raise DatasetError(f"{feature.name} must hold {feature.width} numbers, got {values.size}")
    if feature.finite and not np.isfinite(values).all():
        raise DatasetError(f"{feature.name} must be finite, got {values.tolist()}")
    return values
