"""Deleting directories away from the start and stop path.

A directory is renamed into ``<lib>/containers/.trash`` at once (so its name is free and a crash leaves
only trash) and deleted by a background thread; what an earlier daemon left there is taken too.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable
from pathlib import Path


class Sweeper:
    """``remove`` deletes a whole tree."""

    def __init__(self, folder: Path, remove: Callable[[Path], None]) -> None:
        self._trash = folder / ".trash"
        self._remove = remove
        self._queue: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Takes up what an earlier run left."""
        if self._trash.is_dir():
            for place in sorted(self._trash.iterdir()):
                self._put(place)

    def discard(self, place: Path) -> None:
        """``place`` is gone when this returns; its content is deleted later."""
        self._trash.mkdir(mode=0o700, exist_ok=True)
        target = self._trash / secrets.token_hex(8)
        try:
            os.rename(place, target)
        except FileNotFoundError:
            return
        self._put(target)

    def close(self, *, timeout: float = 5.0) -> None:
        """Waits a little for the rest; the next daemon goes on with it."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join(timeout=timeout)

    def _put(self, place: Path) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)
                self._thread.start()
        self._queue.put(place)

    def _loop(self) -> None:
        while (place := self._queue.get()) is not None:
            try:
                self._remove(place)
            except OSError:
                continue  # the next daemon tries again
