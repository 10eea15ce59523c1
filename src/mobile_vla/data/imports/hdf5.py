"""HDF5 recordings with one episode a file, as the forerunner made them. Needs h5py (the extra ``imports``)."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobile_vla.core import ConfigError, DatasetError
from mobile_vla.data.imports.contents import Contents, Part, Role, SourceEpisode, fingerprint
from mobile_vla.data.imports.mapping import ImportMapping
from mobile_vla.data.imports.motion import (
    before,
    even_chunks,
    places_of,
    require_even_rates,
    require_finite,
    synthetic_ns,
    taken,
    velocities,
    within,
)
from mobile_vla.data.imports.pictures import ordered
from mobile_vla.data.store import Extras

SUFFIXES = (".h5", ".hdf5")
BLOCK_BYTES = 32 << 20
"""Pictures are read so much at a time: neighbours share compressed blocks, and 720p is 2.8 MB a frame."""
NOTED = 200
"""Attributes of up to so many characters are kept beside the episode."""


class Hdf5Source:
    """One file, or all ``SUFFIXES`` below a folder. DatasetError when there is none that can be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = [path] if path.is_file() else sorted(each for s in SUFFIXES for each in path.rglob(f"*{s}"))
        if not self._files:
            raise DatasetError(f"{path} is no file and has none of {', '.join(SUFFIXES)} below it: give another place")
        first = self._files[0]
        with _opened(first) as file:
            parts = _parts(file)
            attributes = {str(key): _plain(value) for key, value in file.attrs.items()}
        notes = [f"parts and attributes are those of {first.name}; every file must have those that are mapped"]
        if rate := _rate(attributes):
            notes.append(f"num_frames / total_duration of that file is {rate:.3g} Hz; source_rate_hz must be given")
        shown = {key: str(value) for key, value in attributes.items()}
        self.contents = Contents("hdf5", path, len(self._files), parts, None, shown, tuple(notes))

    def episodes(self, mapping: ImportMapping) -> Iterator[SourceEpisode]:
        """In the order of their names. ConfigError when the rates do not fit, DatasetError for what cannot be."""
        require_even_rates(mapping)
        for path in self._files:
            yield self._episode(path, mapping)

    def _episode(self, path: Path, mapping: ImportMapping) -> SourceEpisode:
        name = path.name if path == self.path else str(path.relative_to(self.path))
        rate_hz = mapping.source_rate_hz
        assert rate_hz is not None
        with _opened(path) as file:
            pictures = _dataset(file, mapping.camera, path)
            if _role(pictures) is not Role.CAMERA:
                raise DatasetError(f"{path}: {mapping.camera} is {_what(pictures)}, not uint8 (T, H, W, 3)")
            length = len(pictures)
            columns = {
                place: _numbers(file, place, path, length) for place in places_of(mapping.actions, mapping.states)
            }
            instruction = _instruction(file, path, name, mapping)
            noted: Extras = {
                f"source.{key}": value
                for key, value in ((str(key), _plain(each)) for key, each in file.attrs.items())
                if not isinstance(value, str) or len(value) <= NOTED
            }
        if not length:
            raise DatasetError(f"{path} has no frame: remove it from {self.path}")
        actions, clipped = within(name, velocities(mapping.actions, columns, length), mapping)
        frames = taken(length, mapping.every)
        if mapping.states is None:
            states = before(actions, frames)
        else:
            measured = velocities(mapping.states, columns, length)
            require_finite(name, "state", measured)
            states = measured[frames].astype(np.float32)
        return SourceEpisode(
            name=name,
            key=f"hdf5 {path.name} {fingerprint(path)}",
            instruction=instruction,
            capture_ns=synthetic_ns(frames, rate_hz),
            sequence=frames,
            actions=actions[frames].astype(np.float32),
            chunks=even_chunks(actions, frames, mapping),
            states=states,
            extras={**noted, "import.capture": f"synthetic, frame number / {rate_hz:g} Hz"},
            pictures=lambda: _pictures(path, mapping),
            clipped=clipped,
        )


def _pictures(path: Path, mapping: ImportMapping) -> Iterator[NDArray[np.uint8]]:
    with _opened(path) as file:
        data = _dataset(file, mapping.camera, path)
        step = max(1, BLOCK_BYTES // max(1, int(np.prod(data.shape[1:]))))
        for start in range(0, len(data), step):
            for place, pixels in enumerate(data[start : start + step], start):
                if place % mapping.every == 0:
                    yield ordered(pixels, mapping.channel_order)


def _instruction(file: Any, path: Path, name: str, mapping: ImportMapping) -> str:
    words = mapping.words
    if words.origin == "text":
        return words.value
    if words.origin == "file_name":
        return words.instruction(path.stem, name)
    if words.origin == "attribute":
        if words.value not in file.attrs:
            raise ConfigError(
                f"{path} has no attribute {words.value!r} for its instruction; it has {', '.join(file.attrs) or 'none'}"
            )
        return words.instruction(str(_plain(file.attrs[words.value])), name)
    found = {_text(each) for each in np.asarray(_dataset(file, words.value, path)[()]).reshape(-1).tolist()}
    if len(found) != 1:
        raise DatasetError(
            f"{path} has {len(found)} instructions in {words.value}, and an episode of ours has one: split the file"
        )
    return words.instruction(found.pop(), name)


def _parts(file: Any) -> tuple[Part, ...]:
    parts: list[Part] = []

    def note(name: str, item: Any) -> None:
        if hasattr(item, "dtype"):
            numbers = _role(item) is Role.NUMBERS
            width = item.shape[1] if numbers and item.ndim == 2 else 1
            parts.append(Part(name, _role(item), _what(item), tuple(map(str, range(width))) if numbers else ()))

    file.visititems(note)
    return tuple(parts)


def _role(item: Any) -> Role:
    if item.dtype.kind == "u" and item.dtype.itemsize == 1 and item.ndim == 4 and item.shape[3] == 3:
        return Role.CAMERA
    if item.dtype.kind in "OS":
        return Role.TEXT
    return Role.NUMBERS if item.dtype.kind in "fiu" and item.ndim in (1, 2) else Role.OTHER


def _what(item: Any) -> str:
    kind = "text" if item.dtype.kind in "OS" else str(item.dtype)
    return f"{kind} {'x'.join(map(str, item.shape)) or 'scalar'}"


def _dataset(file: Any, name: str, path: Path) -> Any:
    item = file.get(name)
    if item is None or not hasattr(item, "dtype"):
        raise DatasetError(f"{path} has no data set {name}; it has {'; '.join(map(str, _parts(file)))}")
    return item


def _numbers(file: Any, name: str, path: Path, length: int) -> NDArray[np.float64]:
    values = np.asarray(_dataset(file, name, path)[()], dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) != length:
        raise DatasetError(
            f"{path} has {length} pictures and {name} of shape {values.shape}: one row a picture is needed"
        )
    return values.reshape(length, -1)


def _plain(value: Any) -> str | int | float | bool:
    """An attribute as JSON has it; arrays as text."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) else str(np.asarray(value).tolist())


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def _rate(attributes: dict[str, str | int | float | bool]) -> float | None:
    frames, seconds = attributes.get("num_frames"), attributes.get("total_duration")
    if isinstance(frames, int | float) and isinstance(seconds, int | float) and seconds > 0:
        return frames / seconds
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """For reading; what goes wrong names the file."""
    h5py: Any = importlib.import_module("h5py")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise DatasetError(f"{path} cannot be read as HDF5 ({error}): copy it again, or leave it out") from error
