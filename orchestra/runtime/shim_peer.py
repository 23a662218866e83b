"""One connected client of the shim: requests in, answers and events out, never blocking."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.runtime import shim_wire as wire
from orchestra.runtime.shim_errors import to_data
from orchestra.runtime.shim_loop import HANGUP, READ, WRITE, Loop

_QUEUE = 10_000  # messages; a listener that is further behind is cut off and must look again


class Request:
    """One request; answered exactly once, at once or later. Fds that came along are closed with the
    answer unless taken out of ``fds``."""

    def __init__(self, peer: Peer, op: str, args: dict[str, Any], fds: list[int]) -> None:
        self.peer = peer
        self.op = op
        self.args = args
        self.fds = fds

    def reply(self, value: Any, fds: list[int] | None = None) -> None:
        """Answer; ``fds`` are passed on and closed here."""
        self._done({"ok": value}, fds or [])

    def fail(self, problem: BaseException) -> None:
        if not isinstance(problem, OSError | OrchestraError):  # a bug: into the shim's own log
            sys.excepthook(type(problem), problem, problem.__traceback__)
        self._done({"error": to_data(problem)}, [])

    def _done(self, message: dict[str, Any], fds: list[int]) -> None:
        wire.close(self.fds)
        self.fds = []
        self.peer.send(message, fds)


class Peer:
    """``on_request`` gets each request, ``on_gone`` the peer once when it has closed."""

    def __init__(
        self,
        loop: Loop,
        link: socket.socket,
        on_request: Callable[[Request], None],
        on_gone: Callable[[Peer], None],
    ) -> None:
        link.setblocking(False)
        self.loop = loop
        self.link = link
        self.on_request = on_request
        self.on_gone = on_gone
        self.listening = False
        self.kinds: tuple[str, ...] = ()  # the types of events it listens to; none: all
        self._queue: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._fd = link.fileno()
        self._full = False  # whether the loop tells when there is room again
        loop.add(self._fd, READ, self._ready)

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        if self._fd < 0:
            wire.close(fds or [])
            return
        self._queue.append((message, fds or []))
        if len(self._queue) > _QUEUE:
            self.close()
        elif len(self._queue) == 1:
            self._flush()

    def close(self) -> None:
        if self._fd < 0:
            return
        self.loop.drop(self._fd)
        self._fd = -1
        self.link.close()
        for _message, fds in self._queue:
            wire.close(fds)
        self._queue.clear()
        self.on_gone(self)

    def _flush(self) -> None:
        while self._queue:
            message, fds = self._queue[0]
            try:
                wire.send(self.link, message, tuple(fds))
            except BlockingIOError:
                self._wait(full=True)
                return
            except OSError:
                self.close()
                return
            self._queue.popleft()
            wire.close(fds)
        self._wait(full=False)

    def _wait(self, *, full: bool) -> None:
        if full != self._full:
            self._full = full
            self.loop.change(self._fd, READ | WRITE if full else READ)

    def _ready(self, mask: int) -> None:
        if mask & WRITE:
            self._flush()
        if self._fd < 0 or not mask & (READ | HANGUP):
            return
        try:
            found = wire.receive(self.link)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            found = None
        if found is None:
            self.close()
            return
        message, fds = found
        request = Request(self, str(message.get("op")), message.get("args") or {}, fds)
        try:
            self.on_request(request)
        except Exception as problem:
            request.fail(problem)


def credentials_fit(link: socket.socket) -> bool:
    """Only the owner of the shim (or root) may speak to it."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    user = int.from_bytes(raw[4:8], sys.byteorder)
    return user in (0, os.geteuid())
