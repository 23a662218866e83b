"""The scratch directory of one build, ``<builds>/<16 hex digits>/``, and what killed builds left.

A build holds the lock (flock) of its directory. Whoever begins a build removes directories that nobody
holds, and secrets of builds that are gone (``<run>/build-secret-<build>-…``, on the tmpfs of ``/run``).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from orchestra.images.rootfs import remove_tree
from orchestra.paths import Paths

_NAME = re.compile(r"[0-9a-f]{16}")
SECRET = "build-secret-"


@contextlib.contextmanager
def scratch(paths: Paths) -> Iterator[Path]:
    """A fresh directory, gone afterwards."""
    paths.builds.mkdir(mode=0o700, parents=True, exist_ok=True)
    _sweep(paths)
    folder = paths.builds / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield folder
    finally:
        remove_tree(folder)
        os.close(fd)


def _sweep(paths: Paths) -> None:
    for name in os.listdir(paths.builds):
        if _NAME.fullmatch(name):
            with contextlib.suppress(OSError):
                _remove_abandoned(paths.builds / name)
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(paths.run):
            build = name.removeprefix(SECRET).partition("-")[0]
            if name.startswith(SECRET) and not (paths.builds / build).exists():
                (paths.run / name).unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(folder)
    finally:
        os.close(fd)
