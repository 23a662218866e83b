"""Secrets and configs as files for containers, kept in memory only.

    <base>/<container id>/0, 1, …      one file each, bound read-only at its target

``<base>`` is ``<run>/secrets`` where that is a tmpfs, else a directory of this engine on /dev/shm or /run
(with ORCHESTRA_ROOT on a disk): contents never reach a disk. A secret from a file of the host with no owner
or mode of its own is bound directly, so that it is not copied at all and a changed file is seen.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.paths import Paths

DEFAULT_MODE = 0o444
_IN_MEMORY = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class GrantedFile:
    """One secret or config of a container: ``data``, or the file ``path`` of the host. ``uid`` and ``gid``
    are numbers as text, '' for 0."""

    target: str
    data: bytes | None = None
    path: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None
    name: str = ""


class Secrets:
    """One engine's granted files."""

    def __init__(self, paths: Paths, *, in_memory: Callable[[Path], bool] | None = None) -> None:
        self._paths = paths
        self._in_memory = in_memory or is_in_memory

    def base(self) -> Path:
        """The directory of all of them."""
        for folder, name in self._places():
            if folder.is_dir() and self._in_memory(folder):
                return folder / name
        raise OrchestraError(
            "secrets need a file system in memory, and neither the run directory, /dev/shm nor /run is one",
            hint="mount a tmpfs on /dev/shm",
        )

    def _places(self) -> tuple[tuple[Path, str], ...]:
        """(file system, directory on it) in the order of preference."""
        name = f"{self._paths.scope}-secrets"
        return (self._paths.run, "secrets"), (Path("/dev/shm"), name), (Path("/run"), name)

    def prepare(
        self, container_id: str, files: Sequence[GrantedFile], *, ids: tuple[int, int, int] | None = None
    ) -> list[dict[str, Any]]:
        """Writes the container's files (anew at each start) and returns the OCI mounts that show them.
        ``ids`` are the first uid, first gid and number of ids of its user namespace."""
        self.remove(container_id)
        mounts = []
        for number, file in enumerate(files):
            if not file.target.startswith("/"):
                raise OrchestraError(
                    f"{file.name or 'secret'}: target {file.target!r} is not an absolute path"
                )
            if file.data is None and not (file.uid or file.gid or file.mode is not None):
                source = _existing(file)
                if ids:  # the host's owner would be nobody inside
                    info = os.stat(source)
                    uid, gid = (n if n < ids[2] else 0 for n in (info.st_uid, info.st_gid))
                    file = replace(file, uid=str(uid), gid=str(gid), mode=info.st_mode & 0o7777)
                    source = self._write(container_id, number, file, ids)
            else:
                source = self._write(container_id, number, file, ids)
            mounts.append(_mount(source, file.target))
        return mounts

    def _write(
        self, container_id: str, number: int, file: GrantedFile, ids: tuple[int, int, int] | None
    ) -> str:
        base = self.base()
        base.mkdir(mode=0o700, exist_ok=True)
        info = os.lstat(base)
        if base.is_symlink() or info.st_uid != os.geteuid():
            raise OrchestraError(f"{base} belongs to somebody else", hint="remove it")
        folder = base / container_id
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / str(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(file.data if file.data is not None else _read(file))
            out.flush()
            uid, gid = _number(file, "uid", file.uid), _number(file, "gid", file.gid)
            if ids and max(uid, gid) >= ids[2]:
                raise OrchestraError(
                    f"{file.name or file.target}: owner {uid}:{gid} is not in its user namespace"
                )
            os.fchown(out.fileno(), uid + (ids[0] if ids else 0), gid + (ids[1] if ids else 0))
            os.fchmod(out.fileno(), DEFAULT_MODE if file.mode is None else file.mode & 0o7777)
        return str(path)

    def remove(self, container_id: str) -> None:
        """Forgets the container's files; the last one takes the directory with it. Idempotent."""
        for folder, name in self._places():  # wherever they are, without a look at what is mounted
            base = f"{folder}/{name}"
            if not _is_own_directory(base):
                continue
            shutil.rmtree(f"{base}/{container_id}", ignore_errors=True)
            try:
                os.rmdir(base)
            except OSError:
                pass  # others have files there


def _is_own_directory(place: str) -> bool:
    """And no link: anybody may make something of that name in /dev/shm."""
    try:
        look = os.lstat(place)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(look.st_mode) and look.st_uid == os.geteuid()


def _existing(file: GrantedFile) -> str:
    if not os.path.exists(file.path):
        raise NotFoundError(f"{file.name or 'secret'}: file {file.path} does not exist")
    return file.path


def _read(file: GrantedFile) -> bytes:
    try:
        return Path(file.path).read_bytes()
    except OSError as error:
        raise NotFoundError(f"{file.name or 'secret'}: cannot read {file.path}: {error.strerror}") from None


def _number(file: GrantedFile, what: str, text: str) -> int:
    if not text:
        return 0
    if not text.isdigit() or int(text) >= 2**32 - 1:
        raise OrchestraError(f"{file.name or file.target}: {what} {text!r} is not a number")
    return int(text)


def _mount(source: str, target: str) -> dict[str, Any]:
    options = ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def is_in_memory(folder: Path) -> bool:
    """Whether the file system of the directory is a tmpfs (by /proc/self/mountinfo)."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            words = line.split()
            if words[2] == wanted:
                return words[words.index("-") + 1] in _IN_MEMORY
    return False
