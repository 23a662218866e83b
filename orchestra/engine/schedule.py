"""Work at a later time: restarts after their delay, health probes. One timer thread, a few workers."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 6


class Scheduler:
    """``at(due, work)`` with ``due`` in unix seconds. Nothing is run after ``close()``."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._closed = False
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="later")
        threading.Thread(target=self._loop, name="timer", daemon=True).start()

    def at(self, due: float, work: Callable[[], None]) -> None:
        with self._condition:
            heapq.heappush(self._heap, (due, next(self._count), work))
            self._condition.notify()

    def now(self, work: Callable[[], None]) -> None:
        """Soon, in another thread."""
        with self._condition:
            if not self._closed:
                self._pool.submit(_guarded, work)

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._heap.clear()
            self._condition.notify()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _loop(self) -> None:
        while True:
            with self._condition:
                while not self._closed and (not self._heap or self._heap[0][0] > time.time()):
                    wait = self._heap[0][0] - time.time() if self._heap else None
                    self._condition.wait(None if wait is None else max(0.001, min(wait, 3600)))
                if self._closed:
                    return
                work = heapq.heappop(self._heap)[2]
                self._pool.submit(_guarded, work)


def _guarded(work: Callable[[], None]) -> None:
    """An error of background work is a bug or the container's end: it goes to the daemon's log."""
    try:
        work()
    except Exception:
        traceback.print_exc()
