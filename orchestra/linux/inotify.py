"""inotify(7), and a watch on whole directory trees built on it.

``TreeWatch`` follows directories that appear, are moved or vanish. Symbolic links are not followed.
When the kernel's queue overflows, every watched root counts as changed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from collections.abc import Iterable
from types import TracebackType

from orchestra.linux import calls

MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE = 2, 4, 8, 0x40, 0x80, 0x100, 0x200
DELETE_SELF, MOVE_SELF, OVERFLOW, IGNORED, ISDIR = 0x400, 0x800, 0x4000, 0x8000, 0x40000000
_DONT_FOLLOW, _EXCL_UNLINK = 0x02000000, 0x04000000
CHANGES = CLOSE_WRITE | ATTRIB | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF

_libc = ctypes.CDLL(None, use_errno=True)
_init1 = _libc["inotify_init1"]
_init1.argtypes = (ctypes.c_int,)
_add = _libc["inotify_add_watch"]
_add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
_remove = _libc["inotify_rm_watch"]
_remove.argtypes = (ctypes.c_int, ctypes.c_int)

Event = tuple[int, int, int, str]
"""(watch, mask, cookie, name)"""


class Inotify:
    """One inotify instance; ``fileno()`` for polling."""

    def __init__(self) -> None:
        self.fd: int = _init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.fd < 0:
            raise calls.failed("inotify_init1")

    def fileno(self) -> int:
        return self.fd

    def add(self, path: str, mask: int = CHANGES) -> int:
        watch = _add(self.fd, os.fsencode(path), mask)
        if watch < 0:
            problem = calls.failed("inotify_add_watch", path)
            if problem.errno == errno.ENOSPC:
                raise OSError(errno.ENOSPC, "too many watches: raise fs.inotify.max_user_watches", path)
            raise problem
        return int(watch)

    def remove(self, watch: int) -> None:
        _remove(self.fd, watch)

    def events(self) -> list[Event]:
        """All that are pending."""
        found: list[Event] = []
        while True:
            try:
                data = os.read(self.fd, 65536)
            except BlockingIOError:
                return found
            offset = 0
            while offset < len(data):
                watch, mask, cookie, length = struct.unpack_from("=iIII", data, offset)
                name = data[offset + 16 : offset + 16 + length].rstrip(b"\0")
                found.append((watch, mask, cookie, os.fsdecode(name)))
                offset += 16 + length

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class TreeWatch:
    """Watches ``roots`` (files or directories, with all below). Directories named in ``skip`` are left
    out. ``read(timeout)`` gives the changed paths."""

    def __init__(self, roots: Iterable[str], *, skip: Iterable[str] = ()) -> None:
        self.roots = [os.path.abspath(root) for root in roots]
        self._skip = frozenset(skip)
        self._inotify = Inotify()
        self._paths: dict[int, str] = {}
        for root in self.roots:
            if os.path.isdir(root):
                self._add_tree(root)
            else:
                self._add_directory(os.path.dirname(root))
        self._single = {root for root in self.roots if not os.path.isdir(root)}

    def __enter__(self) -> TreeWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def close(self) -> None:
        self._inotify.close()

    def read(self, timeout: float | None) -> set[str]:
        """Waits until something changed (None: for ever) and gives all changes that are known by then;
        empty when the time is over."""
        poller = select.poll()
        poller.register(self._inotify.fileno(), select.POLLIN)
        if not poller.poll(None if timeout is None else max(0, int(timeout * 1000))):
            return set()
        changed: set[str] = set()
        for watch, mask, _cookie, name in self._inotify.events():
            self._take(watch, mask, name, changed)
        return changed

    def _take(self, watch: int, mask: int, name: str, changed: set[str]) -> None:
        if mask & OVERFLOW:
            changed.update(self.roots)
            return
        folder = self._paths.get(watch)
        if folder is None:
            return
        if mask & IGNORED:
            self._paths.pop(watch, None)
            return
        path = f"{folder}/{name}" if name else folder
        if name in self._skip and mask & ISDIR:
            return
        if mask & ISDIR and mask & (CREATE | MOVED_TO) and self._below_root(path):
            changed.update(self._add_tree(path))
        if mask & ISDIR and mask & MOVED_FROM:
            self._forget(path)
        if self._below_root(path):
            changed.add(path)

    def _below_root(self, path: str) -> bool:
        return any(
            path == root or (root not in self._single and path.startswith(root.rstrip("/") + "/"))
            for root in self.roots
        )

    def _forget(self, path: str) -> None:
        for watch, folder in list(self._paths.items()):
            if folder == path or folder.startswith(path + "/"):
                self._inotify.remove(watch)
                del self._paths[watch]

    def _add_directory(self, path: str) -> None:
        try:
            self._paths[self._inotify.add(path, CHANGES | _DONT_FOLLOW | _EXCL_UNLINK)] = path
        except OSError as problem:
            if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP):
                raise

    def _add_tree(self, root: str) -> list[str]:
        """Watch a directory with all below; the files found in it (they may be older than the watch)."""
        found: list[str] = []
        pending = [root]
        while pending:
            folder = pending.pop()
            self._add_directory(folder)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name not in self._skip:
                                pending.append(entry.path)
                        else:
                            found.append(entry.path)
            except OSError:
                continue
        return found
