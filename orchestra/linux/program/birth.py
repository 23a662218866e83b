"""The new process: an ELF file in a sealed memfd, and a clone that becomes it at once.

The parent's memory is shared until then, as vfork(2) does it: nothing of it is copied, and nothing in the
child writes to it. Works in a process of any number of threads.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import struct
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_void_p

from orchestra.linux import constants as C
from orchestra.linux import native
from orchestra.linux.program.values import PLACE, SLOT_COUNT, Values

TEXT, DATA = 0x400000, 0x800000
_HEADERS, _CODE, _SLOTS = 0x100, 0x160, 0x400  # where the code begins, its length, where the slots are
_BIRTH, _HANDLER = 0x160, 0x120  # in the stub
HANDLER = TEXT + _HEADERS + _HANDLER  # a signal handler: exit with 128 and the signal's number
_PAGE = 4096
_READ, _EXECUTE = 4, 1
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


def _stub() -> bytes:
    return native.file_beside(__file__, "stub.x86_64")


_Birth = ctypes.PYFUNCTYPE(c_long, c_char_p, c_size_t, c_int, c_void_p, c_void_p)  # keeps the GIL
_ARGV = (c_char_p * 2)(b"orchestra-init", None)
_ENVP = (c_char_p * 1)(None)


@functools.cache
def _function() -> Callable[..., int]:
    """``birth`` of the stub."""
    return _Birth(native.load(_stub()[_BIRTH:]))


def run(image: Image, values: Values, flags: int, cgroup_fd: int | None) -> tuple[int, int]:
    """(pid, pidfd); see ``Program.run``."""
    call, pidfd = _function(), c_int(-1)
    flags |= _CLONE_VM | _CLONE_VFORK | C.CLONE_PIDFD | C.CLONE_CLEAR_SIGHAND
    flags |= C.CLONE_INTO_CGROUP if cgroup_fd is not None else 0
    arguments = struct.pack(
        "=11Q", flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0
    )
    file = native.memfd("orchestra-init", image.file(values))
    try:
        values.share()
        pid = call(arguments, len(arguments), file, ctypes.addressof(_ARGV), ctypes.addressof(_ENVP))
    finally:
        os.close(file)
    if pid < 0:
        raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
    return int(pid), pidfd.value
