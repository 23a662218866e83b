"""Machine code of our own: in memory that is executable and that nobody can write to."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
from ctypes import c_int, c_long, c_size_t, c_void_p

_MFD_ALLOW_SEALING, _MFD_EXEC = 2, 16
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_libc = ctypes.CDLL(None, use_errno=True)
_mmap = _libc["mmap"]
_mmap.restype = c_void_p
_mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
_munmap = _libc["munmap"]
_munmap.restype = c_int
_munmap.argtypes = (c_void_p, c_size_t)


def memfd(name: str, data: bytes) -> int:
    """A sealed file in memory, executable; close-on-exec."""
    flags = os.MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # before kernel 6.3 there is no such flag
            raise
        fd = os.memfd_create(name, flags)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Nothing changes the file any more."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def map_file(fd: int, length: int, protection: int) -> int:
    """The address of a private mapping of the file's beginning."""
    place = _mmap(None, length, protection, mmap.MAP_PRIVATE, fd, 0)
    if place == c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap: {os.strerror(number)}")
    return int(place)


def unmap(place: int, length: int) -> None:
    _munmap(place, length)


def load(code: bytes) -> int:
    """The address of the code; it stays for good. ``OSError`` where no memory may be executable."""
    fd = memfd("orchestra-code", code)
    try:
        return map_file(fd, len(code), mmap.PROT_READ | mmap.PROT_EXEC)
    finally:
        os.close(fd)


@functools.cache
def file_beside(module: str, name: str) -> bytes:
    """A file of machine code in the folder of that module."""
    with open(os.path.join(os.path.dirname(module), name), "rb") as file:
        return file.read()
