"""The new process: an ELF file in a sealed memfd, and a clone that becomes it at once.

The parent's memory is shared until then, as vfork(2) does it: nothing of it is copied, and nothing in the
child writes to it. Works in a process of any number of threads.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import mmap
import os
import signal
import struct
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_void_p

from orchestra.linux import constants as C
from orchestra.linux.program.values import PLACE, SLOT_COUNT, Values

TEXT, DATA = 0x400000, 0x800000
_HEADERS, _CODE, _SLOTS = 0x100, 0x160, 0x400  # where the code begins, its length, where the slots are
_BIRTH, _HANDLER = 0x160, 0x120  # in the stub
HANDLER = TEXT + _HEADERS + _HANDLER  # a signal handler: exit with 128 and the signal's number
_PAGE = 4096
_READ, _EXECUTE = 4, 1
_MFD_ALLOW_SEALING, _MFD_EXEC = 2, 16
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000


class Image:
    """An ELF file without its values."""

    def __init__(self, operations: bytes, data: bytes) -> None:
        size = _SLOTS + SLOT_COUNT * 8 + len(operations)
        start = _rounded(size)
        self._values = _rounded(start + len(data))
        self._header = (
            struct.pack(
                "=4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, 62, 1, TEXT + _HEADERS, 64, 0, 0, 64, 56, 3, 0, 0, 0
            )
            + _segment(_READ | _EXECUTE, 0, TEXT, size)
            + _segment(_READ, start, DATA, len(data))
        )  # fmt: skip
        self._code = _stub()[:_CODE].ljust(_SLOTS - _HEADERS, b"\xcc")
        self._rest = (operations.ljust(start - _SLOTS - SLOT_COUNT * 8, b"\0") + data).ljust(
            self._values - _SLOTS - SLOT_COUNT * 8, b"\0"
        )

    def file(self, values: Values) -> bytes:
        slots = values.slots
        header = self._header + _segment(_READ, self._values, PLACE, len(values.data))
        table = struct.pack(f"={len(slots)}Q", *slots).ljust(SLOT_COUNT * 8, b"\0")
        return b"".join((header.ljust(_HEADERS, b"\0"), self._code, table, self._rest, values.data))


def _rounded(size: int) -> int:
    return size + -size % _PAGE


def _segment(flags: int, offset: int, place: int, size: int) -> bytes:
    return struct.pack("=IIQQQQQQ", 1, flags, offset, place, place, size, size, _PAGE)


@functools.cache
def available() -> bool:
    """Whether this machine runs such programs."""
    try:
        return os.uname().machine == "x86_64" and bool(_function())
    except OSError:
        return False


@functools.cache
def _stub() -> bytes:
    with open(os.path.join(os.path.dirname(__file__), "stub.x86_64"), "rb") as file:
        return file.read()


_Birth = ctypes.PYFUNCTYPE(c_long, c_char_p, c_size_t, c_int, c_void_p, c_void_p)  # keeps the GIL
_ARGV = (c_char_p * 2)(b"orchestra-init", None)
_ENVP = (c_char_p * 1)(None)


@functools.cache
def _function() -> Callable[..., int]:
    """``birth`` of the stub, in memory that is executable and not writable. It stays for good."""
    code = _stub()[_BIRTH:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = c_void_p
    libc.mmap.argtypes = (c_void_p, c_size_t, c_int, c_int, c_int, c_long)
    fd = _memfd(code)
    try:
        place = libc.mmap(None, len(code), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)
    if place == c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no executable memory")
    return _Birth(place)


def _memfd(data: bytes) -> int:
    flags = os.MFD_CLOEXEC | _MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("orchestra-init", flags | _MFD_EXEC)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # before kernel 6.3 there is no such flag
            raise
        fd = os.memfd_create("orchestra-init", flags)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def run(image: Image, values: Values, flags: int, cgroup_fd: int | None) -> tuple[int, int]:
    """(pid, pidfd); see ``Program.run``."""
    call, pidfd = _function(), c_int(-1)
    flags |= _CLONE_VM | _CLONE_VFORK | C.CLONE_PIDFD | C.CLONE_CLEAR_SIGHAND
    flags |= C.CLONE_INTO_CGROUP if cgroup_fd is not None else 0
    arguments = struct.pack(
        "=11Q", flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0
    )
    file = _memfd(image.file(values))
    try:
        values.share()
        pid = call(arguments, len(arguments), file, ctypes.addressof(_ARGV), ctypes.addressof(_ENVP))
    finally:
        os.close(file)
    if pid < 0:
        raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
    return int(pid), pidfd.value
