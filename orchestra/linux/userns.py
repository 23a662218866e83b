"""User namespaces: writing id maps from outside, and namespaces that exist only as a descriptor.

A map is a list of (inside, outside, count). As root the maps are written directly; a plain user needs
the setuid programs newuidmap and newgidmap, except for the map of its very own id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from orchestra.linux.clone import clone
from orchestra.linux.constants import CLONE_NEWUSER

Map = list[tuple[int, int, int]]


def text(entries: Map) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in entries)


def write_maps(pid: int, uids: Map, gids: Map) -> None:
    """Give the new user namespace of ``pid`` its ids."""
    if os.geteuid() == 0:
        _write(f"/proc/{pid}/uid_map", text(uids))
        _write(f"/proc/{pid}/gid_map", text(gids))
        return
    _as_user(pid, "uid", uids, os.geteuid())
    _as_user(pid, "gid", gids, os.getegid())


def read_map(pid: int, kind: str) -> Map:
    """The ``uid`` or ``gid`` map of a process's user namespace, outside as the caller's."""
    with open(f"/proc/{pid}/{kind}_map", "rb") as stream:
        words = [tuple(map(int, line.split())) for line in stream]
    return [(inside, out, count) for inside, out, count in words]


def outside(entries: Map, number: int) -> int | None:
    """The id outside that is ``number`` inside; None where it is none."""
    for inside, out, count in entries:
        if inside <= number < inside + count:
            return out + number - inside
    return None


def _as_user(pid: int, kind: str, entries: Map, own: int) -> None:
    if len(entries) == 1 and entries[0][1] == own and entries[0][2] == 1:
        if kind == "gid":
            _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/{kind}_map", text(entries))
        return
    program = f"new{kind}map"
    words = [str(number) for entry in entries for number in entry]
    child = os.posix_spawnp(program, [program, str(pid), *words], os.environ)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise OSError(1, f"{program} failed with status {status} (see /etc/sub{kind})")


def _write(path: str, content: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content.encode())
    except OSError as problem:
        raise OSError(
            problem.errno, f"{os.strerror(problem.errno or 0)} (writing {content!r})", path
        ) from None
    finally:
        os.close(fd)


@contextmanager
def temporary(uids: Map, gids: Map) -> Iterator[int]:
    """A descriptor of a fresh user namespace with these maps. The process that made it is gone when
    the block begins. Single-threaded callers only."""
    release_read, release_write = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone(CLONE_NEWUSER)
    if pid == 0:
        os.close(release_write)
        os.read(release_read, 1)
        os._exit(0)
    fd = -1
    try:
        os.close(release_read)
        write_maps(pid, uids, gids)
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(release_write)
        os.waitpid(pid, 0)
        os.close(pidfd)
    try:
        yield fd
    finally:
        os.close(fd)
