"""Produce layers: from a directory tree, or from an overlay's upper directory; and lists of changes.

The archive is reproducible: members sorted, times cut to seconds and clamped to SOURCE_DATE_EPOCH, the
first name (in order) of a hard linked file holds its content. Sockets are left out. The tree is walked
through directory descriptors without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestra.errors import OrchestraError
from orchestra.images.problems import LayerError, from_os_error
from orchestra.images.shifted import attribute, moved
from orchestra.images.tar import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    LINK,
    REGULAR,
    SPARSE_LIMIT,
    SYMLINK,
)  # fmt: skip
from orchestra.images.tarwrite import Member, TarWriter, check_layer_name

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SPARSE_GAIN = 1 << 20
"""Bytes that must be won before a file is stored as sparse."""
_OVERLAY = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """``upper``: overlay whiteouts and opaque marks become the layer's. ``epoch``: no time later than
    this. ``owner``: everything belongs to this (uid, gid). ``prefix``: a directory above all names.
    ``exclude``: decides by relative path. ``root``: write a member for the top directory itself."""

    upper: bool = False
    epoch: int | None = None
    owner: tuple[int, int] | None = None
    prefix: bytes = b""
    exclude: Callable[[bytes], bool] | None = None
    exact_times: bool = False
    root: bool = True
    xattrs: bool = True
    shifted: tuple[int, int, int] | None = None  # the range whose ids the tree has on disk (see shifted)


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """The time that reproducible archives are clamped to, where set."""
    text = environ.get("SOURCE_DATE_EPOCH", "").strip()
    if not text:
        return None
    if not text.isdigit():
        raise OrchestraError(f"SOURCE_DATE_EPOCH is not a number of seconds: {text!r}")
    return int(text)


def write_tree(root: Path, sink: Callable[[bytes], object], options: TreeOptions | None = None) -> int:
    """The tree below ``root`` as a whole tar to ``sink``; the bytes written."""
    chosen = options or TreeOptions()
    writer = TarWriter(sink, exact_times=chosen.exact_times)
    add_tree(root, writer, chosen)
    writer.finish()
    return writer.size


def add_tree(root: Path, writer: TarWriter, options: TreeOptions) -> None:
    """The members of the tree below ``root``, without the end of the archive."""
    try:
        fd = os.open(root, _DIRECTORY_FLAGS)
        try:
            _Walk(writer, options).top(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise from_os_error(error, f"archiving {root}") from error


class _Walk:
    def __init__(self, writer: TarWriter, options: TreeOptions) -> None:
        self._writer = writer
        self._options = options
        self._seen: dict[tuple[int, int], bytes] = {}

    def top(self, fd: int) -> None:
        options = self._options
        prefix = options.prefix.strip(b"/")
        if options.root:
            member = self._member(prefix or b".", os.fstat(fd), DIRECTORY)
            member.xattrs = self._xattrs(fd)
            self._writer.add(member)
        self._directory(fd, prefix, b"")

    def _directory(self, fd: int, path: bytes, relative: bytes) -> None:
        """All members in the directory ``fd``; ``path`` is its name in the archive."""
        for name in sorted(os.fsencode(entry) for entry in os.listdir(fd)):
            inner = relative + b"/" + name if relative else name
            if self._options.exclude and self._options.exclude(inner):
                continue
            full = path + b"/" + name if path else name
            if self._options.upper and name.startswith(b".wh."):
                check_layer_name(full)
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                self._one(fd, name, full, inner)

    def _one(self, parent: int, name: bytes, full: bytes, relative: bytes) -> None:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = found.st_mode
        if stat.S_ISDIR(mode):
            self._subdirectory(parent, name, full, relative, found)
            return
        if stat.S_ISSOCK(mode):
            return
        if self._options.upper and stat.S_ISCHR(mode) and found.st_rdev == 0:
            folder, _, base = full.rpartition(b"/")
            self._writer.add(Member((folder + b"/" if folder else b"") + b".wh." + base, mode=0o600, mtime=0))
            return
        if found.st_nlink > 1:
            key = (found.st_dev, found.st_ino)
            first = self._seen.setdefault(key, full)
            if first is not full:
                member = self._member(full, found, LINK)
                member.link = first
                self._writer.add(member)
                return
        if stat.S_ISREG(mode):
            self._file(parent, name, full, found)
        else:
            self._special(parent, name, full, found)

    def _subdirectory(
        self, parent: int, name: bytes, full: bytes, relative: bytes, found: os.stat_result
    ) -> None:
        fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        try:
            member = self._member(full, found, DIRECTORY)
            member.xattrs = self._xattrs(fd)
            self._writer.add(member)
            if self._options.upper and _is_opaque(fd):
                self._writer.add(Member(full + b"/.wh..wh..opq", mode=0o600, mtime=0))
            self._directory(fd, full, relative)
        finally:
            os.close(fd)

    def _file(self, parent: int, name: bytes, full: bytes, found: os.stat_result) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        fd = os.open(name, flags, dir_fd=parent)
        try:
            member = self._member(full, found, REGULAR)
            member.size = found.st_size
            member.xattrs = self._xattrs(fd)
            segments = _segments(fd, found)
            if segments is None:
                self._writer.add_file(member, fd)
            else:
                self._writer.add_sparse(member, fd, segments)
        finally:
            os.close(fd)

    def _special(self, parent: int, name: bytes, full: bytes, found: os.stat_result) -> None:
        mode = found.st_mode
        if stat.S_ISLNK(mode):
            member = self._member(full, found, SYMLINK)
            member.link = os.readlink(name, dir_fd=parent)
            member.mode = 0o777
        elif stat.S_ISFIFO(mode):
            member = self._member(full, found, FIFO)
        else:
            member = self._member(full, found, CHARACTER if stat.S_ISCHR(mode) else BLOCK_DEVICE)
            member.major, member.minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        member.xattrs = self._xattrs(f"/proc/self/fd/{parent}/".encode() + name)
        self._writer.add(member)

    def _member(self, name: bytes, found: os.stat_result, kind: bytes) -> Member:
        owner = self._options.owner or (found.st_uid, found.st_gid)
        if self._options.shifted:
            owner = (
                moved(owner[0], 0, self._options.shifted, None),
                moved(owner[1], 1, self._options.shifted, None),
            )
        mtime = found.st_mtime_ns
        if self._options.epoch is not None:
            mtime = min(mtime, self._options.epoch * 1_000_000_000)
        return Member(name, kind, stat.S_IMODE(found.st_mode), owner[0], owner[1], mtime)

    def _xattrs(self, where: int | bytes) -> dict[str, bytes]:
        if not self._options.xattrs:
            return {}
        try:
            names = os.listxattr(where) if isinstance(where, int) else _list_link(where)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES):
                return {}
            raise
        if not names:
            return {}
        found = {}
        for name in names:
            if name.startswith(_OVERLAY):
                self._refuse(name, where)
            elif name != "security.selinux":
                follow = isinstance(where, int)
                value = os.getxattr(where, name) if follow else _get_link(where, name)
                if self._options.shifted:
                    value = attribute(name, value, self._options.shifted, None)
                found[name] = value
        return found

    def _refuse(self, name: str, where: int | bytes) -> None:
        """A redirected or metadata-only copy cannot be told by a layer."""
        if self._options.upper and name.endswith((".redirect", ".metacopy")):
            raise LayerError(
                f"the upper directory uses overlayfs's {name.rpartition('.')[2]}",
                hint="mount the overlay with redirect_dir=off,metacopy=off",
            )


def _segments(fd: int, found: os.stat_result) -> list[tuple[int, int]] | None:
    """Where a file with large holes has data; None for others."""
    if found.st_blocks * 512 + _SPARSE_GAIN > found.st_size:
        return None
    segments: list[tuple[int, int]] = []
    position = 0
    while position < found.st_size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole from here on
                break
            return None
        position = min(os.lseek(fd, start, os.SEEK_HOLE), found.st_size)
        if position > start:
            segments.append((start, position - start))
        if len(segments) > SPARSE_LIMIT // 2:
            os.lseek(fd, 0, os.SEEK_SET)
            return None
    return segments


def _list_link(path: bytes) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def _get_link(path: int | bytes, name: str) -> bytes:
    return os.getxattr(path, name, follow_symlinks=False)


def _is_opaque(fd: int) -> bool:
    for prefix in _OVERLAY:
        with contextlib.suppress(OSError):
            if os.getxattr(fd, prefix + "opaque") == b"y":
                return True
    return False


# --- what changed --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """``kind`` is A (added), C (changed) or D (deleted); ``path`` is absolute in the container."""

    path: str
    kind: str


def changes(upper: Path, lowers: Sequence[Path]) -> list[Change]:
    """What an upper directory changes against the layers below (lowest first), sorted by path."""
    found = list(_changes(os.fsencode(upper), b"", [os.fsencode(lower) for lower in reversed(lowers)]))
    return sorted(Change("/" + os.fsdecode(path), kind) for path, kind in found)


def _changes(folder: bytes, path: bytes, lowers: list[bytes]) -> Iterator[tuple[bytes, str]]:
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        inner = path + b"/" + entry.name if path else entry.name
        found = entry.stat(follow_symlinks=False)
        below = _lookup(inner, lowers)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            if below is not None:
                yield inner, "D"
            continue
        if below is None or stat.S_ISDIR(below.st_mode) != stat.S_ISDIR(found.st_mode):
            yield inner, "A" if below is None else "C"
            inner_lowers: list[bytes] = []
        else:
            yield inner, "C"
            inner_lowers = lowers
        if stat.S_ISDIR(found.st_mode):
            if inner_lowers and _opaque_path(entry.path):
                yield from _hidden(entry.path, inner, lowers)
            yield from _changes(entry.path, inner, inner_lowers)


def _hidden(folder: bytes, path: bytes, lowers: list[bytes]) -> Iterator[tuple[bytes, str]]:
    """Children that an opaque directory hides and does not bring again."""
    names: set[bytes] = set()
    for lower in lowers:
        with contextlib.suppress(OSError):
            names |= set(os.listdir(os.path.join(lower, path)))
    for name in names - set(os.listdir(folder)):
        if _lookup(path + b"/" + name, lowers) is not None:
            yield path + b"/" + name, "D"


def _lookup(path: bytes, lowers: list[bytes]) -> os.stat_result | None:
    """The file of that name as the layers (topmost first) show it together."""
    parts = path.split(b"/")
    for lower in lowers:
        current = lower
        for number, part in enumerate(parts):
            current = current + b"/" + part
            try:
                found = os.lstat(current)
            except OSError:
                break
            last = number == len(parts) - 1
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                return None
            if last:
                return found
            if not stat.S_ISDIR(found.st_mode):
                return None
        else:
            continue
        if _opaque_on_way(lower, parts):
            return None
    return None


def _opaque_on_way(lower: bytes, parts: list[bytes]) -> bool:
    """Whether an opaque directory of this layer hides what is below on the way to ``parts``."""
    current = lower
    for part in parts[:-1]:
        current = current + b"/" + part
        if not os.path.isdir(current):
            return False
        if _opaque_path(current):
            return True
    return False


def _opaque_path(path: bytes) -> bool:
    for prefix in _OVERLAY:
        with contextlib.suppress(OSError):
            if os.getxattr(path, prefix + "opaque", follow_symlinks=False) == b"y":
                return True
    return False
