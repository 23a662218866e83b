"""The user's terminal and a container's: raw mode, window size, copying both ways, detach keys."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DETACH = "ctrl-p,ctrl-q"


def size(fd: int = 0) -> tuple[int, int] | None:
    """(rows, columns) of a terminal, or None."""
    try:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return None
    return (rows, columns) if rows and columns else None


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal in raw mode, for the length of the block."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield
        return
    try:
        tty.setraw(fd, termios.TCSADRAIN)  # what was typed already is kept
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def detach_sequence(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that are typed. Raises OrchestraError."""
    found = bytearray()
    for word in filter(None, text.split(",")):
        if word.startswith("ctrl-") and len(word) == 6:
            found.append(ord(word[5].upper()) ^ 64)
        elif len(word) == 1:
            found.append(ord(word))
        else:
            raise OrchestraError(f"invalid detach keys {text!r}", hint="write for example ctrl-p,ctrl-q")
    return bytes(found)


class Pump:
    """Copies the user's keys to ``master`` and its output to standard output, until it ends.

    ``resize`` is called with (rows, columns) when the window changes; ``detached`` tells whether the
    detach keys were typed.
    """

    def __init__(
        self, master: int, resize: Callable[[int, int], Any], keys: bytes = b"", *, stdin: bool = True
    ) -> None:
        self.master, self.resize, self.keys, self.stdin = master, resize, keys, stdin
        self.detached = False
        self._typed = b""

    def run(self) -> None:
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.signal(signal.SIGWINCH, lambda *_: os.write(wake_write, b"w"))
        try:
            with raw(0) if self.stdin else _nothing():
                self._loop(wake_read)
        finally:
            signal.signal(signal.SIGWINCH, before)
            os.close(wake_read)
            os.close(wake_write)

    def _loop(self, wake: int) -> None:
        watched = [self.master, wake, *([0] if self.stdin else [])]
        while not self.detached:
            ready, _, _ = select.select(watched, [], [])
            if wake in ready:
                os.read(wake, 100)
                now = size()
                if now:
                    self.resize(*now)
            if self.master in ready:
                try:
                    data = os.read(self.master, 65536)
                except OSError:  # EIO: the last process has closed the terminal
                    return
                if not data:
                    return
                _show(data)
            if 0 in ready:
                data = os.read(0, 65536)
                if not data:
                    watched.remove(0)
                    _write(self.master, b"\x04")
                else:
                    self._keys(data)

    def _keys(self, data: bytes) -> None:
        """Pass keys on, holding back what may be the beginning of the detach sequence."""
        if not self.keys:
            _write(self.master, data)
            return
        data = self._typed + data
        self._typed = b""
        place = data.find(self.keys)
        if place >= 0:
            _write(self.master, data[:place])
            self.detached = True
            return
        for length in range(min(len(self.keys) - 1, len(data)), 0, -1):
            if data.endswith(self.keys[:length]):
                self._typed, data = data[-length:], data[:-length]
                break
        _write(self.master, data)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _show(data: bytes) -> None:
    """To standard output. Raises BrokenPipeError when nobody reads it (``run -t … | head -1``)."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _write(fd: int, data: bytes) -> None:
    """To the container's side, whose end is told by its own reading."""
    view = memoryview(data)
    while view:
        try:
            done = os.write(fd, view)
        except OSError:
            return
        view = view[done:]


def interactive() -> bool:
    """Whether both standard input and output are terminals."""
    return sys.stdin is not None and os.isatty(0) and os.isatty(1)
