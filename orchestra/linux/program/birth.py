"""The new process: an ELF file in a sealed memfd, and a clone that becomes it at once.

Until then it runs on the parent's memory, as after vfork(2), but the parent need not wait: nothing in the child
writes to memory or reads what the parent changes, so neither has to be copied. Works in a process of any number
of threads. The parent reserves a row of numbers of descriptors (``_row``); what is put there for a moment is what
the child keeps. Its table is a copy of the parent's; where that is long, the child takes a copy of its low end
only, and the parent does wait for that (``_LONG``).
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import signal
import struct
from collections.abc import Callable
from ctypes import c_char_p, c_int, c_long, c_size_t, c_void_p

from orchestra.linux import constants as C
from orchestra.linux import native
from orchestra.linux.program.values import FIRST, GIFTS, Values

TEXT, DATA = 0x400000, 0x800000
_HEADERS, _CODE, _GIVEN = 0x100, 0x180, 0x400  # where the code begins, its length, where its input is told
_BIRTH, _HANDLER = 0x180, 0x160  # in the stub
_OPERATIONS = _GIVEN + 64
HANDLER = TEXT + _HEADERS + _HANDLER  # a signal handler: exit with 128 and the signal's number
_PAGE = 4096
_READ, _EXECUTE = 4, 1
_CLONE_VM, _CLONE_FILES, _CLONE_VFORK = 0x100, 0x400, 0x4000


class Image:
    """The program's file, made once; ``given`` is the number of its values."""

    def __init__(self, operations: bytes, data: bytes, given: int) -> None:
        self.fd = native.memfd("orchestra-init", file(operations, data, _row()[0] + 1, (FIRST + given) * 8))

    def __del__(self) -> None:
        fd = getattr(self, "fd", -1)
        if fd >= 0:
            os.close(fd)


def file(operations: bytes, data: bytes, channel: int = 0, values: int = 0) -> bytes:
    """The program as an ELF file; ``values`` is the size of what it reads from its channel into the first slots (0:
    it has no channel)."""
    size = _OPERATIONS + len(operations)
    start = size + -size % _PAGE
    header = (
        struct.pack(
            "=4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, 62, 1, TEXT + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0
        )
        + _segment(_READ | _EXECUTE, 0, TEXT, size)
        + _segment(_READ, start, DATA, len(data))
    )  # fmt: skip
    code = _stub()[:_CODE].ljust(_GIVEN - _HEADERS, b"\xcc")
    given = struct.pack("=II56x", channel, values)
    return b"".join(
        (header.ljust(_HEADERS, b"\0"), code, given, operations.ljust(start - _OPERATIONS, b"\0"), data)
    )


def _segment(flags: int, offset: int, place: int, size: int) -> bytes:
    return struct.pack("=IIQQQQQQ", 1, flags, offset, place, place, size, size, _PAGE)


@functools.cache
def available() -> bool:
    """Whether this machine runs such programs."""
    try:
        return os.uname().machine == "x86_64" and bool(_function()) and bool(_row())
    except OSError:
        return False


def _stub() -> bytes:
    return native.file_beside(__file__, "stub.x86_64")


_Birth = ctypes.PYFUNCTYPE(c_long, c_char_p, c_size_t, c_char_p, c_void_p, c_void_p)  # keeps the GIL
_ARGV = (c_char_p * 2)(b"orchestra-init", None)
_ENVP = (c_char_p * 1)(None)


@functools.cache
def _function() -> Callable[..., int]:
    """``birth`` of the stub."""
    return _Birth(native.load(_stub()[_BIRTH:]))


@functools.cache
def _row() -> tuple[int, int]:
    """(the first of the reserved numbers, what stands there while they are not used). They stay for good, in
    copies of this process too."""
    null = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    found: list[int] = []
    try:
        while len(found) < GIFTS:
            number = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, found[-1] + 1 if found else null + 1)
            if found and number != found[-1] + 1:
                _close(found)
            found.append(number)
    except BaseException:
        _close([null, *found])
        raise
    return found[0], null


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    fds.clear()


_LONG = 1024  # descriptors, from which on a copy costs more than waiting
_SHARED = _CLONE_VM | C.CLONE_PIDFD | C.CLONE_CLEAR_SIGHAND
_ARGV_AT, _ENVP_AT = ctypes.addressof(_ARGV), ctypes.addressof(_ENVP)
_gifts = struct.Struct("=4I")
_arguments = struct.Struct("=11Q")


def run(
    image: Image, values: Values, ours: int, theirs: int, flags: int, cgroup_fd: int | None
) -> tuple[int, int]:
    """(pid, pidfd); see ``Program.run``."""
    (first, null), pidfd = _row(), c_int(-1)
    os.write(ours, values.message(first + 1))
    flags |= _SHARED | (C.CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    after = first + GIFTS if theirs >= _LONG else 0
    flags |= _CLONE_VFORK | _CLONE_FILES if after else 0
    sources = (image.fd, theirs, *values.sources)
    gifts = _gifts.pack(len(sources), first, after, null) + struct.pack(f"={len(sources)}i", *sources)
    arguments = _arguments.pack(
        flags, ctypes.addressof(pidfd), 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup_fd or 0
    )
    pid = _function()(arguments, len(arguments), gifts, _ARGV_AT, _ENVP_AT)
    if pid < 0:
        raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
    return int(pid), pidfd.value
