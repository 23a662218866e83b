"""Reading and writing the small files of a cgroup: the only place that touches them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable


def write(path: str, text: str) -> None:
    """One write(2), as the kernel wants it. The error names the file and the refused value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as problem:
        number = problem.errno or errno.EIO
        raise OSError(number, f"{os.strerror(number)} (writing {text!r})", path) from None


def write_each(path: str, lines: Iterable[str]) -> None:
    """One write(2) a line into the same file."""
    fd = -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        for text in lines:
            os.write(fd, text.encode())
    except OSError as problem:
        number = problem.errno or errno.EIO
        raise OSError(number, os.strerror(number), path) from None
    finally:
        if fd >= 0:
            os.close(fd)


def join(folder: str) -> None:
    """Move the calling process, which has one thread, into a cgroup. On version 1 by ``tasks`` and ``0``:
    there the kernel need not lock out every other thread's fork and exit, which takes it 5 to 20 ms."""
    try:
        write(f"{folder}/tasks", "0")
    except FileNotFoundError:
        write(f"{folder}/cgroup.procs", "0")


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while piece := os.read(fd, 65536):
            parts.append(piece)
        return b"".join(parts).decode(errors="replace")
    finally:
        os.close(fd)


def read_or(path: str, default: str = "") -> str:
    """The content, or ``default`` where the file is not there or cannot be read (a dying cgroup)."""
    try:
        return read(path)
    except OSError:
        return default


def number(path: str, default: int = 0) -> int:
    """A file with one number; ``max`` and everything else that is none gives ``default``."""
    text = read_or(path).strip()
    return int(text) if text.lstrip("-").isdigit() else default


def pairs(path: str) -> dict[str, int]:
    """A flat keyed file (``key value`` a line)."""
    found: dict[str, int] = {}
    for line in read_or(path).splitlines():
        key, _, value = line.partition(" ")
        if value.strip().lstrip("-").isdigit():
            found[key] = int(value)
    return found


def exists(path: str) -> bool:
    return os.access(path, os.F_OK)


def make(path: str) -> bool:
    """mkdir, fine when it is there; whether it was made now."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    return True


def subtree(path: str) -> list[str]:
    """The cgroup and all below it, parents first. Those that vanish meanwhile are left out."""
    found = [path]
    for folder in found:
        try:
            with os.scandir(folder) as entries:
                found.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError:
            continue
    return found


def remove(path: str, deadline: float) -> None:
    """rmdir the subtree, children first. EBUSY (processes not reaped yet) is tried until
    ``deadline`` (monotonic seconds) and then raised."""
    pause = 0.001
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as problem:
            if problem.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            children = subtree(path)[1:]
            for folder in reversed(children):
                try:
                    os.rmdir(folder)
                except OSError:
                    continue
            if time.monotonic() >= deadline:
                raise
            if not children:
                time.sleep(pause)
                pause = min(pause * 2, 0.05)


def no_room(folder: int) -> bool:
    """Whether the limit of processes of this cgroup (a descriptor, version 2) leaves no room for two more."""
    found = []
    for name in ("pids.current", "pids.max"):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return False
        try:
            text = os.read(fd, 32).decode().strip()
        finally:
            os.close(fd)
        if not text.isdigit():
            return False
        found.append(int(text))
    return found[0] + 2 > found[1]
