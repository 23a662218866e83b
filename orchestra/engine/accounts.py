"""User and group names of a container, looked up in the container's own passwd and group files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestra.errors import OrchestraError

Reader = Callable[[str], bytes | None]
"""The content of a file of the container's tree, or None."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the process runs as. ``groups`` are the supplementary ones (the main one among them)."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"
    name: str = ""


def resolve(read: Reader, user: str, group_add: Sequence[str] = ()) -> Identity:
    """``user`` is ``name|uid[:group|gid]`` or '' (root)."""
    wanted, _, wanted_group = user.partition(":")
    wanted = wanted or "0"
    accounts = list(_entries(read("/etc/passwd"), 7))
    groups = list(_entries(read("/etc/group"), 4))
    account = next((line for line in accounts if line[0] == wanted), None)
    if account is None and _is_number(wanted):
        account = next((line for line in accounts if line[2] == wanted), None)
    if account is None and not _is_number(wanted):
        raise OrchestraError(f"unable to find user {wanted}: no matching entries in the image's passwd file")
    uid = _number(account[2] if account else wanted, user)
    gid = _number(account[3], user) if account else 0
    name = account[0] if account else ""
    extra: list[int] = []
    if wanted_group:
        gid = group_id(groups, wanted_group)
    elif name:
        extra = [
            _number(line[2], f"group {line[0]}")
            for line in groups
            if name in line[3].split(",") and _is_number(line[2])
        ]
    extra += [group_id(groups, group) for group in group_add]
    home = (account[5] if account else "") or "/"
    return Identity(uid, gid, tuple(dict.fromkeys((gid, *extra))), home, name)


def group_id(groups: Iterable[Sequence[str]], wanted: str) -> int:
    for line in groups:
        if line[0] == wanted and _is_number(line[2]):
            return _number(line[2], f"group {wanted}")
    if _is_number(wanted):
        return _number(wanted, wanted)
    raise OrchestraError(f"unable to find group {wanted}: no matching entries in the image's group file")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str, user: str) -> int:
    if not _is_number(text) or len(text) > 100 or int(text) > 0x7FFFFFFF:
        raise OrchestraError(f"uids and gids must be in range 0-2147483647: {user}")
    return int(text)


def _entries(content: bytes | None, fields: int) -> Iterator[list[str]]:
    for line in (content or b"").decode("utf-8", "surrogateescape").split("\n"):
        parts = line.split(":")
        if line.startswith("#") or len(parts) < 3:
            continue
        yield parts + [""] * (fields - len(parts))
