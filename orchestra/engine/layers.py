"""Reading files of an image without mounting it: its layer directories seen as one tree.

Symbolic links are followed inside the tree only; whiteouts and opaque directories of overlayfs hide
what lies below. The layers are immutable, so a checked path stays what it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

_LINK_LIMIT = 40
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class LayerView:
    """``layers`` are directories, the lowest first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._top_first = tuple(str(layer) for layer in reversed(layers))

    def find(self, path: str) -> str | None:
        """The host path of a file or directory (its topmost layer), links followed, or None."""
        found = self._walk(path)
        return found[0] if found else None

    def directories(self, path: str) -> list[str]:
        """The host directories that together are the directory ``path``, the lowest first."""
        found = self._walk(path)
        if not found or not os.path.isdir(found[0]):
            return []
        return list(reversed(found))

    def read(self, path: str, *, limit: int = 1 << 22) -> bytes | None:
        """The content of a regular file, or None when there is none."""
        place = self.find(path)
        if place is None or not stat.S_ISREG(os.lstat(place).st_mode):
            return None
        with open(place, "rb") as file:
            return file.read(limit)

    def is_directory(self, path: str) -> bool:
        place = self.find(path)
        return place is not None and os.path.isdir(place)

    def _walk(self, path: str) -> list[str] | None:
        todo = [part for part in path.split("/") if part and part != "."][::-1]
        trail: list[list[str]] = [list(self._top_first)]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            places = _step(trail[-1], part)
            if not places:
                return None
            mode = os.lstat(places[0]).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                if links > _LINK_LIMIT:
                    return None
                target = os.readlink(places[0])
                if target.startswith("/"):
                    trail = trail[:1]
                todo += [one for one in target.split("/") if one and one != "."][::-1]
                continue
            if todo and not stat.S_ISDIR(mode):
                return None
            trail.append(places)
        return trail[-1]


def _step(directories: Sequence[str], name: str) -> list[str]:
    """The entries called ``name``: one file, or the directories that merge."""
    found: list[str] = []
    for directory in directories:
        place = f"{directory}/{name}"
        try:
            info = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            break
        if not stat.S_ISDIR(info.st_mode):
            return found or [place]
        found.append(place)
        if _is_opaque(place):
            break
    return found


def _is_opaque(directory: str) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(directory, name) == b"y":
                return True
        except OSError:
            continue
    return False
