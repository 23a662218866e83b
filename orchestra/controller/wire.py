"""The daemon's socket: one JSON object a line over SOCK_STREAM, descriptors by SCM_RIGHTS.

Used by both sides; standard library only and cheap to import. A request is ``{"op", "args"}``; the
answers are any number of ``{"progress"}``/``{"data"}`` lines, then one ``{"result"}`` or ``{"error"}``.
"""

from __future__ import annotations

import array
import json
import select
import socket
from collections.abc import Iterable, Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK = 1 << 16
MAXIMUM = 256 << 20  # bytes of one line; a project of a thousand services is about 2 MiB


class WireError(OSError):
    """The other side is gone or talks nonsense."""


class Wire:
    """One side of a connection. Not thread-safe for reading; each send is one call."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()
        self.fds: list[int] = []

    def send(self, message: dict[str, Any], fds: Iterable[int] = ()) -> None:
        """Raises BrokenPipeError/ConnectionResetError when the other side is gone."""
        data = json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"
        numbers = list(fds)
        if numbers:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]
            sent = self.sock.sendmsg([data[:CHUNK]], rights)
            if rest := data[sent:]:  # sending nothing fails once a quick daemon has answered and closed
                self.sock.sendall(rest)
        else:
            self.sock.sendall(data)

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None at the end. Descriptors that came along gather in ``fds``."""
        start = 0
        while True:
            end = self._buffer.find(b"\n", start)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise WireError("not an object")
                return message
            start = len(self._buffer)
            if start > MAXIMUM:
                raise WireError("message too long")
            data, rights, _flags, _address = self.sock.recvmsg(
                CHUNK, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, payload in rights:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    numbers = array.array("i")
                    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                    self.fds.extend(numbers)
            if not data:
                return None
            self._buffer += data

    def ready(self, outputs: Iterable[int] = ()) -> bool:
        """Waits for something to receive. False: nobody reads one of the pipes ``outputs`` any more."""
        if b"\n" in self._buffer:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        for fd in outputs:
            poll.register(fd, 0)  # a pipe without readers is an error, which is told in any case
        return any(fd == self.sock.fileno() for fd, _events in poll.poll())

    def take_fds(self) -> list[int]:
        """The descriptors received so far, now the caller's."""
        taken, self.fds = self.fds, []
        return taken

    def hung_up(self) -> bool:
        """Whether the other side has closed (asked without waiting)."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLRDHUP)
        for _fd, events in poll.poll(0):
            if events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR):
                return True
        return False

    def messages(self) -> Iterator[dict[str, Any]]:
        while (message := self.receive()) is not None:
            yield message

    def close(self) -> None:
        self.sock.close()
