"""A file tree as an overlay of directories would show it, read without mounting anything.

Used for the root file system of a stage (unpacked layers), for images and for the build context (one
directory, with its ``.dockerignore``). Links are resolved inside of the tree, so nothing outside of it is
ever read; what the overlay would hide (whiteouts, opaque directories) is hidden.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from orchestra.build.ignore import IgnoreRules, translate
from orchestra.build.problems import BuildError

_LINKS = 40
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_MAGIC = re.compile(r"[*?\[\\]")


@dataclass(frozen=True, slots=True)
class Node:
    """``path`` is canonical and has no slash at the ends; ``places`` are the real files, topmost first
    (several for a directory that layers share)."""

    path: str
    places: tuple[str, ...]
    stat: os.stat_result

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.stat.st_mode)

    @property
    def real(self) -> str:
        return self.places[0]

    @property
    def target(self) -> str:
        return os.readlink(self.real)

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


class View:
    """``layers``: topmost first. ``overlay`` off: a plain directory, whose device nodes are no whiteouts."""

    def __init__(
        self, layers: Sequence[Path | str], *, ignore: IgnoreRules | None = None, overlay: bool = True
    ) -> None:
        self.layers = tuple(str(layer) for layer in layers)
        self.ignore = ignore
        self._overlay = overlay
        self._known: dict[str, Node | None] = {}

    @property
    def root(self) -> Node:
        if self.layers:
            return Node("", self.layers, os.stat(self.layers[0]))
        return Node("", (), os.stat_result((stat.S_IFDIR | 0o755, 0, 0, 1, 0, 0, 0, 0, 0, 0)))

    def child(self, parent: Node, name: str) -> Node | None:
        """What ``name`` is in the directory ``parent``; nothing is followed. Looked up once: the layers of
        a view do not change while it is used."""
        path = f"{parent.path}/{name}" if parent.path else name
        if path not in self._known:
            self._known[path] = self._look_up(parent, name, path)
        return self._known[path]

    def _look_up(self, parent: Node, name: str, path: str) -> Node | None:
        found: list[str] = []
        first: os.stat_result | None = None
        for place in parent.places:
            real = f"{place}/{name}"
            try:
                info = os.lstat(real)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if self._overlay and stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                break
            if not stat.S_ISDIR(info.st_mode):
                if first is None:
                    found, first = [real], info
                break
            found.append(real)
            first = first or info
            if self._overlay and _is_opaque(real):
                break
        if first is None:
            return None
        return Node(path, tuple(found), first)

    def children(self, parent: Node) -> list[Node]:
        """Everything in a directory, by name."""
        names: set[str] = set()
        for place in parent.places:
            with contextlib.suppress(FileNotFoundError):
                names.update(os.listdir(place))
        found = (self.child(parent, name) for name in sorted(names))
        return [node for node in found if node is not None]

    def resolve(self, path: str, *, follow: bool = True) -> tuple[str, Node | None]:
        """The canonical path, links of the tree followed (the last one only with ``follow``), and what is
        there. Where a part is missing, the rest is taken as it is."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        trail = [self.root]
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                trail = trail[:-1] or trail
                continue
            node = self.child(trail[-1], part) if trail[-1].is_dir else None
            if node is None:
                rest = posixpath.normpath("/".join([trail[-1].path, part, *parts])).lstrip("/")
                return rest, None
            if node.is_link and (follow or parts):
                links += 1
                if links > _LINKS:
                    raise BuildError(f"too many levels of symbolic links at /{node.path}")
                target = node.target
                parts[:0] = [piece for piece in target.split("/") if piece not in ("", ".")]
                if target.startswith("/"):
                    trail = trail[:1]
                continue
            trail.append(node)
        return trail[-1].path, trail[-1]

    def find(self, path: str) -> Node | None:
        """What is at ``path``, links followed; None if it is missing or ignored."""
        _, node = self.resolve(path)
        return None if node is None or self._hidden(node) else node

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, sorted; a pattern without magic is itself if it exists. Ignored ones are out."""
        parts = [part for part in posixpath.normpath("/" + pattern).split("/") if part]
        found = [self.root]
        for number, part in enumerate(parts):
            following: list[Node] = []
            for node in found:
                following += self._step(node, part, last=number == len(parts) - 1)
            found = following
        return sorted({node.path for node in found if not self._hidden(node)})

    def _step(self, node: Node, part: str, *, last: bool) -> list[Node]:
        if node.is_link:
            _, resolved = self.resolve(node.path)
            if resolved is None:
                return []
            node = resolved
        if not node.is_dir:
            return []
        if not _MAGIC.search(part):
            child = self.child(node, part)
            return [child] if child else []
        expression = re.compile(translate(part), re.DOTALL)
        return [child for child in self.children(node) if expression.fullmatch(child.name)]

    def walk(self, top: Node, *, exclude: IgnoreRules | None = None) -> Iterator[tuple[str, Node]]:
        """Everything below the directory ``top`` with its path relative to it, parents first."""
        yield from self._below(top, top, exclude)

    def _below(self, top: Node, folder: Node, exclude: IgnoreRules | None) -> Iterator[tuple[str, Node]]:
        for node in self.children(folder):
            relative = node.path[len(top.path) + 1 :] if top.path else node.path
            hidden = self._ignored(node)
            excluded = exclude is not None and exclude.matches(relative)
            if not (hidden or excluded):
                yield relative, node
                if node.is_dir:
                    yield from self._below(top, node, exclude)
            elif node.is_dir and not self._pruned(node, relative, exclude, hidden=hidden, excluded=excluded):
                inner = list(self._below(top, node, exclude))
                if inner:
                    yield relative, node
                    yield from inner

    def _pruned(
        self, node: Node, relative: str, exclude: IgnoreRules | None, *, hidden: bool, excluded: bool
    ) -> bool:
        if hidden and self.ignore and self.ignore.prunes(node.path):
            return True
        return bool(excluded and exclude and exclude.prunes(relative))

    def _ignored(self, node: Node) -> bool:
        return bool(self.ignore and self.ignore.patterns and node.path and self.ignore.matches(node.path))

    def _hidden(self, node: Node) -> bool:
        """Ignored, and no directory with exceptions below."""
        if not self._ignored(node):
            return False
        assert self.ignore is not None
        return not (node.is_dir and not self.ignore.prunes(node.path))

    def read(self, path: str, limit: int = 4 << 20) -> bytes | None:
        """A small file; None if it is not there."""
        _, node = self.resolve(path)
        if node is None or not node.is_file:
            return None
        with open_file(node) as stream:
            return stream.read(limit)


def open_file(node: Node) -> FileIO:
    """A regular file for reading; a link in its place (a race) is not followed."""
    return FileIO(os.open(node.real, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _is_opaque(path: str) -> bool:
    for name in _OPAQUE:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name, follow_symlinks=False) in (b"y", b"x"):
                return True
    return False
