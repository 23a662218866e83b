"""Copies a directory's content by descriptors, for ``tmpcopyup``: files, directories, links, FIFOs and
device nodes, with owner, mode, times and extended attributes. Follows no link."""

from __future__ import annotations

import os
import stat


def copy_tree(source: int, target: int) -> None:
    """Everything below the open directory ``source`` into ``target``, whose own mode and owner follow."""
    with os.scandir(source) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        _copy(source, target, name)
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    _copy_attributes(source, target)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy(source: int, target: int, name: str) -> None:
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.mkdir(name, 0o700, dir_fd=target)
        below, place = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
        try:
            copy_tree(below, place)
        finally:
            os.close(below)
            os.close(place)
        return
    if stat.S_ISREG(info.st_mode):
        _copy_file(source, target, name, info)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif not stat.S_ISSOCK(info.st_mode):
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
    else:
        return
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, info: os.stat_result) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    writer = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
    )
    try:
        while os.sendfile(writer, reader, None, 1 << 30):
            pass
        os.fchown(writer, info.st_uid, info.st_gid)
        os.fchmod(writer, stat.S_IMODE(info.st_mode))
        _copy_attributes(reader, writer)
        os.utime(writer, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        os.close(reader)
        os.close(writer)


def _copy_attributes(source: int, target: int) -> None:
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError:
        return  # the filesystem has none of these
