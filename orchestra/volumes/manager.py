"""Volumes: directories that outlive containers.

    <root>/<name>/volume.json      the record: driver, options, labels, created, anonymous
    <root>/<name>/_data/           the contents, mounted into containers
    <root>/<name>/_fill.new/       an image's contents being copied
    <root>/<name>/_fill/           the same, complete: being moved into _data (finished after a crash)
    <root>/.removed-<hex>/         a removed volume whose files are still to be deleted

Filling holds an flock on the volume's directory. Only the ``local`` driver exists; its options ``type``,
``o`` and ``device`` say what is mounted instead of ``_data``. A ``tmpfs`` is mounted in each container's own
mount namespace, and is therefore not shared between containers; other filesystems are mounted by the host
(see ``attach``). Neither is filled from the image.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra.errors import ConflictError, NotFoundError, OrchestraError, UnsupportedError
from orchestra.linux.mount import OTHERS
from orchestra.volumes import attach
from orchestra.volumes.imageview import ImageView

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_OPTIONS = ("type", "o", "device")
_FLAGS = {"bind", "rbind"}


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A volume as its record describes it. ``mountpoint`` is its directory on the host."""

    name: str
    mountpoint: Path
    driver: str = "local"
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    anonymous: bool = False

    @property
    def plain(self) -> bool:
        """Whether its contents are its own directory."""
        return not (self.options.get("device") or self.options.get("type"))


class Volumes:
    """The volumes below one directory (see the module). Safe from any thread."""

    def __init__(self, root: Path) -> None:
        self._root = root

    # ---- the records -------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        *,
        driver: str = "local",
        driver_opts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        anonymous: bool = False,
        created: float = 0.0,
    ) -> StoredVolume:
        """Makes the volume, or returns the one of that name when its driver options are the same.
        ConflictError when they are not."""
        options = dict(driver_opts or {})
        _check(name, driver or "local", options)
        if self.exists(name):
            found = self.get(name)
            if dict(found.options) != options:
                raise ConflictError(
                    f"volume {name} exists with other driver options",
                    hint="remove the volume, or give this one another name",
                )
            return found
        volume = StoredVolume(
            name,
            self._root / name / "_data",
            driver or "local",
            options,
            dict(labels or {}),
            created,
            anonymous,
        )
        self._make(volume)
        return volume

    def _make(self, volume: StoredVolume) -> None:
        """In a directory aside, then renamed: a volume is there whole or not at all."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._root / f".new-{secrets.token_hex(8)}"
        (draft / "_data").mkdir(parents=True)
        os.chmod(draft, 0o701)
        os.chmod(draft / "_data", 0o755)
        record = {
            "driver": volume.driver,
            "options": dict(volume.options),
            "labels": dict(volume.labels),
            "created": volume.created,
            "anonymous": volume.anonymous,
        }
        (draft / "volume.json").write_text(json.dumps(record, sort_keys=True))
        try:
            os.rename(draft, self._root / volume.name)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise OrchestraError(f"cannot create volume {volume.name}: {error.strerror}") from None

    def exists(self, name: str) -> bool:
        return bool(_NAME.fullmatch(name)) and (self._root / name / "volume.json").is_file()

    def get(self, name: str) -> StoredVolume:
        """NotFoundError if there is none of that name."""
        if not self.exists(name):
            raise NotFoundError(f"volume {name} does not exist")
        folder = self._root / name
        try:
            data = json.loads((folder / "volume.json").read_text())
        except (OSError, ValueError) as error:
            raise OrchestraError(f"the record of volume {name} cannot be read: {error}") from None
        return StoredVolume(
            name,
            folder / "_data",
            str(data.get("driver", "local")),
            dict(data.get("options") or {}),
            dict(data.get("labels") or {}),
            float(data.get("created") or 0.0),
            bool(data.get("anonymous")),
        )

    def list(self) -> list[StoredVolume]:
        """All volumes, by name."""
        try:
            names = sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []
        return [self.get(name) for name in names if self.exists(name)]

    def path(self, name: str) -> Path:
        """The directory of its contents on the host."""
        return self.get(name).mountpoint

    def usage(self, name: str) -> int:
        """Bytes its files take on disk, each counted once."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for folder, _, files in os.walk(self.path(name)):
            for entry in (folder, *(os.path.join(folder, file) for file in files)):
                try:
                    info = os.lstat(entry)
                except OSError:
                    continue
                if (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
        return total

    def remove(
        self,
        name: str,
        *,
        in_use: Mapping[str, Sequence[str]] | Collection[str] = (),
        sweep: Callable[[Path], None] | None = None,
    ) -> None:
        """Removes the volume with its contents. ``in_use`` are the names (or name → containers) that may
        not go. The name is free at once; deleting the files is left to ``sweep`` when given."""
        self.get(name)
        if name in in_use:
            users = in_use[name] if isinstance(in_use, Mapping) else ()
            by = f" by {', '.join(users)}" if users else ""
            raise ConflictError(
                f"volume {name} is in use{by}", hint="remove the containers that use it first"
            )
        aside = self._root / f".removed-{secrets.token_hex(8)}"
        os.rename(self._root / name, aside)
        (sweep or _delete)(aside)

    def leftovers(self) -> list[Path]:  # type: ignore[valid-type]
        """Directories of removed or half-made volumes, for the sweeper to delete at the daemon's start. Mounts
        that a killed daemon left are taken away."""
        attach.clear(self._root)
        try:
            return sorted(p for p in self._root.iterdir() if p.name.startswith((".removed-", ".new-")))
        except FileNotFoundError:
            return []

    # ---- into a container --------------------------------------------------------------------------------

    def mount(self, name: str, target: str, *, read_only: bool = False, subpath: str = "") -> dict[str, Any]:
        """The volume at ``target`` as an OCI mount."""
        volume = self.get(name)
        if volume.plain:
            options = ["rbind", "rprivate", "ro" if read_only else "rw"]
            words = [word for word in _words(volume) if word not in ("ro", "rw")]
            source = _part(volume.mountpoint, subpath, f"volume {name}")
            return {"destination": target, "type": "bind", "source": source, "options": options + words}
        if subpath and volume.options.get("type") == "tmpfs" and not _is_bind(volume):
            raise UnsupportedError(f"volume {name}: a subpath of a {volume.options.get('type')} volume")
        return _driver_mount(volume, target, read_only=read_only, subpath=subpath)

    @contextmanager
    def lent(self, name: str, mount: Mapping[str, Any], *, subpath: str = "") -> Iterator[dict[str, Any]]:
        """``mount()``'s answer as a container can take it while the context lasts: what the host has to mount
        is mounted, and becomes a bind of that."""
        if not attach.needed(mount):
            yield dict(mount)
            return
        with attach.attached(self._root, name, mount) as place:
            source = _part(place, subpath, f"volume {name}")
            options = ["rbind", "rprivate", "ro" if "ro" in mount["options"] else "rw"]
            yield {
                "destination": mount["destination"],
                "type": "bind",
                "source": source,
                "options": options,
            }

    @contextmanager
    def contents(self, name: str, *, read_only: bool = False) -> Iterator[Path]:
        """The directory of its contents while the context lasts, whatever is mounted for it."""
        with self.lent(name, self.mount(name, "/", read_only=read_only)) as mount:
            if mount["type"] != "bind":
                raise UnsupportedError(
                    f"volume {name}: its contents exist only inside of containers",
                    hint="use `cp` with a container that has it",
                )
            yield Path(mount["source"])

    def subpath(self, name: str, subpath: str) -> Path:
        """A directory or file of the volume; no symbolic link is followed on the way."""
        return inside(self.path(name), subpath, what=f"volume {name}")

    def is_empty(self, name: str) -> bool:
        with os.scandir(self.path(name)) as entries:
            return not any(entry.name != "lost+found" for entry in entries)

    def fill_from_image(self, name: str, image_dirs: Sequence[Path], path: str) -> bool:
        """Copies what the image has at ``path`` into the volume, with owners, modes, times and extended
        attributes, if the volume is empty. ``image_dirs`` are the unpacked layers, lowest first. A symbolic
        link at ``path`` is resolved within the image, never out of it. Returns whether anything was
        there."""
        volume = self.get(name)
        if not volume.plain:
            return False
        with self._filling(name):
            folder = volume.mountpoint.parent
            self._finish_fill(folder)
            if not self.is_empty(name):
                return False
            view = ImageView(image_dirs)
            place = view.resolve(path)
            if place is None or not place.is_directory:
                return False
            draft = folder / "_fill.new"
            shutil.rmtree(draft, ignore_errors=True)
            view.copy_tree(place, draft)
            os.rename(draft, folder / "_fill")
            self._finish_fill(folder)
            return True

    @contextmanager
    def _filling(self, name: str) -> Iterator[None]:
        fd = os.open(self._root / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _finish_fill(self, folder: Path) -> None:
        """Moves the complete copy into place: entry by entry, so that containers that have the volume see
        it."""
        ready, data = folder / "_fill", folder / "_data"
        if not ready.is_dir():
            return
        info = os.stat(ready)
        for entry in sorted(os.listdir(ready)):
            os.rename(ready / entry, data / entry)
        os.chown(data, info.st_uid, info.st_gid)
        os.chmod(data, stat.S_IMODE(info.st_mode))
        for attribute in os.listxattr(ready):
            os.setxattr(data, attribute, os.getxattr(ready, attribute))
        os.utime(data, ns=(info.st_atime_ns, info.st_mtime_ns))
        os.rmdir(ready)


# ---- names and options -----------------------------------------------------------------------------------


def _check(name: str, driver: str, options: Mapping[str, str]) -> None:
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise OrchestraError(
            f"invalid volume name {name!r}",
            hint="use letters, digits, `_`, `.` and `-`; start with a letter or digit",
        )
    if driver != "local":
        raise UnsupportedError(
            f"volume {name}: there is no volume driver {driver!r}",
            hint="use the local driver and its driver_opts",
        )
    unknown = sorted(set(options) - {*_OPTIONS})
    if unknown:
        raise OrchestraError(
            f"volume {name}: unknown option {unknown[0]!r} of the local driver",
            hint=f"known: {', '.join(_OPTIONS)}",
        )
    if options.get("type") and not options.get("device"):
        raise OrchestraError(
            f"volume {name}: option `type` needs `device`", hint="for a tmpfs: device: tmpfs"
        )


def _words(volume: StoredVolume) -> list[str]:
    return [word for word in volume.options.get("o", "").split(",") if word]


def _is_bind(volume: StoredVolume) -> bool:
    return volume.options.get("type", "") in ("none", "bind", "") or bool(_FLAGS & set(_words(volume)))


def _driver_mount(volume: StoredVolume, target: str, *, read_only: bool, subpath: str) -> dict[str, Any]:
    kind, device = volume.options.get("type", ""), volume.options.get("device", "")
    words = [word for word in _words(volume) if word != "rw"]
    if read_only and "ro" not in words:
        words.append("ro")
    if not _is_bind(volume):
        if kind.startswith("nfs"):
            words, device = _nfs(volume, words, device)
        elif kind in ("cifs", "smb3"):
            words = _cifs(volume, words, device)
        return {"destination": target, "type": kind, "source": device, "options": words}
    if not os.path.isabs(device):
        raise OrchestraError(f"volume {volume.name}: device {device!r} is not an absolute path")
    if not os.path.lexists(device):
        raise NotFoundError(
            f"volume {volume.name}: its directory {device} does not exist",
            hint=f"create it: mkdir -p {device}",
        )
    source = _part(Path(device), subpath, f"volume {volume.name}")
    if not _FLAGS & set(words):
        words.insert(0, "rbind")
    return {"destination": target, "type": "bind", "source": source, "options": [*words, "rprivate"]}


def _nfs(volume: StoredVolume, words: Sequence[str], device: str) -> tuple[list[str], str]:
    """The kernel wants a numeric ``addr=``; what mount.nfs(8) would add."""
    host = next((word.partition("=")[2] for word in words if word.startswith("addr=")), "").strip("[]")
    if not host and not device.startswith(":"):
        host = device.rpartition(":")[0].strip("[]")
    if not host:
        raise OrchestraError(
            f"volume {volume.name}: no NFS server given", hint="add `addr=SERVER` to option `o`"
        )
    address = _address(volume, host)
    rest = [word for word in words if not word.startswith("addr=")]
    shown = f"[{host}]" if ":" in host else host
    return [*rest, f"addr={address}"], device if not device.startswith(":") else f"{shown}{device}"


def _part(root: Path, subpath: str, what: str) -> str:
    """The source of a mount of ``subpath``, which whoever mounts it looks up once more, by no link: those who
    write to the volume may change it meanwhile (``/root/./part``, see ``linux.mount.clone_tree``)."""
    if not subpath:
        return str(root)
    return f"{root}{OTHERS}{inside(root, subpath, what=what).relative_to(root)}"


def _cifs(volume: StoredVolume, words: Sequence[str], device: str) -> list[str]:
    """The kernel wants a numeric ``ip=``; what mount.cifs(8) would add."""
    given = [word for word in words if word.partition("=")[0] in ("addr", "ip")]
    host = given[0].partition("=")[2] if given else device.replace("\\", "/").lstrip("/").partition("/")[0]
    if not host:
        raise OrchestraError(
            f"volume {volume.name}: no server given", hint="write `device` as //SERVER/SHARE"
        )
    return [*(word for word in words if word not in given), f"ip={_address(volume, host)}"]


def _address(volume: StoredVolume, host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise OrchestraError(
            f"volume {volume.name}: cannot resolve server {host}: {error.strerror}"
        ) from None


def inside(root: Path, subpath: str, *, what: str) -> Path:
    """``root``/``subpath``, walked one name at a time without following a link."""
    parts = [part for part in subpath.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise OrchestraError(f"subpath {subpath!r} leads out of {what}")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            try:
                deeper = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                raise NotFoundError(f"subpath {subpath} does not exist in {what}") from None
            except NotADirectoryError:
                raise NotFoundError(f"subpath {subpath} of {what} goes through a file") from None
            os.close(fd)
            fd = deeper
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OrchestraError(f"subpath {subpath} of {what} goes through the symbolic link {part}")
    finally:
        os.close(fd)
    return root.joinpath(*parts)


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
