"""Extraction by the standard library's tarfile, kept inside a folder, on every Python 3.11.

The ``filter`` argument came with Python 3.11.4; Debian 12 has 3.11.2. So the check is ours: the place of
a member, links on the way followed, must lie below the folder.
"""

from __future__ import annotations

import copy
import os
import tarfile
from typing import Any


class Outside(Exception):
    """A member whose place is not below the folder."""


def altered(member: tarfile.TarInfo, **changes: Any) -> tarfile.TarInfo:
    """A copy with other fields."""
    made = copy.copy(member)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def check(member: tarfile.TarInfo, folder: str) -> None:
    """Raises Outside for a member (or the target of a hard link) that leads out of ``folder``."""
    top = os.path.realpath(folder)
    names = [member.name, *([member.linkname] if member.islnk() else [])]
    for name in names:
        parent = os.path.realpath(os.path.join(top, os.path.dirname(name.lstrip("/"))))
        if ".." in name.split("/") or (parent != top and not parent.startswith(top.rstrip("/") + "/")):
            raise Outside(f"{member.name[:100]!r} leads out of the folder")


def extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str, *, numeric_owner: bool = True
) -> None:
    """Extract one member below ``folder``, after :func:`check`; setuid and setgid bits of group and others'
    write permission go, as with the standard library's ``tar`` filter. ``tarfile.ExtractError`` for a hard link
    to what has not been extracted."""
    check(member, folder)
    kept = altered(member, name=member.name.lstrip("/"))
    if member.isreg() or member.islnk():
        kept.mode = member.mode & 0o755
    options: dict[str, Any] = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    place = os.path.join(folder, kept.name)
    if os.path.islink(place) and not member.issym():
        os.unlink(place)  # a link of that name would be followed
    try:
        tar.extract(kept, folder, numeric_owner=numeric_owner, **options)
    except (KeyError, ValueError) as error:  # the latter before Python 3.11.4, which looks for our copy
        raise tarfile.ExtractError(f"{member.name[:100]!r} links to what is not there") from error
