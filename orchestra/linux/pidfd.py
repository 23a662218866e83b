"""Processes by descriptor: a pid may be reused, a pidfd never names another process."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
from typing import NamedTuple

from orchestra.linux import constants as C

_syscall = ctypes.CDLL(None, use_errno=True)["syscall"]
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)
_syscall.restype = ctypes.c_long

# struct pidfd_info (linux/pidfd.h): u64 mask, u64 cgroupid, u32 pid tgid ppid, 8 ids, s32 exit_code, …
_SIZE = 64
_GET_INFO = 0xC0000000 | _SIZE << 16 | 0xFF << 8 | 11


class Info(NamedTuple):
    """``exit_status`` is in the form of waitpid(2); None while it is not known."""

    pid: int
    parent: int
    exit_status: int | None


def open_pid(pid: int) -> int:
    """A descriptor of the process (CLOEXEC)."""
    return os.pidfd_open(pid)


def send_signal(fd: int, number: int) -> None:
    """``ProcessLookupError`` when it has ended."""
    signal.pidfd_send_signal(fd, number)


def alive(fd: int) -> bool:
    """False from the moment it is a zombie."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return not poller.poll(0)


def wait(fd: int, timeout: float | None = None) -> bool:
    """Wait for its end; False when the time was over first."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout is None else timeout * 1000))


def info(fd: int) -> Info | None:
    """What the kernel tells of it, also after it was reaped by somebody else (exit status from
    kernel 6.15); None where the kernel has no such call (before 6.13)."""
    buffer = bytearray(_SIZE)
    struct.pack_into("=Q", buffer, 0, C.PIDFD_INFO_PID | C.PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _GET_INFO, buffer, True)
    except OSError as problem:
        if problem.errno in (errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.ESRCH):
            return None
        raise
    mask, _cgroup, _pid, tgid, parent = struct.unpack_from("=QQIII", buffer)
    exit_status = struct.unpack_from("=i", buffer, 60)[0] if mask & C.PIDFD_INFO_EXIT else None
    return Info(tgid, parent, exit_status)


def inode(fd: int) -> int:
    """A number unique to the process until reboot (kernel 6.9 on; before it is the same for all)."""
    return os.fstat(fd).st_ino
