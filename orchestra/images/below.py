"""What a stack of unpacked layers shows at a path, by overlayfs's rules and without mounting it.

Layers are given lowest first. Paths are relative and walked through directory descriptors, following no link:
what is behind a symbolic link of a layer is not at that path. Whiteouts and opaque directories hide what is
below them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(where: int | bytes) -> bool:
    """Of a directory's descriptor or path."""
    for name in _OPAQUE:
        with suppress(OSError):
            if os.getxattr(where, name) == b"y":
                return True
    return False


def open_inside(root: Path, path: bytes) -> int | None:
    """A directory inside ``root``; None if there is no such."""
    fd = os.open(root, _DIRECTORY_FLAGS)
    for part in path.split(b"/") if path else ():
        try:
            inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        fd = inner
    return fd


def is_opaque_above(root: Path, path: bytes) -> bool:
    """Whether one of the directories on the way to ``path`` in this layer is opaque."""
    parts = path.split(b"/")[:-1]
    fd = os.open(root, _DIRECTORY_FLAGS)
    try:
        for part in parts:
            try:
                inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
            except OSError:
                return False
            os.close(fd)
            fd = inner
            if is_opaque(fd):
                return True
        return False
    finally:
        os.close(fd)


def shows(lowers: Sequence[Path], path: bytes) -> bool:
    """Whether there is anything at ``path``."""
    return _topmost(lowers, path) is not None


def directory(lowers: Sequence[Path], path: bytes) -> int | None:
    """A descriptor of the topmost layer's directory at ``path``, whose look the stack's has; None if it shows none."""
    found = _topmost(lowers, path)
    return open_inside(found, path) if found is not None else None


def _topmost(lowers: Sequence[Path], path: bytes) -> Path | None:
    """The layer whose file or directory the stack shows."""
    parts = path.split(b"/") if path else []
    for lower in reversed(lowers):
        found, last_word = _in_layer(lower, parts)
        if found:
            return lower
        if last_word:
            return None
    return None


def _in_layer(lower: Path, parts: list[bytes]) -> tuple[bool, bool]:
    """Whether the layer has it, and if not whether it hides what those below have."""
    fd = os.open(lower, _DIRECTORY_FLAGS)
    opaque = False
    try:
        for number, part in enumerate(parts):
            try:
                found = os.stat(part, dir_fd=fd, follow_symlinks=False)
            except OSError:
                return False, opaque
            if is_whiteout(found):
                return False, True
            if number == len(parts) - 1:
                return True, False
            if not stat.S_ISDIR(found.st_mode):
                return False, True
            inner = os.open(part, _DIRECTORY_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = inner
            opaque = opaque or is_opaque(fd)
        return True, False
    finally:
        os.close(fd)
