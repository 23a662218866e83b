"""Files below a directory that others may be changing: by descriptor, never by path.

``open_inside`` and ``make_inside`` resolve within ``root_fd`` as a chroot would (an absolute symbolic
link starts at the root again, ``..`` stops there) and never follow a magic link of /proc. The kernel
does the walk, so no race leads out.
"""

from __future__ import annotations

import errno
import os
import stat

from orchestra.linux import calls
from orchestra.linux import constants as C

INSIDE = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS
O_PATH = os.O_PATH


def open_inside(
    root_fd: int, path: str, flags: int = O_PATH, *, mode: int = 0, follow: bool = True, resolve: int = 0
) -> int:
    """``follow=False`` refuses symbolic links anywhere in the path."""
    resolve |= INSIDE | (0 if follow else C.RESOLVE_NO_SYMLINKS)
    for _ in range(64):
        try:
            return calls.openat2(root_fd, path.lstrip("/") or ".", flags, mode=mode, resolve=resolve)
        except OSError as problem:
            if problem.errno not in (errno.EAGAIN, errno.EINTR):  # a rename somewhere meanwhile
                raise
    raise OSError(errno.EAGAIN, "the path keeps changing", path)


def make_inside(root_fd: int, path: str, *, directory: bool = True, mode: int = 0o755) -> int:
    """An O_PATH descriptor of ``path``; what is missing of it is made (the last part as an empty file
    when ``directory`` is false)."""
    try:
        return open_inside(root_fd, path)
    except FileNotFoundError:
        pass
    parts = [part for part in path.split("/") if part and part != "."]
    here = os.open(".", O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)
    try:
        for index in range(len(parts)):
            last = index == len(parts) - 1
            below = _step(
                root_fd, "/".join(parts[: index + 1]), here, parts[index], directory or not last, mode
            )
            os.close(here)
            here = below
        return here
    except BaseException:
        os.close(here)
        raise


def _step(root_fd: int, path: str, parent_fd: int, name: str, directory: bool, mode: int) -> int:
    try:
        return open_inside(root_fd, path)
    except FileNotFoundError:
        if name == "..":
            raise
    try:
        if directory:
            os.mkdir(name, mode, dir_fd=parent_fd)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644 if mode == 0o755 else mode, dir_fd=parent_fd))
    except FileExistsError:
        return _through_link(root_fd, path, parent_fd, name, directory, mode)
    return calls.openat2(
        parent_fd, name, O_PATH | os.O_NOFOLLOW, resolve=C.RESOLVE_BENEATH | C.RESOLVE_NO_SYMLINKS
    )


def _through_link(root_fd: int, path: str, parent_fd: int, name: str, directory: bool, mode: int) -> int:
    """A symbolic link whose target does not exist: make the target, inside."""
    try:
        target = os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return open_inside(root_fd, path)
    if not target.startswith("/"):
        target = f"{os.path.dirname(path)}/{target}"
    if target.count("/") > 64 or os.path.normpath(f"/{target}") == os.path.normpath(f"/{path}"):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return make_inside(root_fd, os.path.normpath(f"/{target}"), directory=directory, mode=mode)


def write_file(path: str | os.PathLike[str], data: bytes | str, mode: int = 0o600) -> None:
    """Atomically: readers see the old content or the new one."""
    place = os.fspath(path)
    folder = os.path.dirname(place) or "."
    fd, draft = _draft(folder, os.path.basename(place))
    try:
        view = memoryview(data.encode() if isinstance(data, str) else data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchmod(fd, mode)
        os.rename(draft, place)
    except BaseException:
        os.unlink(draft)
        raise
    finally:
        os.close(fd)


def _draft(folder: str, name: str) -> tuple[int, str]:
    """A new file beside the real one; the name is free of others' and of a former life's drafts."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        path = f"{folder}/.{name[:200]}.{os.getpid()}-{os.urandom(4).hex()}.new"
        try:
            return os.open(path, flags, 0o600), path
        except FileExistsError:
            continue


def tree_size(path: str | os.PathLike[str]) -> int:
    """Bytes of all files below, hard links once; what vanishes meanwhile is left out."""
    total, seen = 0, set()
    for folder, _folders, names in os.walk(path):
        for name in names:
            try:
                info = os.lstat(os.path.join(folder, name))
            except OSError:
                continue
            if (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total


def remove_tree(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Remove a file or directory with all below. Never follows a link, never leaves the filesystem it
    began on (a mount inside is EBUSY). Nothing there is fine."""
    try:
        info = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(path, dir_fd=dir_fd)
        return
    _remove_directory(os.fspath(path), dir_fd, info.st_dev)


def _remove_directory(name: str, dir_fd: int | None, device: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=dir_fd)
    try:
        if os.fstat(fd).st_dev != device:
            raise OSError(errno.EBUSY, "a mount is in the way", name)
        with os.scandir(fd) as entries:
            listed = list(entries)
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                _remove_directory(entry.name, fd, device)
            else:
                os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=dir_fd)
