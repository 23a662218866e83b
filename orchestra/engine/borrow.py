"""Mounts of a running container for another one that shares its namespaces: /dev/shm with the ipc namespace,
/sys with a network that belongs to another user namespace.

The kernel copies mounts of the caller's own mount namespace only. So a helper process goes into the other
container's, copies there, comes back and puts the copy at a place of the host, where it is for as long as the
start of the container that takes it lasts (among the places of ``volumes/attach.py``, which clears leftovers).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.errors import OrchestraError
from orchestra.linux import calls
from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.volumes import attach

_CODE = "import sys; sys.path.insert(0, {!r}); from orchestra.engine.borrow import main; main(sys.argv[1:])"


@contextmanager
def borrowed(root: Path, pid: int, path: str) -> Iterator[str]:
    """Where the mount that process ``pid`` has at ``path`` is on the host while the context lasts; ``root`` is the
    directory of the volumes."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = root / f"{attach.PREFIX}{os.urandom(8).hex()}"
    place.mkdir(mode=0o700)
    try:
        code = _CODE.format(str(Path(__file__).parents[2]))
        command = [sys.executable, "-I", "-c", code, str(pid), path, str(place)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise OrchestraError(f"cannot share {path} of another container", details=tuple(tail))
        yield str(place)
    finally:
        attach.release(place)


def main(words: list[str]) -> None:
    """The helper: single-threaded, as entering a mount namespace wants it."""
    pid, path, place = int(words[0]), words[1], words[2]
    try:
        target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        calls.setns(os.pidfd_open(pid), C.CLONE_NEWNS)
        tree = mounting.clone_tree(path, recursive=True)
        calls.setns(own, C.CLONE_NEWNS)
        mounting.attach(tree, target)
    except OSError as problem:
        print(problem.strerror or problem, file=sys.stderr)
        sys.exit(1)


__all__ = ["borrowed", "main"]
