"""clone3(2) from Python, with the interpreter's own fork hooks around it.

Only for a single-threaded process: after the call the child runs on a copy of the whole interpreter,
and a lock that another thread held would stay locked for ever. The call goes through ``PyDLL``, which
keeps the GIL, exactly as ``os.fork`` does.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from ctypes import c_char_p, c_long, c_size_t

from orchestra.linux.constants import CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CLONE_PARENT, CLONE_PIDFD

_syscall = ctypes.PyDLL(None, use_errno=True)["syscall"]
_syscall.argtypes = (c_long, c_char_p, c_size_t)
_syscall.restype = c_long
_before = ctypes.pythonapi.PyOS_BeforeFork
_after_child = ctypes.pythonapi.PyOS_AfterFork_Child
_after_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
for _hook in (_before, _after_child, _after_parent):
    _hook.argtypes = ()
    _hook.restype = None

_NR_CLONE3 = 435


def clone(flags: int = 0, *, cgroup_fd: int | None = None) -> tuple[int, int]:
    """(pid, pidfd) in the parent, (0, -1) in the child. ``flags`` are CLONE_NEW… and CLONE_PARENT;
    ``cgroup_fd`` (version 2) is the directory the child starts in. The child has no signal handlers."""
    pidfd = ctypes.c_int(-1)
    flags |= CLONE_PIDFD | CLONE_CLEAR_SIGHAND | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    exit_signal = 0 if flags & CLONE_PARENT else signal.SIGCHLD  # with CLONE_PARENT it is inherited
    arguments = struct.pack(
        "=11Q",
        flags,
        ctypes.addressof(pidfd),
        0,
        0,
        exit_signal,
        0,
        0,
        0,
        0,
        0,
        cgroup_fd if cgroup_fd is not None else 0,
    )
    _before()
    pid = _syscall(_NR_CLONE3, arguments, len(arguments))
    if pid == 0:
        _after_child()
        return 0, -1
    number = ctypes.get_errno()
    _after_parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return int(pid), pidfd.value
