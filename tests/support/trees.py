"""File trees for the tests of layers: described as data, made on disk, read back for comparison."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestra.images.rootfs import dress_upper, lowerdirs

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw+ep


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


@contextlib.contextmanager
def overlay(lowers: list[Path], base: Path) -> Iterator[Path]:
    """A mounted overlay of ``lowers`` (lowest first) with an upper directory ``base/upper``."""
    for name in ("upper", "work", "merged"):
        (base / name).mkdir(parents=True)
    dress_upper(base / "upper", lowers)
    options = f"lowerdir={':'.join(lowerdirs(lowers))},upperdir={base}/upper,workdir={base}/work"
    options += ",redirect_dir=off,metacopy=off,index=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(base / "merged")], check=True)
    try:
        yield base / "merged"
    finally:
        subprocess.run(["umount", str(base / "merged")], check=True)


def everything(folder: Path) -> None:
    """A tree with one of each."""
    folder.mkdir()
    (folder / "file").write_bytes(b"content")
    os.setxattr(folder / "file", "security.capability", CAPABILITY)
    os.setxattr(folder / "file", "user.note", b"\0\xff")
    os.setxattr(folder / "file", "trusted.note", b"t")
    os.link(folder / "file", folder / "hard")
    (folder / "setuid").write_bytes(b"x")
    os.chown(folder / "setuid", 70_000, 4_000_000_000)
    (folder / "setuid").chmod(0o6755)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    os.mkfifo(folder / "fifo", 0o622)
    (folder / "link").symlink_to("../outside")
    os.lchown(folder / "link", 5, 6)
    os.setxattr(folder / "link", "trusted.note", b"on a link", follow_symlinks=False)
    (folder / "sticky").mkdir()
    (folder / "sticky").chmod(0o1777)
    (folder / "closed").mkdir()
    (folder / "closed" / "in").write_text("x")
    (folder / "closed").chmod(0o000)
    (folder / "setgid").mkdir()
    (folder / "setgid" / "in").write_text("x")
    os.chown(folder / "setgid", 0, 33)
    (folder / "setgid").chmod(0o2775)
    (folder / ("long" * 50)).write_text("long")
    with open(folder / "sparse", "wb") as stream:
        stream.truncate(50 << 20)
    for path in folder.rglob("*"):
        os.utime(path, ns=(0, 1_500_000_000_123_456_789), follow_symlinks=False)


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size at ``folder``."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
