"""TLS inside another TLS connection: an https registry behind an https proxy.

``ssl`` wraps sockets by taking their file descriptor over, which leaves out a TLS layer that is there
already; so the inner layer runs over memory buffers and what it wants on the wire goes through the outer
one. Offers what ``http.client`` uses of a socket. One thread at a time; time limits are the outer socket's.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, cast

_T = TypeVar("_T")
_PIECE = 64 << 10


class NestedTls:
    """Handshakes at once; raises what an ``SSLSocket`` raises. ``outer`` belongs to it from then on."""

    def __init__(self, outer: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self.outer = outer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._readers = 0
        self._closed = False
        self._drive(self._tls.do_handshake)

    def sendall(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data).cast("B")
        for begin in range(0, len(view), _PIECE):
            piece = view[begin : begin + _PIECE]
            while piece:
                sent = self._drive(lambda piece=piece: self._tls.write(piece))  # type: ignore[misc]
                piece = piece[sent:]

    def recv_into(self, buffer: memoryview) -> int:
        try:
            # with a buffer it returns the number of bytes, which its type does not say
            return cast(int, self._drive(lambda: self._tls.read(len(buffer), buffer)))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0  # as SSLSocket does; whoever reads knows how much was promised

    def makefile(self, mode: str) -> io.BufferedReader:
        if mode != "rb":
            raise ValueError(mode)
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def settimeout(self, seconds: float | None) -> None:
        self.outer.settimeout(seconds)

    def close(self) -> None:
        """The connection ends when its last file has gone too, as with sockets."""
        self._closed = True
        if not self._readers:
            self._end()

    def reader_gone(self) -> None:
        self._readers -= 1
        if self._closed and not self._readers:
            self._end()

    def _end(self) -> None:
        self.outer.close()  # without a farewell, as SSLSocket.close does

    def _drive(self, step: Callable[[], _T]) -> _T:
        """``step`` until it has what it needs from the wire."""
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self.outer.recv(_PIECE)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
                continue
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush()  # the alert that tells the peer why
                raise
            self._flush()
            return done

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.outer.sendall(self._outgoing.read())


class _Reader(io.RawIOBase):
    def __init__(self, link: NestedTls) -> None:
        super().__init__()
        self._link = link

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._link.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._link.reader_gone()
