"""Project quotas: a limit for all files below a directory (ext4 with ``prjquota``, xfs with ``pquota``).

A directory gets a project number that what is made in it inherits; the filesystem counts the blocks of each
project and refuses more than its limit (ENOSPC or EDQUOT).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from ctypes import c_char_p, c_int, c_uint, c_void_p

from orchestra.linux import calls, procfs

_GET_ATTRIBUTES, SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=5I8x")  # flags, extent size, extents, project, copy-on-write size
_INHERIT = 0x200
_PROJECT = 2  # PRJQUOTA
_SET_LIMIT, _STATE = 0x800008, 0x5805  # Q_SETQUOTA, Q_XGETQSTAT
_BLOCK_LIMITS = 1
_LIMIT = struct.Struct("=8QI4x")  # if_dqblk
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_UNIT = 1024

_quotactl_fd = calls._system(c_uint, c_uint, c_int, c_void_p)
_quotactl = calls._system(c_int, c_char_p, c_int, c_void_p)


def project(path: str | os.PathLike[str]) -> int:
    """The project of a file or directory; 0 where the filesystem has none."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _attributes(fd)[3]
    except OSError as problem:
        if problem.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return 0
        raise
    finally:
        os.close(fd)


def set_project(path: str | os.PathLike[str], number: int) -> None:
    """Put an empty directory, and what will be made in it, into a project."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags, extent, extents, _, copy = _attributes(fd)
        fcntl.ioctl(fd, SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, number, copy))
    finally:
        os.close(fd)


def _attributes(fd: int) -> tuple[int, int, int, int, int]:
    data = fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    flags, extent, extents, number, copy = _ATTRIBUTES.unpack(data)
    return flags, extent, extents, number, copy


def enforced(path: str | os.PathLike[str]) -> bool:
    """Whether the filesystem at ``path`` heeds limits of projects."""
    state = ctypes.create_string_buffer(256)
    try:
        _control(path, _STATE, 0, state)
    except OSError:
        return False
    return bool(struct.unpack_from("=H", state.raw, 2)[0] & _ENFORCED)


def set_limit(path: str | os.PathLike[str], number: int, size: int) -> None:
    """At most ``size`` bytes (rounded up to 1 KiB) for the project on the filesystem at ``path``; 0: no limit."""
    blocks = -(-size // _UNIT)
    data = _LIMIT.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS)
    _control(path, _SET_LIMIT, number, ctypes.create_string_buffer(data, len(data)))


def _control(
    path: str | os.PathLike[str], command: int, number: int, data: ctypes.Array[ctypes.c_char]
) -> None:
    whole = command << 8 | _PROJECT
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not _quotactl_fd(443, fd, whole, number, data):
            return
        if ctypes.get_errno() != errno.ENOSYS:
            raise calls.failed("quotactl_fd", os.fspath(path))
    finally:
        os.close(fd)
    if _quotactl(calls._nr(179, 60), whole, os.fsencode(_device(path)), number, data):  # before Linux 5.14
        raise calls.failed("quotactl", os.fspath(path))


def _device(path: str | os.PathLike[str]) -> str:
    """The block device that is mounted where ``path`` is."""
    real = os.path.realpath(path)
    best = max(
        (
            m
            for m in procfs.mounts()
            if m.target == "/" or real == m.target or real.startswith(m.target + "/")
        ),
        key=lambda m: len(m.target),
    )
    return best.source


__all__ = ["enforced", "project", "set_limit", "set_project"]
