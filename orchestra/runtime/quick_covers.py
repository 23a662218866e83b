"""Masked and read-only paths of a quick start: what ``rootfs.mask`` and ``protect`` do, as calls of a program (see
``quick``)."""

from __future__ import annotations

import errno
import functools
import os

from orchestra.linux import constants as C
from orchestra.linux.program import NR, Program, Slot
from orchestra.runtime import rootfs
from orchestra.runtime.plan import Plan

_IN_ROOT = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_EMPTY: list[tuple[str, str | None]] = [("nr_blocks", "1"), ("nr_inodes", "2"), ("mode", "555"), ("ro", None)]


def cover(program: Program, plan: Plan, inside: Slot) -> None:
    """Masked and read-only paths; what is not there stays so. Of directories the first gets a new tmpfs, the
    others copies of that mount."""
    empty: Slot | None = None
    null: Slot | None = None
    for path in plan.masked:
        if _is_directory(path):
            fresh = empty is None
            empty = tmpfs(program, _EMPTY, C.MOUNT_ATTR_RDONLY) if empty is None else empty
            target = _covered(program, inside, path, 1 if fresh else 2)
            program.attach(empty if fresh else _copy(program, empty), target)
        else:
            null = _null(program) if null is None else null
            target = _covered(program, inside, path, 2)
            program.attach(_copy(program, null), target)
    for path in plan.protected:
        target = _covered(program, inside, path, 3)
        tree = _copy(program, target, C.AT_RECURSIVE)
        program.set_attributes(tree, C.AT_RECURSIVE, set_=C.MOUNT_ATTR_RDONLY)
        program.attach(tree, target)


def _covered(program: Program, inside: Slot, path: str, skip: int) -> Slot:
    """``skip`` calls are left out when there is no such path. Below /proc and /sys no link is followed."""
    strict = C.RESOLVE_NO_SYMLINKS if path.startswith(("/proc/", "/sys/")) else 0
    return program.open(
        inside, os.fsencode(path.lstrip("/")), os.O_PATH, _IN_ROOT | strict, soft=_ABSENT, skip=skip
    )


def _copy(program: Program, tree: Slot, flags: int = 0) -> Slot:
    flags |= C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC | C.AT_EMPTY_PATH
    return program.call(NR.open_tree, tree, b"", flags, keep=True)


@functools.lru_cache(maxsize=256)
def _is_directory(path: str) -> bool:
    """Whether it is a directory in the host's /proc or /sys, which have the same entries. Where that turns
    out wrong the mount fails, and with it the program."""
    return path.startswith(("/proc/", "/sys/")) and os.path.isdir(path)


def _null(program: Program) -> Slot:
    """The host's /dev/null, looked at when the program is written."""
    os.close(rootfs.host_null())
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return program.call(NR.openat, C.AT_FDCWD, b"/dev/null", flags, 0, keep=True)


def tmpfs(program: Program, options: list[tuple[str, str | None]], attributes: int) -> Slot:
    """A new, detached tmpfs."""
    context = program.call(NR.fsopen, b"tmpfs", C.FSOPEN_CLOEXEC, keep=True)
    for key, value in options:
        kind = C.FSCONFIG_SET_FLAG if value is None else C.FSCONFIG_SET_STRING
        program.call(NR.fsconfig, context, kind, key.encode(), 0 if value is None else value.encode(), 0)
    program.call(NR.fsconfig, context, C.FSCONFIG_CMD_CREATE, 0, 0, 0)
    return program.call(NR.fsmount, context, C.FSMOUNT_CLOEXEC, attributes, keep=True)
