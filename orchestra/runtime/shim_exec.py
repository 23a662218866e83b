"""Further processes in a container: with the client's own fds, with a terminal, or run to the end with
their output kept (health checks)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Callable

from orchestra.linux import pidfd as pidfds
from orchestra.runtime.shim_loop import READ, Loop


class Exec:
    """A running or ended process. ``code`` is None while it runs; a signal N is 128 + N."""

    def __init__(self, loop: Loop, name: str, container: str, pid: int, pidfd: int) -> None:
        self.loop = loop
        self.name = name
        self.container = container
        self.pid = pid
        self.pidfd = pidfd
        self.code: int | None = None
        self.master = -1
        self.waiters: list[Callable[[int], None]] = []
        loop.add(pidfd, READ, lambda mask: self._ended())

    def wait(self, action: Callable[[int], None]) -> None:
        if self.code is None:
            self.waiters.append(action)
        else:
            action(self.code)

    def signal(self, number: int) -> None:
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, "the process has ended", self.name)
        pidfds.send_signal(self.pidfd, number)

    def kill_group(self) -> None:
        """It leads its own session, so what it has started goes with it."""
        if self.pidfd < 0:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:
            pass
        self.signal(signal.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        if self.master < 0:
            raise OSError(errno.ENOTTY, "the process has no terminal", self.name)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _ended(self) -> None:
        found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if found is None:
            return
        self.loop.drop(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
        self.code = found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter(self.code)


class Collector:
    """Output of one process, at most ``limit`` bytes of it; the rest is read and dropped."""

    def __init__(self, loop: Loop, limit: int) -> None:
        self.loop = loop
        self.limit = limit
        self.data = bytearray()
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        loop.add(self._reader, READ, lambda mask: self._read(1))

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self) -> bytes:
        """What is there now. A grandchild that keeps the pipe open is not waited for."""
        self._read(64)
        if self._reader >= 0:
            self.loop.drop(self._reader)
            os.close(self._reader)
            self._reader = -1
        self.close_writer()
        return bytes(self.data)

    def _read(self, rounds: int) -> None:
        for _ in range(rounds):
            if self._reader < 0:
                return
            try:
                piece = os.read(self._reader, 65536)
            except BlockingIOError:
                return
            if not piece:
                self.loop.drop(self._reader)
                os.close(self._reader)
                self._reader = -1
                return
            self.data += piece[: max(0, self.limit - len(self.data))]
