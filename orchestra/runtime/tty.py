"""Terminals: a pair made from the container's own devpts, its size, and becoming its session's own.

The other end is opened with TIOCGPTPEER, never by its name: nobody can put another file in its place.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from orchestra.linux import constants as C
from orchestra.linux import fs


def open_pair(root_fd: int, *, rows: int = 0, columns: int = 0) -> tuple[int, int]:
    """(master, slave) of ``/dev/pts`` inside the root. The container's devpts must be mounted."""
    flags = os.O_RDWR | os.O_NOCTTY
    try:
        master = fs.open_inside(root_fd, "dev/pts/ptmx", flags)
    except FileNotFoundError:
        master = fs.open_inside(root_fd, "dev/ptmx", flags)
    try:
        fcntl.ioctl(master, C.TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, C.TIOCGPTPEER, flags | os.O_CLOEXEC)
        resize(master, rows, columns)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def resize(fd: int, rows: int, columns: int) -> None:
    """Zero by zero is left alone."""
    if rows > 0 and columns > 0:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", min(rows, 65535), min(columns, 65535), 0, 0))


def take(slave: int) -> None:
    """Make it the controlling terminal of this session (whose leader the caller is) and its stdio."""
    fcntl.ioctl(slave, C.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)


def name(master: int) -> str:
    """``/dev/pts/<n>``, as runtimes tell it to the receiver of a console."""
    number = struct.unpack("i", fcntl.ioctl(master, 0x80045430, struct.pack("i", 0)))[0]  # TIOCGPTN
    return f"/dev/pts/{number}"
