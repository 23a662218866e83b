"""Volumes whose contents the kernel fetches from elsewhere (nfs, cifs, a disk): mounted on the host for the
moment in which a container, or a copy of their contents, takes its own hold of them.

    <root>/.mounted-<hex>/         such a mount, private to one start or one copy

They are mounted by the host and not in the container, whose network namespace leads elsewhere and whose user
namespace may not. The container's bind of it keeps the filesystem mounted; with the container's last process it
is unmounted, so nothing is left over from a daemon that died but the short-lived place, which the next one clears.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import calls, procfs
from orchestra.linux import constants as C

PREFIX = ".mounted-"
PATIENCE = 30.0  # seconds that a mount may take
_GRACE = 5.0  # seconds that a killed one may take to end
_VERSIONS = ("4.2", "4.1", "4.0", "3")
_CODE = "import sys; sys.path.insert(0, {!r});from orchestra.volumes.mount_process import main; main()"


def needed(mount: Mapping[str, Any]) -> bool:
    """Whether this OCI mount of a volume is one for the host to make."""
    return mount["type"] not in ("bind", "tmpfs")


@contextmanager
def attached(root: Path, name: str, mount: Mapping[str, Any]) -> Iterator[Path]:
    """The volume ``name``, whose OCI mount is ``mount``, mounted at a directory of its own below ``root`` as long
    as the context lasts. Raises OrchestraError after at most ``PATIENCE`` seconds."""
    place = root / f"{PREFIX}{secrets.token_hex(8)}"
    place.mkdir(mode=0o700)
    try:
        _mount(name, mount, place)
        yield place
    finally:
        release(place)


def release(place: Path) -> None:
    """Unmount and remove it. Nothing below it is ever deleted."""
    try:
        calls.umount2(str(place), C.MNT_DETACH)
    except OSError:
        pass  # it was not mounted
    with contextlib.suppress(OSError):
        os.rmdir(place)


def clear(root: Path) -> None:
    """Take away what a daemon that was killed left."""
    start = f"{os.path.realpath(root)}/{PREFIX}"
    for mount in reversed(procfs.mounts()):
        if mount.target.startswith(start):
            release(Path(mount.target))
    with contextlib.suppress(FileNotFoundError):
        for place in root.iterdir():
            if place.name.startswith(PREFIX):
                release(place)


def versions(kind: str, words: list[str]) -> list[str]:
    """The versions of NFS to try, newest first, where the options name none."""
    if kind not in ("nfs", "nfs4") or any(
        word.partition("=")[0] in ("vers", "nfsvers", "minorversion", "v3", "v4") or word.startswith("v4.")
        for word in words
    ):
        return []
    return [v for v in _VERSIONS if kind == "nfs" or v != "3"]


def _mount(name: str, mount: Mapping[str, Any], place: Path) -> None:
    kind, words = str(mount["type"]), [str(word) for word in mount["options"]]
    request = {
        "place": str(place),
        "type": kind,
        "source": mount["source"],
        "words": words,
        "versions": versions(kind, words),
    }
    command = [sys.executable, "-I", "-c", _CODE.format(str(Path(__file__).parents[2]))]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    data = json.dumps(request).encode()  # not an argument: a password may be among the options
    try:
        output, errors = child.communicate(data, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel is left to it
            child.communicate(timeout=_GRACE)
        raise OrchestraError(
            f"volume {name}: cannot mount {mount['source']}: no answer within {PATIENCE:g} s",
            hint="check that the server is reachable from this machine",
        ) from None
    try:
        answer = json.loads(output)
    except ValueError:
        tail = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise OrchestraError(f"volume {name}: cannot mount {mount['source']}", details=tuple(tail)) from None
    if "error" in answer:
        text, hint = explain(kind, int(answer["errno"]), str(answer["error"]))
        raise OrchestraError(f"volume {name}: cannot mount {mount['source']}: {text}", hint=hint)


def explain(kind: str, number: int, text: str) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    network = kind.startswith(("nfs", "cifs", "smb"))
    text = text.removeprefix(f"mount {kind}: ")
    if number == errno.ENODEV:
        return f"this kernel has no filesystem {kind}", f"load its module: modprobe {kind}"
    if network and number == errno.ENOENT:
        return "the server has no such export", "compare `device` with the server's exports"
    if network and number in (errno.EACCES, errno.EPERM):
        return "the server refuses this machine", "allow this machine's address in the server's exports"
    if network and number == errno.ECONNREFUSED:
        return "the server refuses the connection", "check that it runs there, and its port"
    if network and number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN):
        return f"the server cannot be reached ({os.strerror(number)})", "check `addr` and the network"
    if network and number in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP):
        return "the server does not speak this version of the protocol", "try another nfsvers= in option `o`"
    return text, "check the options `type`, `o` and `device` of the volume"
