"""The namespaces of a container: new ones as clone flags, others joined by path."""

from __future__ import annotations

import errno
import os
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import calls
from orchestra.linux import constants as C
from orchestra.record import field, shape
from orchestra.runtime.problems import StepError

FLAGS = {
    "user": C.CLONE_NEWUSER,
    "pid": C.CLONE_NEWPID,
    "network": C.CLONE_NEWNET,
    "ipc": C.CLONE_NEWIPC,
    "uts": C.CLONE_NEWUTS,
    "mount": C.CLONE_NEWNS,
    "cgroup": C.CLONE_NEWCGROUP,
    "time": C.CLONE_NEWTIME,
}
FILES = {
    "user": "user",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "cgroup": "cgroup",
    "time": "time",
}


@shape
class Namespaces:
    """``new`` and ``joined`` by type name; what is in neither is the caller's own."""

    new: set[str] = field(default_factory=set)
    joined: dict[str, str] = field(default_factory=dict)

    def own(self, kind: str) -> bool:
        """Whether the container's namespace is not the caller's."""
        return kind in self.new or kind in self.joined

    @property
    def needs_middle(self) -> bool:
        """Whether a middle process must join or prepare before the container's init can be made."""
        return "user" in self.new or "user" in self.joined or "pid" in self.joined

    def clone_flags(self) -> int:
        """What clone3 makes at once. The cgroup namespace comes later (its root is where the process
        is then), the time namespace too (its offsets must be written before anybody enters)."""
        flags = 0
        for kind in self.new - {"cgroup", "time"}:
            flags |= FLAGS[kind]
        return flags

    def leave(self) -> None:
        """In a child cloned with a new pid namespace at most: make the others. So the parent, which makes
        one container after the other, need not wait for that."""
        flags = self.clone_flags() & ~C.CLONE_NEWPID
        try:
            if flags:
                calls.unshare(flags)
        except OSError as problem:
            raise StepError.of("make the container's namespaces", problem) from None


def parse(entries: list[dict[str, Any]] | None) -> Namespaces:
    found = Namespaces()
    for entry in entries or ():
        kind, path = str(entry.get("type", "")), str(entry.get("path") or "")
        if kind not in FLAGS:
            raise OrchestraError(f"linux.namespaces: unknown type {kind!r}")
        if kind in found.new or kind in found.joined:
            raise OrchestraError(f"linux.namespaces: {kind} is given twice")
        if not path:
            found.new.add(kind)
        elif not path.startswith("/"):
            raise OrchestraError(f"linux.namespaces: the path {path!r} of {kind} must be absolute")
        else:
            found.joined[kind] = path
    return found


def open_all(joined: dict[str, str]) -> dict[str, int]:
    """Descriptors of the namespaces to join, opened before any of them is entered."""
    found: dict[str, int] = {}
    try:
        for kind, path in joined.items():
            found[kind] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        for fd in found.values():
            os.close(fd)
        raise StepError.of(f"open the {kind} namespace", problem) from None
    return found


def enter(fds: dict[str, int]) -> None:
    """Join all. Those that the caller's own user namespace may not enter are tried again from within
    the joined one. The mount namespace is last: paths change with it."""
    later = []
    for kind in sorted(set(fds) - {"user", "mount"}):
        try:
            calls.setns(fds[kind], FLAGS[kind])
        except OSError as problem:
            if problem.errno != errno.EPERM or "user" not in fds:
                raise StepError.of(f"join the {kind} namespace", problem) from None
            later.append(kind)
    for kind in [*(("user",) if "user" in fds else ()), *later, *(("mount",) if "mount" in fds else ())]:
        try:
            calls.setns(fds[kind], FLAGS[kind])
        except OSError as problem:
            raise StepError.of(f"join the {kind} namespace", problem) from None
    for fd in fds.values():
        os.close(fd)
    fds.clear()


def different(pid: int) -> int:
    """Flags of all namespaces of the process that are not the caller's."""
    flags = 0
    for kind, name in FILES.items():
        try:
            theirs, ours = os.stat(f"/proc/{pid}/ns/{name}"), os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # the kernel has no such namespace
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            flags |= FLAGS[kind]
    return flags
