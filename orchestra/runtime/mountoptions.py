"""The option words of an OCI mount, as one table: pure, no system calls.

A word is a flag of the mount, a propagation, a recursive attribute (``rro`` …), one of the runtime's
own (``tmpcopyup``, ``idmap``, ``ridmap``), or else it is the filesystem's and goes into ``data``.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.linux import constants as C
from orchestra.linux.mount import PROPAGATION
from orchestra.record import field, shape

# word → (flags to set, flags to clear)
FLAGS: dict[str, tuple[int, int]] = {
    "defaults": (0, 0),
    "bind": (C.MS_BIND, 0),
    "rbind": (C.MS_BIND | C.MS_REC, 0),
    "ro": (C.MS_RDONLY, 0),
    "rw": (0, C.MS_RDONLY),
    "nosuid": (C.MS_NOSUID, 0),
    "suid": (0, C.MS_NOSUID),
    "nodev": (C.MS_NODEV, 0),
    "dev": (0, C.MS_NODEV),
    "noexec": (C.MS_NOEXEC, 0),
    "exec": (0, C.MS_NOEXEC),
    "sync": (C.MS_SYNCHRONOUS, 0),
    "async": (0, C.MS_SYNCHRONOUS),
    "dirsync": (C.MS_DIRSYNC, 0),
    "remount": (C.MS_REMOUNT, 0),
    "mand": (C.MS_MANDLOCK, 0),
    "nomand": (0, C.MS_MANDLOCK),
    "atime": (0, C.MS_NOATIME),
    "noatime": (C.MS_NOATIME, 0),
    "diratime": (0, C.MS_NODIRATIME),
    "nodiratime": (C.MS_NODIRATIME, 0),
    "relatime": (C.MS_RELATIME, 0),
    "norelatime": (0, C.MS_RELATIME),
    "strictatime": (C.MS_STRICTATIME, 0),
    "nostrictatime": (0, C.MS_STRICTATIME),
    "iversion": (C.MS_I_VERSION, 0),
    "noiversion": (0, C.MS_I_VERSION),
    "lazytime": (C.MS_LAZYTIME, 0),
    "nolazytime": (0, C.MS_LAZYTIME),
    "silent": (C.MS_SILENT, 0),
    "loud": (0, C.MS_SILENT),
    "symfollow": (0, C.MS_NOSYMFOLLOW),
    "nosymfollow": (C.MS_NOSYMFOLLOW, 0),
}
_ATIME = C.MOUNT_ATTR__ATIME
# recursive word → (attributes to set, attributes to clear)
RECURSIVE: dict[str, tuple[int, int]] = {
    "rro": (C.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, C.MOUNT_ATTR_RDONLY),
    "rnosuid": (C.MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, C.MOUNT_ATTR_NOSUID),
    "rnodev": (C.MOUNT_ATTR_NODEV, 0),
    "rdev": (0, C.MOUNT_ATTR_NODEV),
    "rnoexec": (C.MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, C.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (C.MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, C.MOUNT_ATTR_NODIRATIME),
    "rnosymfollow": (C.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, C.MOUNT_ATTR_NOSYMFOLLOW),
    "rrelatime": (C.MOUNT_ATTR_RELATIME, _ATIME),
    "rnorelatime": (C.MOUNT_ATTR_STRICTATIME, _ATIME),
    "rnoatime": (C.MOUNT_ATTR_NOATIME, _ATIME),
    "ratime": (C.MOUNT_ATTR_RELATIME, _ATIME),
    "rstrictatime": (C.MOUNT_ATTR_STRICTATIME, _ATIME),
    "rnostrictatime": (C.MOUNT_ATTR_RELATIME, _ATIME),
}
OWN = ("tmpcopyup", "idmap", "ridmap")
_TO_ATTRIBUTES = {
    C.MS_RDONLY: C.MOUNT_ATTR_RDONLY,
    C.MS_NOSUID: C.MOUNT_ATTR_NOSUID,
    C.MS_NODEV: C.MOUNT_ATTR_NODEV,
    C.MS_NOEXEC: C.MOUNT_ATTR_NOEXEC,
    C.MS_NODIRATIME: C.MOUNT_ATTR_NODIRATIME,
    C.MS_NOSYMFOLLOW: C.MOUNT_ATTR_NOSYMFOLLOW,
}


@shape
class Words:
    """The parsed option list."""

    flags: int = 0
    cleared: int = 0
    propagation: list[int] = field(default_factory=list)
    recursive_set: int = 0
    recursive_clear: int = 0
    tmpcopyup: bool = False
    idmap: str = ""
    data: list[str] = field(default_factory=list)


def parse(options: Iterable[str]) -> Words:
    found = Words()
    for word in options:
        if word in FLAGS:
            set_, clear = FLAGS[word]
            found.flags = found.flags & ~clear | set_
            found.cleared = found.cleared & ~set_ | clear
        elif word in PROPAGATION:
            found.propagation.append(PROPAGATION[word])
        elif word in RECURSIVE:
            set_, clear = RECURSIVE[word]
            found.recursive_set = found.recursive_set & ~clear | set_
            found.recursive_clear = found.recursive_clear & ~(set_ & ~_ATIME) | clear
        elif word == "tmpcopyup":
            found.tmpcopyup = True
        elif word in ("idmap", "ridmap"):
            found.idmap = word
        elif word:
            found.data.append(word)
    return found


def attributes(flags: int) -> tuple[int, int]:
    """(set, clear) for mount_setattr, of mount(2) flags."""
    set_, clear = 0, 0
    for flag, attribute in _TO_ATTRIBUTES.items():
        if flags & flag:
            set_ |= attribute
    for flag, attribute in (
        (C.MS_NOATIME, C.MOUNT_ATTR_NOATIME),
        (C.MS_STRICTATIME, C.MOUNT_ATTR_STRICTATIME),
        (C.MS_RELATIME, C.MOUNT_ATTR_RELATIME),
    ):
        if flags & flag:
            return set_ | attribute, clear | _ATIME
    return set_, clear


def known_words() -> list[str]:
    """Every word that is not handed to the filesystem."""
    return sorted([*FLAGS, *PROPAGATION, *RECURSIVE, *OWN])
