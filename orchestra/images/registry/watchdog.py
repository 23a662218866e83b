"""Time limits on sockets that a slow peer cannot stretch.

A socket's own timeout restarts with every byte; a peer that sends one byte each 29 seconds is never
late. A :class:`Watchdog` shuts the socket down when a deadline passes, whatever is being read.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Watchdog:
    """One thread, started with the first watched socket, for all sockets of a transport."""

    def __init__(self) -> None:
        self._deadlines: dict[socket.socket, float] = {}
        self._late: set[int] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, sock: socket.socket, seconds: float) -> None:
        """Shut ``sock`` down in ``seconds`` from now; a later call moves the deadline."""
        with self._changed:
            self._deadlines[sock] = time.monotonic() + seconds
            self._late.discard(id(sock))
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="registry-watchdog", daemon=True)
                self._thread.start()
            self._changed.notify()

    def release(self, sock: socket.socket) -> bool:
        """Stop watching; whether the deadline had passed."""
        with self._changed:
            self._deadlines.pop(sock, None)
            late = id(sock) in self._late
            self._late.discard(id(sock))
            return late

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._deadlines.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for sock in [sock for sock, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[sock]
                    self._late.add(id(sock))
                    # the plain method: SSLSocket.shutdown would drop the TLS state under a reader's feet
                    with suppress(OSError):
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)
                upcoming = min(self._deadlines.values(), default=None)
                self._changed.wait(None if upcoming is None else max(0.0, upcoming - now))
