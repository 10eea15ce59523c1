"""Curves for TensorBoard. They are for looking at: a disk that has no room for them does not stop a training."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from typing_extensions import Self


class Curves:
    """An event file in ``folder``, written as it comes: no thread of TensorBoard's own fails out of sight."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}").open("ab", buffering=0)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def __enter__(self) -> Self:
        """Close it by leaving."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing is held back, so there is nothing to lose."""
        self._file.close()

    def add(self, figures: Mapping[str, float], step: int) -> None:
        """A point on each figure's curve."""
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        if self._file.closed:
            return
        try:
            self._records.write(event.SerializeToString())
        except OSError as error:
            print(f"{self._file.name} ends at step {event.step}: {error.strerror}; the training goes on", flush=True)
            self._file.close()  # a record cut in two would hide all that follow it
