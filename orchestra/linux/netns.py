"""Work within another network namespace, for the calling thread alone (setns(2) is per thread)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TypeVar

CLONE_NEWNET = 0x40000000

_Result = TypeVar("_Result")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.setns.restype = ctypes.c_int


def enter(netns_fd: int) -> None:
    """Moves the calling thread into the namespace."""
    if _libc.setns(netns_fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def run_in(netns_fd: int, func: Callable[[], _Result]) -> _Result:
    """``func()`` with the calling thread in the namespace; the thread is back in its own afterwards.
    Sockets made meanwhile belong to that namespace for good."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(netns_fd)
        try:
            return func()
        finally:
            enter(home)
    finally:
        os.close(home)
