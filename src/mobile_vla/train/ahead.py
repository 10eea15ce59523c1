"""Batches drawn ahead by a thread, so that the network seldom waits for data."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

from typing_extensions import Self

T = TypeVar("T")


class Ahead(Generic[T]):
    """The results of ``calls``, in their order; a thread is up to ``ahead`` of them ahead of who asks, 0: no thread.

    ``waited_s`` adds up how long ``next`` took. Leaving the context waits for the call that is being made.
    """

    def __init__(self, calls: Iterable[Callable[[], T]], ahead: int) -> None:
        self._calls = iter(calls)
        self._ahead = ahead
        self._drawn: deque[Future[T]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw-ahead")
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        """Begin to draw."""
        for _ in range(self._ahead):
            self._begin_one()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Draw no more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def next(self) -> T:
        """The next result, of which there has to be one; raises what its call raised."""
        began = time.perf_counter()
        try:
            if self._ahead == 0:
                return next(self._calls)()
            self._begin_one()
            return self._drawn.popleft().result()
        finally:
            self.waited_s += time.perf_counter() - began

    def _begin_one(self) -> None:
        call = next(self._calls, None)
        if call is not None:
            self._drawn.append(self._thread.submit(call))
