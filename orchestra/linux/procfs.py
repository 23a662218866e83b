"""What /proc tells of processes and mounts, parsed."""

from __future__ import annotations

import os
from typing import NamedTuple


def start_time(pid: int) -> int | None:
    """Clock ticks after boot when the process began: pid and start time together name one process
    for as long as the machine runs. None when there is no such process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def state(pid: int) -> str:
    """One letter (R, S, D, T, Z …); '' when there is no such process."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def alive(pid: int, started: int | None = None) -> bool:
    """Whether this very process exists and is no zombie."""
    fields = _stat(pid)
    if not fields or fields[0] in ("Z", "X"):
        return False
    return started is None or int(fields[19]) == started


def _stat(pid: int) -> list[str]:
    """The fields after the command name, which may itself hold blanks and brackets."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, 4096)  # the kernel gives all of it at once
        finally:
            os.close(fd)
    except OSError:
        return []
    return data.rpartition(b")")[2].decode().split()


def command_line(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(word) for word in data.rstrip(b"\0").split(b"\0")] if data else []


def status(pid: int | str = "self") -> dict[str, str]:
    """/proc/<pid>/status as a dictionary; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


class Mount(NamedTuple):
    """One line of mountinfo."""

    id: int
    parent: int
    device: str
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


def mounts(pid: int | str = "self") -> list[Mount]:
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse_mountinfo(file.read())


def parse_mountinfo(text: str) -> list[Mount]:
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if len(fields) < 6 or len(tail) < 3:
            continue
        found.append(
            Mount(
                int(fields[0]),
                int(fields[1]),
                fields[2],
                unescape(fields[3]),
                unescape(fields[4]),
                tuple(fields[5].split(",")),
                tuple(fields[6:]),
                tail[0],
                unescape(tail[1]),
                tail[2],
            )
        )
    return found


def unescape(text: str) -> str:
    """Blank, tab, newline and backslash are written as three octal digits."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(piece[:3], 8)) + piece[3:] for piece in rest)
