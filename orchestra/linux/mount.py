"""Mounting by file descriptors: what the raw calls are for, in safe combinations.

A target is always an open descriptor (see ``fs.open_inside``), never a path that somebody could swap.
``/proc/self/fd/N`` names it for mount(2); that needs a trusted /proc, which the host's is: these
functions are used before the root is changed.
"""

from __future__ import annotations

import errno
import os

from orchestra.linux import calls, fs
from orchestra.linux import constants as C

OTHERS = "/./"  # in the source of a mount: what follows is resolved without links (see ``clone_tree``)

PROPAGATION = {
    "private": C.MS_PRIVATE,
    "rprivate": C.MS_PRIVATE | C.MS_REC,
    "slave": C.MS_SLAVE,
    "rslave": C.MS_SLAVE | C.MS_REC,
    "shared": C.MS_SHARED,
    "rshared": C.MS_SHARED | C.MS_REC,
    "unbindable": C.MS_UNBINDABLE,
    "runbindable": C.MS_UNBINDABLE | C.MS_REC,
}


def fd_path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def clone_tree(path: str, *, recursive: bool, dir_fd: int = C.AT_FDCWD, follow: bool = True) -> int:
    """A detached copy of the mount at ``path`` ('' with a ``dir_fd``: of that very file). In ``/base/./rest``
    the base is ours and the rest others': it is looked up below the base, by no symbolic link."""
    base, mark, rest = path.partition(OTHERS)
    if mark:
        fd = open_beneath(base or "/", rest)
        try:
            return clone_tree("", dir_fd=fd, recursive=recursive)
        finally:
            os.close(fd)
    flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC
    if recursive:
        flags |= C.AT_RECURSIVE
    if not path:
        flags |= C.AT_EMPTY_PATH
    if not follow:
        flags |= C.AT_SYMLINK_NOFOLLOW
    return calls.open_tree(dir_fd, path, flags)


def open_beneath(base: str, rest: str) -> int:
    """A descriptor of ``rest`` below ``base``, by no symbolic link."""
    folder = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fs.open_inside(folder, rest, follow=False)
    finally:
        os.close(folder)


def attach(mount_fd: int, target_fd: int) -> None:
    """Put a detached mount on top of an open file or directory."""
    calls.move_mount(mount_fd, "", target_fd, "", C.MOVE_MOUNT_F_EMPTY_PATH | C.MOVE_MOUNT_T_EMPTY_PATH)


def set_attributes(
    mount_fd: int,
    *,
    set_: int = 0,
    clear: int = 0,
    recursive: bool = False,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change the mount whose root ``mount_fd`` is (``propagation`` is MS_PRIVATE and the like)."""
    flags = C.AT_EMPTY_PATH | (C.AT_RECURSIVE if recursive else 0)
    calls.mount_setattr(
        mount_fd, "", flags, set_=set_, clear=clear, propagation=propagation & ~C.MS_REC, userns_fd=userns_fd
    )


def filesystem(fstype: str, options: list[tuple[str, str | None]], attributes: int = 0) -> int:
    """A new, detached mount by fsopen/fsconfig/fsmount; an option without value is a flag."""
    context = calls.fsopen(fstype)
    try:
        for key, value in options:
            if value is None:
                calls.fsconfig(context, C.FSCONFIG_SET_FLAG, key, None)
            else:
                calls.fsconfig(context, C.FSCONFIG_SET_STRING, key, value)
        try:
            calls.fsconfig(context, C.FSCONFIG_CMD_CREATE, None, None)
        except OSError as problem:
            raise OSError(
                problem.errno, f"mount {fstype}: {_last_message(context) or os.strerror(problem.errno or 0)}"
            ) from None
        return calls.fsmount(context, attributes)
    finally:
        os.close(context)


def _last_message(context: int) -> str:
    """What the filesystem itself has to say (the fscontext's log)."""
    lines = []
    try:
        while line := os.read(context, 4096):
            lines.append(line.decode(errors="replace").strip())
    except OSError:
        pass
    return "; ".join(lines)


def bind_onto_self(target_fd: int, *, set_: int, recursive: bool = True) -> None:
    """Cover an open file or directory with a copy of its own mount that has these attributes."""
    copy = clone_tree("", dir_fd=target_fd, recursive=recursive)
    try:
        set_attributes(copy, set_=set_, recursive=recursive)
        attach(copy, target_fd)
    finally:
        os.close(copy)


def supports_idmap(path: str) -> bool:
    """Whether the filesystem at ``path`` takes id-mapped mounts (asked of the kernel, with a throw-away
    user namespace)."""
    from orchestra.linux import userns

    try:
        tree = clone_tree(path, recursive=False)
    except OSError:
        return False
    try:
        with userns.temporary([(0, 1, 1)], [(0, 1, 1)]) as fd:
            set_attributes(tree, set_=C.MOUNT_ATTR_IDMAP, userns_fd=fd)
        return True
    except OSError as problem:
        if problem.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    finally:
        os.close(tree)
