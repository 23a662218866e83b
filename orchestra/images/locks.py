"""File locks between threads and processes (flock on files of their own, dropped by the kernel with
their holder). A lock file may be removed by whoever holds it; takers notice and try again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, remove: bool = False) -> Iterator[None]:
    """Hold ``path``'s lock, waiting for it. ``remove`` deletes the file at the end (exclusive only)."""
    fd = acquire(path, shared=shared)
    assert fd is not None
    try:
        yield
    finally:
        if remove and not shared:
            with contextlib.suppress(OSError):
                os.unlink(path)
        os.close(fd)


def acquire(path: Path, *, shared: bool = False, wait: bool = True) -> int | None:
    """The fd that holds the lock until closed; None if it is taken and ``wait`` is off."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        if _is_current(fd, path):
            return fd
        os.close(fd)


def _is_current(fd: int, path: Path) -> bool:
    """Whether the locked file is still the one of that name."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)
