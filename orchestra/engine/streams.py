"""Copying between a container's streams and a client's descriptors, in threads of the daemon."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from orchestra.errors import OrchestraError
from orchestra.runtime.shimclient import Attachment

CHUNK = 1 << 16
PATIENCE = 5.0


class Copier:
    """``fds`` are (stdin, stdout, stderr) of the client; copies of them are kept. ``begin`` starts the
    copying, ``end`` waits for the rest of the output and stops. ``close_stdin`` passes the client's end of file
    on to the container; without it others may write on."""

    def __init__(
        self,
        attach: Callable[[], Attachment],
        fds: tuple[int, int, int],
        *,
        stdin: bool,
        close_stdin: Callable[[], None] | None,
    ) -> None:
        self._attach, self._stdin, self._close_stdin = attach, stdin, close_stdin
        self.fds = [os.dup(fd) for fd in fds]
        self._threads: list[threading.Thread] = []
        self._over_read, self._over_write = os.pipe2(os.O_CLOEXEC)
        self._attachment: Attachment | None = None

    def begin(self) -> None:
        try:
            self._attachment = found = self._attach()
        except (OrchestraError, OSError):
            return
        for source, target in ((found.stdout, self.fds[1]), (found.stderr, self.fds[2])):
            if source >= 0:
                thread = threading.Thread(target=self._output, args=(source, target), daemon=True)
                self._threads.append(thread)
                thread.start()
        if self._stdin and found.stdin >= 0:
            threading.Thread(target=self._input, args=(found.stdin, found.tty), daemon=True).start()

    def _output(self, source: int, target: int) -> None:
        while True:
            try:
                data = os.read(source, CHUNK)
            except OSError:
                return
            if not data:
                return
            if not write_all(target, data):
                return

    def _input(self, target: int, tty: bool) -> None:
        """Until the client's end of file, or until we are over."""
        while True:
            try:
                ready, _, _ = select.select([self.fds[0], self._over_read], [], [])
            except (OSError, ValueError):
                return
            if self._over_read in ready:
                return
            try:
                data = os.read(self.fds[0], CHUNK)
            except OSError:
                data = b""
            if not data:
                if not tty:
                    self._pass_end_on()
                return
            if not write_all(target, data):
                return

    def _pass_end_on(self) -> None:
        """The container reads the end of its input when neither the shim nor we hold the other side."""
        try:
            if self._close_stdin:
                self._close_stdin()
        except (OrchestraError, OSError):
            pass  # it has ended
        if self._attachment is not None and self._attachment.stdin >= 0:
            os.close(self._attachment.stdin)
            self._attachment.stdin = -1

    def end(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
        os.write(self._over_write, b"x")
        if self._attachment is not None:
            self._attachment.close()
        for fd in self.fds:
            os.close(fd)


def write_all(fd: int, data: bytes) -> bool:
    """False when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except OSError:
            return False
    return True
