"""COPY and ADD as data: which files land where (:class:`Item`), their digest, and the layer of them.

Deciding (:class:`Planner`) reads the two trees and writes nothing. Targets are canonical: a link of the
target tree (``/bin`` → ``usr/bin``) is followed, a directory that is missing is made. The digest covers
names, kinds, modes, owners and contents and no times, so an untouched file is found in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestra.build.ignore import IgnoreRules
from orchestra.build.owners import Mode
from orchestra.build.problems import BuildError
from orchestra.build.view import Node, View, open_file
from orchestra.images.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, REGULAR, SYMLINK
from orchestra.images.tarwrite import Member, TarWriter, check_layer_name

_KINDS = {
    stat.S_IFDIR: DIRECTORY, stat.S_IFREG: REGULAR, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO,
    stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE,
}  # fmt: skip
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Item:
    """One member of the layer: from ``node``, from ``data`` in memory, or a directory that was missing
    (neither)."""

    target: str
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    node: Node | None = None
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One source. ``node`` of ``view``, or a file made here (``name`` and ``data``). ``path`` is the path
    as matched (for ``--parents``). ``owners``: keep the source's owners (else 0:0)."""

    view: View | None = None
    node: Node | None = None
    path: str = ""
    name: str = ""
    data: bytes = b""
    mode: int = 0o644
    owners: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """``path`` absolute; ``folder``: written as a directory (``/`` at the end, or several sources)."""

    path: str
    folder: bool
    parents: bool = False
    owner: tuple[int, int] | None = None
    mode: Mode | None = None
    exclude: IgnoreRules | None = None
    time: int = 0


class Planner:
    def __init__(self, root: View, target: Target) -> None:
        self._root = root
        self._target = target
        self._items: dict[str, Item] = {}
        self._folders: dict[str, str] = {}

    def plan(self, sources: Sequence[Source]) -> list[Item]:
        """All members, parents before what is in them."""
        base, node = self._root.resolve(self._target.path)
        is_folder = self._target.folder or len(sources) > 1 or (node is not None and node.is_dir)
        if node is not None and not node.is_dir and is_folder:
            raise BuildError(f"cannot copy into /{base}: it is no directory")
        for source in sources:
            self._source(source, base, is_folder=is_folder)
        return [self._items[name] for name in sorted(self._items, key=lambda name: name.split("/"))]

    def folders(self, path: str) -> list[Item]:
        """The directories of ``path`` that are missing."""
        self._ensure(path)
        return [self._items[name] for name in sorted(self._items)]

    def _source(self, source: Source, base: str, *, is_folder: bool) -> None:
        node = source.node
        if self._target.parents and source.path:
            base, is_folder = self._below_base(source, base), True
        if node is not None and node.is_dir:
            self._ensure(base)
            assert source.view is not None
            for relative, inner in source.view.walk(node, exclude=self._target.exclude):
                self._take(inner, posixpath.join(base, relative), owners=source.owners)
            return
        name = source.name or (node.name if node else "")
        if node is not None and self._target.exclude and self._target.exclude.matches(name):
            return
        target = posixpath.join(base, name) if is_folder else base
        self._ensure(posixpath.dirname(target))
        if node is not None:
            self._take(node, target, owners=source.owners)
        else:
            mode = self._mode(source.mode, is_dir=False)
            uid, gid = self._target.owner or (0, 0)
            self._put(Item(target, REGULAR, mode, uid, gid, self._target.time, data=source.data))

    def _below_base(self, source: Source, base: str) -> str:
        """The directory that ``--parents`` means; ``/./`` in the source cuts what is before it."""
        path = source.path
        head = path.rpartition("/./")[2] if "/./" in path else path
        inner = head.strip("/")
        if source.node is not None and not source.node.is_dir:
            inner = posixpath.dirname(inner)
        return posixpath.join(base, inner) if inner else base

    def _take(self, node: Node, target: str, *, owners: bool) -> None:
        kind = _KINDS.get(stat.S_IFMT(node.stat.st_mode))
        if kind is None:
            return  # a socket: no archive holds one
        parent = self._folder(posixpath.dirname(target))
        target = posixpath.join(parent, posixpath.basename(target))
        if kind == DIRECTORY:
            real = self._folder(target)
            if real != target:
                return  # a link to a directory there: what is below goes through it
        uid, gid = self._target.owner or ((node.stat.st_uid, node.stat.st_gid) if owners else (0, 0))
        mode = self._mode(stat.S_IMODE(node.stat.st_mode), is_dir=kind == DIRECTORY)
        if kind == SYMLINK:
            mode = 0o777
        self._put(Item(target, kind, mode, uid, gid, node.stat.st_mtime_ns, node))

    def _put(self, item: Item) -> None:
        if item.kind != DIRECTORY:
            _, there = self._root.resolve(item.target, follow=False)
            if there is not None and there.is_dir:
                raise BuildError(f"cannot copy a file over the directory /{item.target}")
        self._items[item.target] = item

    def _folder(self, path: str) -> str:
        """Where the directory ``path`` really is in the target tree."""
        if not path:
            return ""
        known = self._folders.get(path)
        if known is None:
            known, node = self._root.resolve(path)
            if node is not None and not node.is_dir:
                raise BuildError(f"cannot copy a directory over the file /{known}")
            self._folders[path] = known
        return known

    def _ensure(self, path: str) -> None:
        """Make the directories of ``path`` that are missing."""
        real = self._folder(path)
        parts = real.split("/") if real else []
        uid, gid = self._target.owner or (0, 0)
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            if folder not in self._items and self._root.resolve(folder, follow=False)[1] is None:
                self._items[folder] = Item(folder, DIRECTORY, 0o755, uid, gid, self._target.time)

    def _mode(self, mode: int, *, is_dir: bool) -> int:
        return self._target.mode.apply(mode, is_dir=is_dir) if self._target.mode else mode


def digest(items: Iterable[Item]) -> str:
    """What the items are, times apart."""
    whole = hashlib.sha256()
    for item in items:
        node = item.node
        if item.kind == REGULAR:
            content = hashlib.sha256(item.data or b"").hexdigest() if node is None else _file_digest(node)
        elif item.kind == SYMLINK and node is not None:
            content = node.target
        else:
            content = str(node.stat.st_rdev) if node else ""
        line = f"{item.target}\0{item.kind!r}\0{item.mode:o}\0{item.uid}:{item.gid}\0{content}\0"
        whole.update(os.fsencode(line))
    return whole.hexdigest()


def _file_digest(node: Node) -> str:
    found = hashlib.sha256()
    with open_file(node) as stream:
        while data := stream.read(_PIECE):
            found.update(data)
    return found.hexdigest()


def write_items(items: Iterable[Item], writer: TarWriter, epoch: int | None) -> None:
    """The items as archive members."""
    for item in items:
        mtime = item.mtime if epoch is None else min(item.mtime, epoch * 1_000_000_000)
        check_layer_name(os.fsencode(item.target))
        member = Member(os.fsencode(item.target), item.kind, item.mode, item.uid, item.gid, mtime)
        node = item.node
        if node is None:
            writer.add(member, item.data or b"")
        elif item.kind == REGULAR:
            with open_file(node) as stream:
                member.size = os.fstat(stream.fileno()).st_size
                member.xattrs = _capability(stream.fileno())
                writer.add_file(member, stream.fileno())
        else:
            if item.kind == SYMLINK:
                member.link = os.fsencode(node.target)
            elif item.kind in (CHARACTER, BLOCK_DEVICE):
                member.major, member.minor = os.major(node.stat.st_rdev), os.minor(node.stat.st_rdev)
            writer.add(member)


def _capability(fd: int) -> dict[str, bytes]:
    with contextlib.suppress(OSError):
        return {"security.capability": os.getxattr(fd, "security.capability")}
    return {}
