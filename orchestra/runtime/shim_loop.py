"""The shim's event loop: epoll, timers, and nothing else. Single-threaded."""

from __future__ import annotations

import heapq
import select
import sys
import time
from collections.abc import Callable

READ, WRITE, HANGUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
Handler = Callable[[int], None]


class Loop:
    """``add`` a handler for an fd (called with the epoll mask), ``after`` a time. A handler's own
    exception is reported on stderr and does not stop the others."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.done = False

    def add(self, fd: int, mask: int, handler: Handler) -> None:
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def change(self, fd: int, mask: int) -> None:
        self._epoll.modify(fd, mask)

    def drop(self, fd: int) -> None:
        """Forget the fd (before closing it); fine when it is not known."""
        if self._handlers.pop(fd, None):
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass

    def drop_all(self, handler_owner: object) -> None:
        """Forget the fds whose handlers belong to an object that has closed them itself."""
        for fd, handler in list(self._handlers.items()):
            if getattr(handler, "__self__", None) is handler_owner:
                self.drop(fd)

    def close(self) -> None:
        self._epoll.close()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, action))

    def run(self, between: Callable[[], None]) -> None:
        """Until ``done``; ``between`` runs after each round."""
        while not self.done:
            for fd, mask in self._epoll.poll(self._patience(), 64):
                handler = self._handlers.get(fd)
                if handler:
                    self._guard(lambda handler=handler, mask=mask: handler(mask))  # type: ignore[misc]
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._guard(heapq.heappop(self._timers)[2])
            between()

    def _patience(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1

    @staticmethod
    def _guard(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            sys.excepthook(*sys.exc_info())
