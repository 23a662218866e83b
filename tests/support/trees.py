"""File trees for the tests of layers: described as data, made on disk, read back for comparison."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any


def snapshot(root: Path, *, times: bool = True, owners: bool = True) -> dict[str, tuple[Any, ...]]:
    """Everything below ``root`` (and itself as ``.``) as comparable data; hard links as groups."""
    found: dict[str, tuple[Any, ...]] = {}
    groups: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        folders.sort()
        files.sort()
        for name in [b"."] * (folder == os.fsencode(root)) + folders + files:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, os.fsencode(root))
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content: Any = None
            if stat.S_ISREG(kind):
                with open(path, "rb") as stream:
                    content = stream.read()
            elif stat.S_ISLNK(kind):
                content = os.readlink(path)
            elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                content = info.st_rdev
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in _names(path)}
            first = os.fsdecode(relative)
            if not stat.S_ISDIR(kind):
                first = groups.setdefault((info.st_dev, info.st_ino), os.fsdecode(relative))
            found[os.fsdecode(relative)] = (
                kind,
                stat.S_IMODE(info.st_mode) if not stat.S_ISLNK(kind) else None,
                (info.st_uid, info.st_gid) if owners else None,
                info.st_mtime_ns if times else None,
                content,
                tuple(sorted(xattrs.items())),
                first if info.st_nlink > 1 and not stat.S_ISDIR(kind) else None,
            )
    return found


def _names(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def archive(*members: tuple[Any, ...], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, kind, details) made by the standard library: kind is file, dir, link (symbolic),
    hard, char, fifo; details are TarInfo fields, ``content`` and ``link``."""
    kinds = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, kind, *rest in members:
            details = dict(rest[0]) if rest else {}
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            info.mode = details.pop("mode", 0o755 if kind == "dir" else 0o644)
            content = details.pop("content", b"")
            info.linkname = details.pop("link", "")
            for key, value in details.items():
                setattr(info, key, value)
            info.size = len(content) if kind == "file" else 0
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
