"""A file that is still being downloaded, read as it grows.

The downloader tells :meth:`advance` how far the file is good; a reader in another thread waits for more.
What it reads is not verified yet: whoever unpacks from it keeps the result unseen until the download's
digest (and its own) proved right.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path


class Broken(Exception):
    """The download started over or failed; what was read is worth nothing."""


class Tail:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._position = 0
        self._good = 0
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()

    def advance(self, good: int) -> None:
        """The first ``good`` bytes are written."""
        with self._changed:
            self._good = good
            self._changed.notify_all()

    def end(self) -> None:
        """All bytes are written."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        with self._changed:
            self._broken = True
            self._changed.notify_all()

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; empty at the end of the whole download."""
        with self._changed:
            while self._position >= self._good and not self._ended and not self._broken:
                self._changed.wait()
            if self._broken:
                raise Broken
            size = min(size, self._good - self._position)
        if size <= 0:
            return b""
        data = os.pread(self._fd, size, self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        os.close(self._fd)
