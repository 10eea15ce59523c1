"""What is seen of a training: its curves, and the line that tells how far it is and how long it waits for data."""

import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import Self

from mobile_vla.train.curves import Curves
from mobile_vla.train.spread import Alone

_FIGURES_EVERY = 50


class Report:
    """Curves in ``folder``, and a line, of ``steps`` of which ``start`` are done.

    The first process alone shows them; all take part, as the figures are means over all.
    """

    def __init__(self, name: str, folder: Path, start: int, steps: int, spread: Alone) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[f]}"), disable=not spread.is_first)
        self._task = self._bar.add_task(name, total=steps, completed=start, f="")
        self._curves = Curves(folder / "tensorboard") if spread.is_first else None
        self._spread, self._last_step = spread, steps - 1
        self._since, self._waited_s = time.perf_counter(), 0.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        """Begin to show it."""
        if self._curves:
            self._open.enter_context(self._curves)
        self._open.enter_context(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Show it no more."""
        self._open.close()

    def step(self, step: int, passes: list[dict[str, float]], waited_s: float) -> None:
        """``step`` (from 0) was made of ``passes`` with these figures; so far the training waited for data so long."""
        if step % _FIGURES_EVERY == 0 or step == self._last_step:
            now = time.perf_counter()
            waiting = (waited_s - self._waited_s) / max(now - self._since, 1e-9)
            self._since, self._waited_s = now, waited_s
            mine = {name: float(np.mean([each[name] for each in passes])) for name in passes[0]}
            figures = self._spread.mean(mine | {"waiting": waiting})
            self.curves(figures, step)
            shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items() if name != "waiting")
            self._bar.update(self._task, f=f"{shown} waits {100.0 * figures['waiting']:.0f} %")
        self._bar.update(self._task, completed=step + 1)

    def curves(self, figures: dict[str, float], step: int) -> None:
        """Points on the curves."""
        if self._curves:
            self._curves.add(figures, step)
