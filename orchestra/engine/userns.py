"""User namespaces of containers: whose ids a container gets, and what that changes in its OCI configuration.

On disk every file keeps the ids that it has inside: the image's layers, the container's own and its volumes
are mounted with their ids mapped (mount_setattr(2), MOUNT_ATTR_IDMAP). So a range is chosen anew at each
start, and a volume means the same with a user namespace and without. Where the kernel cannot (``ownership``), files
get the ids of the range on disk: layers as copies, the rest in its place. Bind mounts are the host's and are not
mapped without the word ``idmap``: what no id of the container owns shows as nobody's.

``userns_mode``: ``host`` none; ``auto`` (or ``private``) a range of its own, ``auto:size=N`` for N ids. Without
one the key ``userns-remap`` of the engine's settings decides, as dockerd's: ``default`` one range for all,
``auto``, or ``user[:group]``, by name or by number, with their entries in /etc/subuid and /etc/subgid (which may
use the other spelling). Without a group, or a group without an entry, /etc/subgid is asked for the user. Of
several entries the first counts, with those that follow it without a gap.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.engine import settings
from orchestra.engine.accounts import Identity
from orchestra.errors import ConflictError, Location, OrchestraError, UnsupportedError
from orchestra.paths import Paths

SIZE = 65536
FIRST, END = 0x70000000, 0x7FFE0000  # what systemd leaves to others: 4094 ranges, the first of them shared
SUBUID, SUBGID = Path("/etc/subuid"), Path("/etc/subgid")
_OWNER = "orchestra"  # whose entries in /etc/subuid and /etc/subgid "default" takes, where there are some


@dataclass(frozen=True, slots=True)
class Range:
    """``size`` ids from ``uid`` and ``gid`` on; the container's 0 is their first. ``own`` ranges are shared with
    no other container; their start is chosen when it starts."""

    size: int = SIZE
    own: bool = True
    uid: int = 0
    gid: int = 0

    @property
    def triple(self) -> tuple[int, int, int]:
        """As the state of a container records it."""
        return self.uid, self.gid, self.size

    def at(self, start: int) -> Range:
        return Range(self.size, True, start, start)

    def mappings(self) -> dict[str, list[dict[str, int]]]:
        return {
            key: [{"containerID": 0, "hostID": first, "size": self.size}]
            for key, first in (("uidMappings", self.uid), ("gidMappings", self.gid))
        }


def held(ids: Sequence[int]) -> Range | None:
    """The range of a running container, from what its state records: (uid, gid, size) or nothing."""
    return Range(ids[2], True, ids[0], ids[1]) if ids else None


def space_of(pid: int) -> str:
    """The name of the user namespace of a process."""
    try:
        return os.readlink(f"/proc/{pid}/ns/user")
    except OSError:
        raise ConflictError("cannot join a user namespace: its container has just ended") from None


def wanted(mode: str, *, privileged: bool, modes: Mapping[str, str]) -> Range | None:
    """What a container with this ``userns_mode`` gets; None for the host's ids. Raises OrchestraError for what
    contradicts it."""
    found = _by_mode(mode) if mode else _by_default(remap_setting())
    if found is None:
        return None
    refused = ["privileged"] if privileged else []
    refused += [f"{kind}: host" for kind in ("network", "pid", "ipc", "uts") if modes.get(kind) == "host"]
    if refused:
        raise ConflictError(
            f"{' and '.join(refused)} cannot be had with a user namespace", hint='set userns_mode to "host"'
        )
    return found


def _by_mode(mode: str) -> Range | None:
    if mode == "host":
        return None
    word, _, options = mode.partition(":")
    if word == "private" and not options:
        return Range()
    if word != "auto":
        raise UnsupportedError(
            f'userns_mode "{mode}" is not supported', hint="use host, auto, auto:size=NUMBER or private"
        )
    size = SIZE
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key != "size" or not value.isdigit() or not 1 <= int(value) <= SIZE:
            raise UnsupportedError(
                f'userns_mode "{mode}": option "{option}" is not supported',
                hint=f"size=NUMBER from 1 to {SIZE} is",
            )
        size = int(value)
    return Range(size)


def _by_default(remap: str) -> Range | None:
    if not remap:
        return None
    if remap == "auto":
        return Range()
    user, colon, group = remap.partition(":")
    if not user or (colon and not group) or ":" in group:
        raise OrchestraError(
            f"userns-remap {remap!r} is not understood", hint="write default, auto, USER or USER:GROUP"
        )
    if remap == "default":
        uid, gid = _first(SUBUID, {_OWNER}), _first(SUBGID, {_OWNER})
        if not (uid and gid):
            return Range(SIZE, False, FIRST, FIRST)
    else:
        users = _spellings(user, _user_name)
        groups = _spellings(group, _group_name) if group else users
        uid, gid = _first(SUBUID, users), _first(SUBGID, groups) or _first(SUBGID, users)
        for found, path, name in ((uid, SUBUID, user), (gid, SUBGID, group or user)):
            if not found:
                raise OrchestraError(
                    f"userns-remap {remap}: {path} has no range for {name}",
                    hint=f"add for example {name}:100000:65536 to it",
                )
    assert uid and gid
    return Range(min(uid[1], gid[1]), False, uid[0], gid[0])


def _spellings(text: str, other: Callable[[str], str]) -> set[str]:
    """What subuid(5) may call a user or group: by name or by number, whichever was given."""
    return {text, other(text)}


def _user_name(text: str) -> str:
    try:
        return pwd.getpwuid(int(text)).pw_name if text.isdigit() else str(pwd.getpwnam(text).pw_uid)
    except (KeyError, OverflowError):
        return text


def _group_name(text: str) -> str:
    try:
        return grp.getgrgid(int(text)).gr_name if text.isdigit() else str(grp.getgrnam(text).gr_gid)
    except (KeyError, OverflowError):
        return text


def for_builds(paths: Paths) -> tuple[int, int, int] | None:
    """(uid, gid, size) for the commands of builds, as BuildRequest takes it: by the engine's default; with
    ``auto`` the range that is shared. Raises OrchestraError where ids cannot be mapped."""
    found = _by_default(remap_setting())
    if found is None:
        return None
    if not may_map(paths):
        raise UnsupportedError(
            "userns-remap: builds need id-mapped mounts, which this filesystem or kernel does not have",
            hint="build with an engine without userns-remap (ORCHESTRA_SETTINGS)",
        )
    return (FIRST, FIRST, SIZE) if found.own else (found.uid, found.gid, found.size)


def _first(path: Path, names: set[str]) -> tuple[int, int] | None:
    """The first range of subuid(5) for one of the names, with what follows it without a gap: (start, size)."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return None
    begin, count = -1, 0
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        start, _, size = rest.partition(":")
        if owner not in names or not (start.isdigit() and size.isdigit() and int(size) > 0):
            continue
        if count and int(start) != begin + count:
            break
        begin, count = begin if count else int(start), count + int(size)
    return (begin, count) if count else None


def remap_setting(path: Path | None = None) -> str:
    """``userns-remap`` of the settings."""
    place, data = settings.read(path)
    found = data.get("userns-remap") or ""
    if not isinstance(found, str):
        raise OrchestraError(
            f"userns-remap is no string: {found!r}",
            hint=f'write "userns-remap": "{found}"' if isinstance(found, int) else "",
            location=Location(str(place), 1),
        )
    return found


def mapping_setting(path: Path | None = None) -> bool:
    """``id-mapped-mounts`` of the settings: whether they may be used where the kernel has them."""
    place, data = settings.read(path)
    found = data.get("id-mapped-mounts", True)
    if not isinstance(found, bool):
        raise OrchestraError(
            f"id-mapped-mounts is neither true nor false: {found!r}", location=Location(str(place), 1)
        )
    return found


def may_map(paths: Paths) -> bool:
    """Whether ids of mounts are mapped here: by the settings and what the kernel can."""
    from orchestra.engine.ownership import can_map

    return mapping_setting() and can_map(paths.images / "layers", paths.containers)


def check_user(identity: Identity, ids: Range | None) -> None:
    """Raises OrchestraError for a user or group that the container has no id for."""
    if ids is None:
        return
    for kind, numbers in (("uid", (identity.uid,)), ("gid", (identity.gid, *identity.groups))):
        for number in numbers:
            if not 0 <= number < ids.size:
                raise OrchestraError(
                    f"{kind} {number} is not one of the {ids.size} ids of the container's user namespace",
                    hint=f"choose one below {ids.size}, or more ids with userns_mode auto:size=NUMBER",
                )


def free_start(used: Iterable[tuple[int, int]], *, before: int = 0) -> int:
    """The start of a range that touches none of ``used`` (start, size): ``before`` if it is such a start and free,
    else the first. The very first one is for the containers that share (``userns-remap: default``)."""
    taken = {
        slot
        for start, size in used
        for slot in range((start - FIRST) // SIZE, (start + size - 1 - FIRST) // SIZE + 1)
    }
    last = (END - FIRST) // SIZE
    slot, rest = divmod(before - FIRST, SIZE)
    if not rest and 1 <= slot < last and slot not in taken:
        return before
    for slot in range(1, last):
        if slot not in taken:
            return FIRST + slot * SIZE
    raise ConflictError(
        "all ranges of user ids are in use", hint="stop some containers with userns_mode auto"
    )


def map_root(root: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The overlay of the container's root with its layers mapped."""
    return [{**root, "options": [*root["options"], "idmap"]}]


def map_mounts(mounts: Iterable[Mapping[str, Any]], *, mapped: bool = True) -> list[dict[str, Any]]:
    """Mounts of volumes, with their ids mapped (not ``mapped``: they have the right ones). File systems that would
    have to be mounted inside the namespace are refused where the kernel would."""
    found = []
    for mount in mounts:
        options = list(mount["options"])
        if "bind" in options or "rbind" in options or mount.get("type") == "bind":
            found.append({**mount, "options": [*options, "idmap"] if mapped else options})
        elif mount.get("type") == "tmpfs":
            found.append(dict(mount))
        else:
            raise UnsupportedError(
                f"a volume of type {mount.get('type')} at {mount['destination']} cannot be mounted in a user namespace",
                hint='set userns_mode to "host"',
            )
    return found
