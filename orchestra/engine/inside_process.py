"""The helper that works within one container's root: standard library and ``orchestra.linux`` only.

Reads a JSON request from standard input, works on the stream descriptor given, answers in JSON.
Works with the container's own rights where that has a user namespace.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
import tarfile
from typing import Any, Literal

from orchestra.linux import calls, fs
from orchestra.linux import constants as k
from orchestra.linux import mount as mounting

# the argument came with Python 3.11.4, and later versions want it; this process is inside the container
TRUSTED: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}


def main(fd: int) -> None:
    request = json.loads(sys.stdin.buffer.read())
    try:
        root = enter(request)
        answer = {"stat": look, "get": get, "put": put}[request["op"]](root, request, fd)
    except FileNotFoundError as error:
        answer = {
            "error": f"no such file or directory: {request.get('path') or error.filename}",
            "missing": True,
        }
    except PermissionError as error:
        answer = {"error": f"{error.strerror}: {error.filename or request.get('path')}"}
    except OSError as error:
        answer = {"error": f"{error.strerror or error}: {request.get('path')}"}
    except tarfile.TarError as error:
        answer = {"error": f"not a tar archive: {error}"}
    print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def enter(request: dict[str, Any]) -> int:
    """A descriptor of the container's root; this process has become its guest."""
    if request.get("pid"):
        pidfd = os.pidfd_open(request["pid"])
        calls.setns(pidfd, k.CLONE_NEWNS | (k.CLONE_NEWUSER if request.get("user") else 0))
        if request.get("user"):  # its ids from here on, in what is read and what is written
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
    else:
        calls.unshare(k.CLONE_NEWNS)
        calls.mount("", "/", "", k.MS_REC | k.MS_SLAVE)
        words = [word for word in request["overlay"] if word not in ("volatile",)]
        os.umask(0)
        root = mount_root(request["at"], words)
        for mount in sorted(request["mounts"], key=lambda m: m["target"].count("/")):
            tree = mounting.clone_tree(mount["source"], recursive=True)
            folder = stat.S_ISDIR(os.fstat(tree).st_mode)
            target = fs.make_inside(root, mount["target"], directory=folder)
            mounting.attach(tree, target)
            os.close(target)
            os.close(tree)
        os.chroot(request["at"])
    os.chdir("/")
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def mount_root(place: str, options: list[str]) -> int:
    """The overlay of the container's layers, however many they are; its descriptor."""
    from orchestra.runtime.mounts import mount_overlay

    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_overlay("overlay", target, 0, options)
    finally:
        os.close(target)
    return os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def look(root: int, request: dict[str, Any], _fd: int) -> dict[str, Any]:
    return described(root, request["path"], follow=bool(request["follow"]))


def described(root: int, path: str, *, follow: bool) -> dict[str, Any]:
    """What there is at a path of the container."""
    del root  # the process is inside already
    clean = os.path.normpath("/" + path.lstrip("/"))
    if path.endswith("/"):
        follow = True
    info = os.stat(clean) if follow else os.lstat(clean)
    target = os.readlink(clean) if stat.S_ISLNK(info.st_mode) else ""
    return {
        "name": os.path.basename(clean) or "/",
        "size": info.st_size,
        "mode": info.st_mode,
        "is_dir": stat.S_ISDIR(info.st_mode),
        "link_target": target,
    }


def get(root: int, request: dict[str, Any], fd: int) -> dict[str, Any]:
    """A tar of the path. ``/dir/.`` has the contents below ``./``."""
    path, follow = request["path"], bool(request["follow"])
    found = described(root, path, follow=follow)
    clean = os.path.normpath("/" + path.lstrip("/"))
    if follow:
        clean = os.path.realpath(clean)
    contents = path.rstrip("/").endswith("/.") or path in (".", "/")
    name = "." if contents else found["name"]
    with (
        os.fdopen(os.dup(fd), "wb") as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        if request.get("whole"):
            for entry in sorted(os.listdir("/")):
                add(tar, f"/{entry}", entry, request.get("ids"))
        else:
            add(tar, clean, name)
    return found


def add(tar: tarfile.TarFile, path: str, name: str, ids: list[int] | None = None) -> None:
    """Like TarFile.add, but what vanishes meanwhile is left out, and sockets are. What may not be read
    raises PermissionError. ``ids`` is the range (uid, gid, size) whose ids the files have on disk."""
    try:
        member = tar.gettarinfo(path, name)
    except FileNotFoundError:
        return
    if member is None:
        return
    if ids:
        member.uid -= ids[0] if ids[0] <= member.uid < ids[0] + ids[2] else 0
        member.gid -= ids[1] if ids[1] <= member.gid < ids[1] + ids[2] else 0
    if member.isreg():
        try:
            with open(path, "rb") as source:
                tar.addfile(member, source)
        except PermissionError:
            raise
        except OSError:
            return
        return
    tar.addfile(member)
    if member.isdir():
        try:
            entries = sorted(os.listdir(path))
        except PermissionError:
            raise
        except OSError:
            return
        for entry in entries:
            add(tar, f"{path.rstrip('/')}/{entry}", f"{name}/{entry}", ids)


def put(_root: int, request: dict[str, Any], fd: int) -> dict[str, Any]:
    """Unpack a tar into an existing folder; this process has the container's root, so no name leads out."""
    folder = os.path.normpath("/" + request["path"].lstrip("/"))
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
    # in a user namespace an owner that it has no id for is an error, not quietly another one
    strict: Literal[1, 2] = 2 if request.get("user") else 1
    with (
        os.fdopen(os.dup(fd), "rb") as stream,
        tarfile.open(fileobj=stream, mode="r|", errorlevel=strict) as tar,
    ):
        for member in tar:
            if not request["archive"]:
                member.uid, member.gid, member.uname, member.gname = (
                    int(request["uid"]),
                    int(request["gid"]),
                    "",
                    "",
                )
            place = os.path.join(folder, member.name)
            if os.path.lexists(place) and not os.path.isdir(place) and not member.isdir():
                os.unlink(place)
            elif member.isdir() and os.path.isdir(place):
                continue
            elif os.path.isdir(place) and not os.path.islink(place) and not member.isdir():
                raise OSError(errno.EISDIR, f"cannot put a file in the place of the folder {place}")
            extract(tar, member, folder)
        while stream.read(1 << 16):
            pass
    return {}


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    try:
        tar.extract(member, folder, numeric_owner=True, **TRUSTED)
    except tarfile.ExtractError as problem:
        place = os.path.join(folder, member.name)
        if not member.isdir():
            os.unlink(place)
        raise PermissionError(
            errno.EPERM, f"{problem} to {member.uid}:{member.gid} in its user namespace", place
        ) from None
