"""Signal dispositions and masks by the raw system calls, and signalfd.

libc keeps signals 32 and 33 to itself and refuses to touch them; a program that starts with them
ignored would surprise. So everything here goes past libc.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from ctypes import c_char_p, c_int, c_long, c_size_t

from orchestra.linux import calls
from orchestra.linux.constants import NSIG, SIG_SETMASK

_libc = ctypes.CDLL(None, use_errno=True)
_rt_sigaction = _libc["syscall"]
_rt_sigaction.argtypes = (c_long, c_int, c_char_p, c_char_p, c_size_t)
_rt_sigaction.restype = c_long
_rt_sigprocmask = _libc["syscall"]
_rt_sigprocmask.argtypes = (c_long, c_int, c_char_p, c_char_p, c_size_t)
_rt_sigprocmask.restype = c_long
_signalfd4 = _libc["syscall"]
_signalfd4.argtypes = (c_long, c_int, c_char_p, c_size_t, c_int)
_signalfd4.restype = c_long

_NR_SIGACTION = calls._nr(13, 134)
_NR_SIGPROCMASK = calls._nr(14, 135)
_NR_SIGNALFD4 = calls._nr(289, 74)
_DEFAULT = bytes(32)  # struct kernel_sigaction: SIG_DFL, no flags, no restorer, empty mask


def mask_of(numbers: Iterable[int]) -> bytes:
    """A kernel sigset of these signals."""
    bits = 0
    for number in numbers:
        bits |= 1 << (number - 1)
    return struct.pack("=Q", bits)


def reset_all() -> None:
    """Every disposition to its default, no signal blocked: what a fresh program may expect."""
    for number in range(1, NSIG + 1):
        if number not in (9, 19):
            _rt_sigaction(_NR_SIGACTION, number, _DEFAULT, None, 8)
    set_mask(())


def set_mask(numbers: Iterable[int]) -> None:
    """Block exactly these signals."""
    if _rt_sigprocmask(_NR_SIGPROCMASK, SIG_SETMASK, mask_of(numbers), None, 8):
        raise calls.failed("rt_sigprocmask")


def signalfd(numbers: Iterable[int]) -> int:
    """A non-blocking CLOEXEC signalfd; block the signals besides (``signal.pthread_sigmask``)."""
    fd = _signalfd4(_NR_SIGNALFD4, -1, mask_of(numbers), 8, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise calls.failed("signalfd")
    return int(fd)


def read_signals(fd: int) -> list[tuple[int, int]]:
    """(signal, sender's pid) of all that are pending."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            data = os.read(fd, 128 * 16)
        except BlockingIOError:
            return found
        for offset in range(0, len(data), 128):
            number, _errno, _code, pid = struct.unpack_from("=IiiI", data, offset)
            found.append((number, pid))
