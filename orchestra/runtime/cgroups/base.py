"""What every cgroup manager does, whatever the version: the protocol and the shared mechanics.

Removing: ``destroy()`` removes the container's cgroup, all below it, and those empty parents whose
path starts with a directory of ours (``/orchestra…``); a parent named by the user stays.
"""

from __future__ import annotations

import os
import posixpath
import signal
import time
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.runtime.cgroups import files
from orchestra.runtime.cgroups.probe import Mode

Resources = dict[str, Any]
Write = tuple[str, str, tuple[str, ...]]


class Recipe:
    """A cgroup of version 1 that somebody else makes by system calls alone: ``roots`` are the hierarchies it is
    made in, ``writes`` (hierarchy, file, words) what is then written, in this order; ``inherited`` is the hierarchy
    whose cpuset is its parent's. It has no words for failures: ``make`` begins anew where something is there
    already."""

    __slots__ = ("inherited", "manager", "resources", "roots", "writes")

    def __init__(
        self,
        manager: CgroupManager,
        resources: Resources,
        roots: list[str],
        writes: list[Write],
        inherited: str,
    ) -> None:
        self.manager, self.resources = manager, resources
        self.roots, self.writes, self.inherited = roots, writes, inherited

    def folders(self) -> list[str]:
        return [root + self.manager.path for root in self.roots]

    def make(self) -> list[str]:
        """In the usual way: the warnings."""
        return self.manager.create(self.resources)


class CgroupManager:
    """One container's cgroup. All methods may be called again after a crash: they build on what the
    kernel shows, not on what this object remembers."""

    def __init__(self, path: str, mode: Mode) -> None:
        plain = path.startswith("/") and posixpath.normpath(path) == path and path != "/"
        if not plain or "\0" in path or "\n" in path:
            raise OrchestraError(f"cgroup path {path!r} is not an absolute, plain path below the root")
        self.path = path
        self.mode = mode

    # What the versions implement

    def create(self, resources: Resources | None = None) -> list[str]:
        """Make the directories and set the limits; the named warnings."""
        raise NotImplementedError

    def recipe(self, resources: Resources | None = None) -> Recipe | None:
        """How a new container can make its cgroup by itself, with nothing to warn of. None where ``create`` has to
        be called. The parents are made."""
        return None

    def foresee(self, resources: Resources) -> Recipe | None:
        """What ``recipe`` will probably say; nothing is made."""
        return None

    def update(self, resources: Resources) -> list[str]:
        """Change limits of a living cgroup: only what ``resources`` names."""
        raise NotImplementedError

    def fds_for_clone(self) -> int | None:
        """A directory fd for CLONE_INTO_CGROUP (the caller closes it); None where processes must be
        attached afterwards."""
        raise NotImplementedError

    def dirs(self) -> list[str]:
        """The existing directories a process must be written to (``<dir>/cgroup.procs``) to be inside."""
        raise NotImplementedError

    def places(self) -> list[str]:
        """Where there may be a directory of it, or parents that were made for it."""
        raise NotImplementedError

    def freeze(self, *, timeout: float = 5.0) -> None:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError

    def frozen(self) -> bool:
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        raise NotImplementedError

    def oom_kills(self) -> int:
        """How many processes the OOM killer has taken from here so far."""
        raise NotImplementedError

    def oom_watch(self) -> tuple[int, int] | None:
        """(fd, epoll mask): an fd that turns ready on an OOM event; None where the kernel has none.
        Read ``oom_kills()`` when it fires; the caller closes it."""
        raise NotImplementedError

    # Shared

    def exists(self) -> bool:
        return bool(self.dirs())

    def attach(self, pid: int) -> None:
        """Move the process in. On version 1 the first move of a burst waits for the kernel (3–11 ms)."""
        for folder in self.dirs():
            files.write(f"{folder}/cgroup.procs", str(pid))

    def pids(self) -> list[int]:
        """Every process in here and below."""
        found: set[int] = set()
        for folder in self.dirs()[:1]:
            for group in files.subtree(folder):
                found.update(int(line) for line in files.read_or(f"{group}/cgroup.procs").split())
        return sorted(found)

    def signal(self, number: int) -> int:
        """Send to every process; how many got it."""
        sent = 0
        for pid in self.pids():
            try:
                os.kill(pid, number)
                sent += 1
            except ProcessLookupError:
                continue
        return sent

    def kill(self) -> None:
        """SIGKILL the whole tree, forks of the last moment included."""
        if not self._kill_file():
            self.signal(signal.SIGKILL)
            self.thaw()
            for _ in range(50):  # where it could not be frozen before
                if not self.signal(signal.SIGKILL):
                    break
        self.thaw()

    def destroy(self, *, timeout: float = 5.0) -> None:
        """Remove everything; ``OSError`` (EBUSY) when processes are still inside after ``timeout``."""
        deadline = time.monotonic() + timeout
        for folder in self.dirs():
            files.remove(folder, deadline)
        for folder in self.places():
            self._prune(folder)

    def _kill_file(self) -> bool:
        """Kill by the unified tree's cgroup.kill (kernel 5.14), which no fork can outrun."""
        if not self.mode.v2:
            return False
        target = f"{self.mode.v2}{self.path}/cgroup.kill"
        try:
            files.write(target, "1")
        except OSError:
            return False
        return True

    def _prune(self, folder: str) -> None:
        """rmdir empty parents that belong to orchestra."""
        if not self.path.startswith("/orchestra"):
            return
        for _ in range(self.path.count("/") - 1):
            folder = os.path.dirname(folder)
            try:
                os.rmdir(folder)
            except OSError:
                return


def make_path(root: str, path: str) -> list[str]:
    """mkdir every part of ``path`` below ``root``; the directories that may be new, top-down. Survives
    that another container's end prunes a parent meanwhile."""
    try:
        if files.make(root + path):
            return [root + path]
    except FileNotFoundError:
        pass  # its parents come first
    parts = path.strip("/").split("/")
    for attempt in range(20):
        folders, place = [], root
        try:
            for part in parts:
                place = f"{place}/{part}"
                files.make(place)
                folders.append(place)
            return folders
        except FileNotFoundError:
            if attempt == 19:
                raise
    return []


def section(resources: Resources, name: str) -> dict[str, Any]:
    """A sub-object of resources; an absent one is empty."""
    value = resources.get(name)
    return value if isinstance(value, dict) else {}


def device_name(entry: dict[str, Any]) -> str:
    return f"{int(entry['major'])}:{int(entry['minor'])}"


def limit_text(value: int) -> str:
    """The kernel's word for a limit where zero or less means none."""
    return str(value) if value > 0 else "max"
