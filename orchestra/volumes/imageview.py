"""What a stack of unpacked image layers shows at a path, without mounting it: overlayfs' rules by hand.

Layers are plain directories in overlayfs' own format: a character device 0:0 is a whiteout, the extended
attribute ``overlay.opaque`` = ``y`` hides what lies below a directory. Links are resolved within the image;
nothing outside the layers is ever opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestra.errors import OrchestraError

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """One name of the merged tree: the layers' own entries that make it up, topmost first (more than one
    only for a directory)."""

    entries: tuple[str, ...]
    info: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.info.st_mode)


class ImageView:
    """``layers``: directories, lowest first."""

    def __init__(self, layers: Sequence[Path]) -> None:
        folders = tuple(str(layer) for layer in reversed(layers))
        if not folders:
            raise OrchestraError("an image without layers has no files")
        self._root = Place(folders, os.stat(folders[0]))

    def resolve(self, path: str) -> Place | None:
        """What is at the absolute ``path``, links followed within the image; None if nothing is."""
        pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        trail = [self._root]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                if len(trail) > 1:
                    trail.pop()
                continue
            found = self.child(trail[-1], part)
            if found is None:
                return None
            if not found.is_link:
                trail.append(found)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OrchestraError(f"too many symbolic links at {path} in the image")
            target = os.readlink(found.entries[0])
            if target.startswith("/"):
                trail = [self._root]
            pending += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return trail[-1]

    def child(self, folder: Place, name: str) -> Place | None:
        """The entry ``name`` of a directory of the merged tree."""
        if not folder.is_directory:
            return None
        entries: list[str] = []
        first: os.stat_result | None = None
        for base in folder.entries:
            path = os.path.join(base, name)
            try:
                info = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if _is_whiteout(info):
                break
            if not stat.S_ISDIR(info.st_mode):
                if first is None:
                    return Place((path,), info)
                break
            entries.append(path)
            first = first or info
            if _is_opaque(path):
                break
        return Place(tuple(entries), first) if first is not None else None

    def names(self, folder: Place) -> list[str]:
        """What ``child`` may find, sorted; whiteouts among it."""
        found: set[str] = set()
        for base in folder.entries:
            found.update(os.listdir(base))
        return sorted(found)

    def copy_tree(self, folder: Place, target: Path) -> None:
        """A copy of the directory as the new directory ``target``: contents, owners, modes, times, extended
        attributes, hard links, device nodes. Sockets are left out."""
        self._copy_directory(folder, str(target), {})

    def _copy_directory(self, folder: Place, target: str, known: dict[tuple[int, int], str]) -> None:
        os.mkdir(target, 0o700)
        for name in self.names(folder):
            place = self.child(folder, name)
            if place is None:
                continue
            path = os.path.join(target, name)
            if place.is_directory:
                self._copy_directory(place, path, known)
            else:
                _copy_other(place, path, known)
        _dress(folder.entries[0], target, folder.info)


def _copy_other(place: Place, target: str, known: dict[tuple[int, int], str]) -> None:
    source, info = place.entries[0], place.info
    key = (info.st_dev, info.st_ino)
    if info.st_nlink > 1 and key in known:
        os.link(known[key], target, follow_symlinks=False)
        return
    if stat.S_ISREG(info.st_mode):
        _copy_file(source, target)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISSOCK(info.st_mode):
        return
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    known[key] = target
    _dress(source, target, info)


def _copy_file(source: str, target: str) -> None:
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _pour(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _pour(reader: int, writer: int) -> None:
    """By the kernel where the file systems allow it (and share blocks where they can), else by hand."""
    try:
        while os.copy_file_range(reader, writer, 1 << 30):
            pass
    except OSError:
        while data := os.read(reader, 1 << 20):
            view = memoryview(data)
            while view:
                view = view[os.write(writer, view) :]


def _dress(source: str, target: str, info: os.stat_result) -> None:
    """Owner, mode, extended attributes and times; the owner first, since chown clears setuid and
    capabilities."""
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if ".overlay." not in name:
            try:
                os.setxattr(
                    target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False
                )
            except OSError:
                continue  # a file system without them
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(path: str) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(path, name, follow_symlinks=False) == b"y":
                return True
        except OSError:
            continue
    return False
