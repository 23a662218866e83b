"""``storage_opt: {size: …}``: a limit for what a container writes into its own layer, where the filesystem of the
engine's containers has project quotas (ext4 mounted ``prjquota``, xfs mounted ``pquota``); refused elsewhere, as
docker does.
"""

from __future__ import annotations

import errno
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestra.compose import units
from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import quota
from orchestra.paths import Paths

_FIRST = 0x40000000  # of the projects that are ours; an engine has 65536 of them
_lock = threading.Lock()
# of the second argument of ioctl; the kernel looks at 32 bits of it
_CHANGE = {"index": 1, "value": 0xFFFFFFFF, "valueTwo": quota.SET_ATTRIBUTES, "op": "SCMP_CMP_MASKED_EQ"}
_ANY = {"index": 1, "value": 0, "op": "SCMP_CMP_GE"}


def size_of(options: Mapping[str, str]) -> int:
    """The bytes asked for; 0 for no limit. Raises OrchestraError for other options and for what is no size."""
    unknown = sorted(key for key in options if key.lower() != "size")
    if unknown:
        raise _told(
            UnsupportedError(f'storage_opt "{unknown[0]}" is not supported', hint="size is"), unknown[0]
        )
    text = next(iter(options.values()), "")
    try:
        return units.size(str(text)) if text else 0
    except ValueError:
        raise _told(
            OrchestraError(f'storage_opt: "{text}" is no size', hint="write for example 10G")
        ) from None


def check(paths: Paths, options: Mapping[str, str]) -> int:
    """``size_of``, where the filesystem can. Raises UnsupportedError where it cannot."""
    size = size_of(options)
    if size > 0 and not quota.enforced(paths.containers):
        raise _told(
            UnsupportedError(
                "storage_opt: size needs a filesystem with project quotas for the engine's containers",
                hint=f"mount the one of {paths.containers} with prjquota (ext4) or pquota (xfs), or leave storage_opt out",
            )
        )
    return size


def _told(error: OrchestraError, key: str = "") -> OrchestraError:
    """The error with its place in the compose file."""
    error.attribute = f"storage_opt.{key}" if key else "storage_opt"  # type: ignore[attr-defined]
    return error


def limit(paths: Paths, folder: Path, size: int) -> None:
    """Limit the new (empty) layer of the container whose folder this is."""
    with _lock:
        number = _free(paths)
        try:
            quota.set_limit(folder, number, size)
            for name in ("upper", "work"):  # the overlay moves files from one to the other
                place = folder / name
                place.mkdir(mode=0o755 if name == "upper" else 0o700, exist_ok=True)
                quota.set_project(place, number)
        except OSError as problem:
            raise _told(OrchestraError(f"storage_opt: cannot set the limit: {problem.strerror}")) from None


def keep_inside(profile: Mapping[str, Any]) -> dict[str, Any]:
    """The seccomp profile without the calls by which the owner of a file takes it out of its project, and so out
    of the limit (FS_IOC_FSSETXATTR and file_setattr; the kernel refuses them in user namespaces only). The error is not one that a
    profile has as its default: such rules are dropped when it is compiled."""
    rules = []
    for rule in profile.get("syscalls") or ():
        names = [name for name in rule["names"] if name not in ("ioctl", "file_setattr")]
        if names:
            rules.append({**rule, "names": names})
        if "ioctl" in rule["names"]:  # the same, behind the refusal
            rules.append({**rule, "names": ["ioctl"], "args": rule.get("args") or [_ANY]})
    refusal = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EOPNOTSUPP}
    calls = [{**refusal, "names": ["ioctl"], "args": [_CHANGE]}, {**refusal, "names": ["file_setattr"]}]
    return {**profile, "syscalls": [*calls, *rules]}


def release(folder: Path) -> None:
    """The limit goes with the container."""
    try:
        number = quota.project(folder / "upper")
        if number >= _FIRST:
            quota.set_limit(folder, number, 0)
    except OSError:
        return  # the folder, or its filesystem, has gone


def _free(paths: Paths) -> int:
    """A project that no container of this engine has."""
    taken = set()
    for folder in paths.containers.iterdir():
        try:
            taken.add(quota.project(folder / "upper"))
        except OSError:
            continue  # not made yet, or going
    base = _FIRST + (zlib.crc32(str(paths.lib).encode()) & 0x3FFF) * 0x10000
    for number in range(base, base + 0x10000):
        if number not in taken:
            return number
    raise OrchestraError("all numbers for storage limits are in use")


__all__ = ["check", "keep_inside", "limit", "release", "size_of"]
