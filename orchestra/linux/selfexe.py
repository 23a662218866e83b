"""Keeps the running program's file out of a container's reach (CVE-2019-5736).

A process that enters a container can be made to run ``/proc/self/exe``, and the container then holds a
handle on the host's interpreter. So whoever enters containers runs from a private, read-only copy of
the mount its interpreter lies on: opening it for writing is EROFS for everybody, root included.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import c_char_p, c_int, c_long

from orchestra.linux import calls
from orchestra.linux import constants as C

_execveat = ctypes.CDLL(None, use_errno=True)["syscall"]
_execveat.argtypes = (c_long, c_int, c_char_p, ctypes.POINTER(c_char_p), ctypes.POINTER(c_char_p), c_int)
_execveat.restype = c_long


def protected() -> bool:
    """Whether this process already runs from a read-only mount."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)


def reexec(arguments: list[str]) -> None:
    """Start over as ``arguments`` (arguments[0] is the name of the interpreter) from a read-only copy;
    returns at once when that has happened before. Without the privilege to mount it stays as it is:
    such a process has no rights on the interpreter that a container could abuse."""
    if protected():
        return
    try:
        tree = calls.open_tree(C.AT_FDCWD, "/proc/self/exe", C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC)
        calls.mount_setattr(tree, "", C.AT_EMPTY_PATH, set_=C.MOUNT_ATTR_RDONLY)
    except PermissionError:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    environment = [os.fsencode(f"{key}={value}") for key, value in os.environ.items()]
    argv = (c_char_p * (len(arguments) + 1))(*[os.fsencode(word) for word in arguments], None)
    envp = (c_char_p * (len(environment) + 1))(*environment, None)
    _execveat(calls._nr(322, 281), tree, b"", argv, envp, C.AT_EMPTY_PATH)
    raise calls.failed("execveat", arguments[0])
