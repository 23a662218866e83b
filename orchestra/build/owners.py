"""Users, groups and modes as COPY's ``--chown`` and ``--chmod`` write them. Pure, but for reading the
stage's ``/etc/passwd`` and ``/etc/group``."""

from __future__ import annotations

import re

from orchestra.build.problems import BuildError
from orchestra.build.view import View

_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}


def parse_owner(text: str, root: View) -> tuple[int, int]:
    """``user[:group]``, by name or number. Without a group: the user's own, or the same number."""
    user, colon, group = text.partition(":")
    if not user:
        raise BuildError(f"invalid owner {text!r}")
    own_group: int | None = None
    if user.isdigit():
        uid = int(user)
    else:
        row = _row(root, "etc/passwd", user)
        if row is None or len(row) < 4:
            raise BuildError(
                f"no user {user!r} in /etc/passwd of the stage", hint="use a number, or add the user"
            )
        uid, own_group = _number(row[2], user), _number(row[3], user)
    if not colon or not group:
        return uid, uid if own_group is None else own_group
    if group.isdigit():
        return uid, int(group)
    row = _row(root, "etc/group", group)
    if row is None or len(row) < 3:
        raise BuildError(
            f"no group {group!r} in /etc/group of the stage", hint="use a number, or add the group"
        )
    return uid, _number(row[2], group)


def user_of(text: str, root: View) -> tuple[int, int, list[int], str]:
    """``USER`` for a process: uid, gid, further groups, home directory."""
    user, colon, group = (text or "0").partition(":")
    row = _row(root, "etc/passwd", user, column=2 if user.isdigit() else 0)
    if row is None and not user.isdigit():
        raise BuildError(f"no user {user!r} in /etc/passwd of the image")
    uid = int(user) if user.isdigit() else _number(row[2], user) if row else 0
    gid = _number(row[3], user) if row and len(row) > 3 else 0
    home = row[5] if row and len(row) > 5 and row[5] else ("/root" if uid == 0 else "/")
    if colon and group:
        return uid, parse_owner(f"{uid}:{group}", root)[1], [], home
    name = row[0] if row else ""
    return uid, gid, _memberships(root, name, gid), home


def _memberships(root: View, name: str, gid: int) -> list[int]:
    found = []
    for row in _rows(root, "etc/group"):
        if len(row) > 3 and name and name in row[3].split(",") and row[2].isdigit() and int(row[2]) != gid:
            found.append(int(row[2]))
    return sorted(set(found))


def _rows(root: View, path: str) -> list[list[str]]:
    text = (root.read(path) or b"").decode("utf-8", "replace")
    return [line.split(":") for line in text.splitlines()]


def _row(root: View, path: str, key: str, column: int = 0) -> list[str] | None:
    return next((row for row in _rows(root, path) if len(row) > column and row[column] == key), None)


def _number(text: str, name: str) -> int:
    if not text.isdigit():
        raise BuildError(f"the entry of {name!r} has no number")
    return int(text)


def parse_mode(text: str) -> Mode:
    """An octal mode, or a symbolic one (``u=rwX,go=rX``)."""
    if re.fullmatch(r"[0-7]{1,4}", text):
        return Mode(int(text, 8), ())
    changes = []
    for part in text.split(","):
        match = _SYMBOLIC.fullmatch(part)
        if match is None:
            raise BuildError(f"invalid mode {text!r}", hint="octal like 0644, or symbolic like u=rwX,go=rX")
        changes.append((match[1] or "a", match[2], match[3]))
    return Mode(None, tuple(changes))


class Mode:
    def __init__(self, fixed: int | None, changes: tuple[tuple[str, str, str], ...]) -> None:
        self._fixed = fixed
        self._changes = changes

    def apply(self, mode: int, *, is_dir: bool) -> int:
        if self._fixed is not None:
            return self._fixed
        for who, operator, letters in self._changes:
            mode = _changed(mode, who, operator, letters, is_dir=is_dir)
        return mode


def _changed(mode: int, who: str, operator: str, letters: str, *, is_dir: bool) -> int:
    classes = "ugo" if "a" in who else who
    bits = {"r": 4, "w": 2, "x": 1, "X": 1 if is_dir or mode & 0o111 else 0}
    value = 0
    for letter in letters:
        value |= bits.get(letter, 0)
    mask = cleared = 0
    for name in classes:
        mask |= value << _SHIFT[name]
        cleared |= 7 << _SHIFT[name]
    if "s" in letters:
        mask |= (0o4000 if "u" in classes else 0) | (0o2000 if "g" in classes else 0)
    if "t" in letters:
        mask |= 0o1000
    if operator == "+":
        return mode | mask
    if operator == "-":
        return mode & ~mask
    return (mode & ~cleared) | mask
