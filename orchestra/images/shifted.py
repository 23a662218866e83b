"""Shifted ownership: trees whose ids on disk are those of a user namespace's range, for filesystems (and kernels)
that cannot map the ids of a mount.

    layers/<chain-id>/shifted-<uid>-<gid>-<size>/      a copy of ``fs`` for one range
    layers/<chain-id>/.shifted-<hex>/                  being made

A copy is made once, under the layer's lock, is visible only when whole, and goes with its
layer, or at a pruning when no running container has the range. Ids outside of the
range stay as they are: inside they are nobody's. Access lists and file capabilities are shifted, too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import OrchestraError
from orchestra.images import rootfs

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

Ids = tuple[int, int, int]
"""(first uid, first gid, how many) outside; the first is 0 inside."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_LISTS = ("system.posix_acl_access", "system.posix_acl_default")
_NAMED = {0x02: 0, 0x08: 1}  # entries of an access list for a user, for a group → index in Ids
_CHUNK = 1 << 20


# one id, one attribute


def moved(number: int, kind: int, old: Ids | None, new: Ids | None) -> int:
    """What an id on disk becomes (``kind`` 0: uid, 1: gid). What has been moved already stays."""
    if new and new[kind] <= number < new[kind] + new[2]:
        return number
    inside = number - old[kind] if old and old[kind] <= number < old[kind] + old[2] else number
    return new[kind] + inside if new and inside < new[2] else inside


def attribute(name: str, value: bytes, old: Ids | None, new: Ids | None) -> bytes:
    """An extended attribute with the ids in it moved."""
    if name == _CAPABILITY:
        return _capability(value, old, new)
    if name in _LISTS:
        return _access_list(value, old, new)
    return value


def _capability(value: bytes, old: Ids | None, new: Ids | None) -> bytes:
    """The third form names the user namespace (by its root) in which it counts; the second form is the host's."""
    if len(value) not in (20, 24):
        return value
    (magic,) = struct.unpack_from("<I", value)
    root = struct.unpack_from("<I", value, 20)[0] if len(value) == 24 else 0
    if root and not (old and root == old[0]):
        return value
    body = value[4:20]
    if new is None:
        return struct.pack("<I", magic & 0x00FFFFFF | 0x02000000) + body
    return struct.pack("<I", magic & 0x00FFFFFF | 0x03000000) + body + struct.pack("<I", new[0])


def _access_list(value: bytes, old: Ids | None, new: Ids | None) -> bytes:
    found = bytearray(value)
    for place in range(4, len(value) - 7, 8):
        tag, _, number = struct.unpack_from("<HHI", value, place)
        kind = _NAMED.get(tag)
        if kind is not None:
            struct.pack_into("<I", found, place + 4, moved(number, kind, old, new))
    return bytes(found)


# a tree in its place


def move_tree(root: Path, old: Ids | None, new: Ids | None) -> None:
    """Move the owners of everything below ``root`` and of itself. May be done again after a crash."""
    top = os.open(root, _DIRECTORY)
    try:
        _move_inside(top, old, new)
        _move_one(top, ".", old, new)
    except RecursionError:
        raise OrchestraError(
            f"cannot change the owners in {root}: too many directories in each other"
        ) from None
    finally:
        os.close(top)


def _move_inside(folder: int, old: Ids | None, new: Ids | None) -> None:
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            fd = os.open(name, _DIRECTORY, dir_fd=folder)
            try:
                _move_inside(fd, old, new)
            finally:
                os.close(fd)
        _move_one(folder, name, old, new)


def _move_one(folder: int, name: str, old: Ids | None, new: Ids | None) -> None:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    uid, gid = moved(found.st_uid, 0, old, new), moved(found.st_gid, 1, old, new)
    place = f"/proc/self/fd/{folder}/{name}"
    attributes = {} if stat.S_ISLNK(found.st_mode) else _with_ids(place, old, new)
    if (uid, gid) != (found.st_uid, found.st_gid):
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(found.st_mode):
            os.chmod(place, stat.S_IMODE(found.st_mode))  # chown has cleared these bits
    for key, value in attributes.items():
        os.setxattr(place, key, value, follow_symlinks=False)


def _with_ids(place: str, old: Ids | None, new: Ids | None) -> dict[str, bytes]:
    """Attributes that have ids in them, moved. (chown takes the capabilities away: they are set again.)"""
    found = {}
    with contextlib.suppress(OSError):
        for key in os.listxattr(place, follow_symlinks=False):
            if key == _CAPABILITY or key in _LISTS:
                value = os.getxattr(place, key, follow_symlinks=False)
                found[key] = attribute(key, value, old, new)
    return found


# a copy


def layers(store: ImageStore, image: Image, ids: Ids) -> list[Path]:
    """The image's layers as ``store.layers(image)`` has them, with shifted owners; made where they are missing."""
    plain = store.layers(image)
    with store.lease():
        return [_layer(store, chain, path, ids) for chain, path in zip(image.chain_ids, plain, strict=True)]


def of_paths(paths: Sequence[Path], ids: Ids) -> list[Path]:
    """Where the copies of these unpacked layers are."""
    return [path.parent / f"{rootfs.COPY}{ids[0]}-{ids[1]}-{ids[2]}" for path in paths]


def _layer(store: ImageStore, chain: str, source: Path, ids: Ids) -> Path:
    (wanted,) = of_paths([source], ids)
    if _kept(wanted):
        return wanted
    with rootfs.layer_lock(store, chain):
        if _kept(wanted):
            return wanted
        for left in source.parent.glob(f"{rootfs.COPY_DRAFT}*"):  # of one that was killed
            rootfs.remove_tree(left)
        draft = source.parent / f"{rootfs.COPY_DRAFT}{secrets.token_hex(8)}"
        try:
            draft.mkdir(mode=0o700)
            copy_tree(source, draft, ids)
            os.rename(draft, wanted)
        except OSError as problem:
            rootfs.remove_tree(draft)
            raise OrchestraError(f"cannot make the shifted copy of a layer: {problem.strerror}") from None
    return wanted


def _kept(copy: Path) -> bool:
    """Whether it is there; then it counts as new, so that a lease protects it."""
    try:
        found = copy.stat()
        os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
    except FileNotFoundError:
        return False
    return True


def copy_tree(source: Path, target: Path, ids: Ids) -> None:
    """Everything of ``source`` into the empty ``target``, owned by the range; hard links stay such."""
    above = os.open(source, _DIRECTORY)
    below = os.open(target, _DIRECTORY)
    try:
        _copy_inside(above, below, ids, {})
        _dress(f"/proc/self/fd/{above}/.", f"/proc/self/fd/{below}/.", os.fstat(above), ids)
    finally:
        os.close(above)
        os.close(below)


def _copy_inside(source: int, target: int, ids: Ids, known: dict[tuple[int, int], str]) -> None:
    for name in os.listdir(source):
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        here, there = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{target}/{name}"
        if stat.S_ISDIR(found.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner, place = (os.open(name, _DIRECTORY, dir_fd=fd) for fd in (source, target))
            try:
                _copy_inside(inner, place, ids, known)
            finally:
                os.close(inner)
                os.close(place)
        elif found.st_nlink > 1 and (first := known.get((found.st_dev, found.st_ino))):
            os.link(first, there, follow_symlinks=False)
            continue
        else:
            _copy_one(here, there, found)
            if found.st_nlink > 1:
                known[found.st_dev, found.st_ino] = os.path.realpath(f"/proc/self/fd/{target}") + f"/{name}"
        _dress(here, there, found, ids)


def _copy_one(here: str, there: str, found: os.stat_result) -> None:
    mode = found.st_mode
    if stat.S_ISREG(mode):
        reader = os.open(here, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            writer = os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _pour(reader, writer, found.st_size)
            finally:
                os.close(writer)
        finally:
            os.close(reader)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(here), there)
    else:
        os.mknod(there, mode, found.st_rdev)


def _pour(reader: int, writer: int, size: int) -> None:
    """By the kernel where it can (which shares blocks on some filesystems), else by hand."""
    try:
        done = 0
        while done < size and (count := os.copy_file_range(reader, writer, size - done)):
            done += count
        if done == size:
            return
    except OSError:
        pass  # by hand
    os.lseek(reader, 0, os.SEEK_SET)
    os.ftruncate(writer, 0)
    os.lseek(writer, 0, os.SEEK_SET)
    while data := os.read(reader, _CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]


def _dress(here: str, there: str, found: os.stat_result, ids: Ids) -> None:
    """Owner, mode, attributes and times, in the order in which none takes another away."""
    os.chown(
        there, moved(found.st_uid, 0, None, ids), moved(found.st_gid, 1, None, ids), follow_symlinks=False
    )
    link = stat.S_ISLNK(found.st_mode)
    if not link:
        os.chmod(there, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(here, follow_symlinks=False):
        value = attribute(name, os.getxattr(here, name, follow_symlinks=False), None, ids)
        os.setxattr(there, name, value, follow_symlinks=False)
    os.utime(there, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


__all__ = ["Ids", "attribute", "copy_tree", "layers", "move_tree", "moved", "of_paths"]
