"""Asks other name servers what we do not know, and hands their answers on as they are.

One socket a question (a fresh source port and id each time), servers in order, each with a time limit. A
server that did not answer is asked last for a while.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable, Sequence

from orchestra.network.dns import message
from orchestra.network.hosts import parse_resolv_conf

TIMEOUT = 2.0
BACK_OFF = 10.0
_LARGEST = 65535

MakeSocket = Callable[[str, int], socket.socket]
"""(address, kind) → a socket to reach it with."""


def host_socket(address: str, kind: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class HostServers:
    """The host's name servers, read again when resolv.conf changes."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def __call__(self) -> tuple[str, ...]:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._servers = parse_resolv_conf(file.read()).nameservers
                self._stamp = stamp
        except OSError:
            self._servers, self._stamp = (), None
        return self._servers


class Forwarder:
    """Lives in the server's event loop."""

    def __init__(self, *, timeout: float = TIMEOUT, port: int = 53) -> None:
        self._timeout = timeout
        self._port = port
        self._silent: dict[str, float] = {}  # server → until when it is asked last

    async def ask(
        self,
        query: message.Query,
        data: bytes,
        servers: Sequence[str],
        *,
        tcp: bool,
        make: MakeSocket = host_socket,
    ) -> bytes | None:
        """The answer to the query ``data``, with its id; None when no server gave one. A refusal or failure
        of one server is only passed on when no other does better."""
        poor: bytes | None = None
        for server in self._order(servers):
            try:
                async with asyncio.timeout(self._timeout):
                    answer = await (self._tcp if tcp else self._udp)(query, data, server, make)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self._silent[server] = time.monotonic() + BACK_OFF
                continue
            self._silent.pop(server, None)
            answer = data[:2] + answer[2:]
            if message.rcode_of(answer) not in (message.SERVFAIL, message.REFUSED, message.NOTIMP):
                return answer
            poor = poor or answer
        return poor

    def _order(self, servers: Sequence[str]) -> list[str]:
        """Those that answered lately first; of those that did not, only as many as may be worth it."""
        now = time.monotonic()
        good = [server for server in servers if self._silent.get(server, 0.0) <= now]
        bad = [server for server in servers if server not in good]
        return good + bad[: 1 if not good else len(bad)]

    async def _udp(self, query: message.Query, data: bytes, server: str, make: MakeSocket) -> bytes:
        loop = asyncio.get_running_loop()
        number = secrets.token_bytes(2)
        with make(server, socket.SOCK_DGRAM) as link:
            await loop.sock_connect(link, (server, self._port))
            await loop.sock_sendall(link, number + data[2:])
            while True:
                answer = await loop.sock_recv(link, _LARGEST)
                if answer[:2] == number and message.answers_query(query, answer):
                    return answer

    async def _tcp(self, query: message.Query, data: bytes, server: str, make: MakeSocket) -> bytes:
        loop = asyncio.get_running_loop()
        number = secrets.token_bytes(2)
        with make(server, socket.SOCK_STREAM) as link:
            await loop.sock_connect(link, (server, self._port))
            await loop.sock_sendall(link, struct.pack("!H", len(data)) + number + data[2:])
            (length,) = struct.unpack("!H", await _exactly(loop, link, 2))
            answer = await _exactly(loop, link, length)
        if answer[:2] != number or not message.answers_query(query, answer):
            raise OSError("another question was answered")
        return answer


async def _exactly(loop: asyncio.AbstractEventLoop, link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(link, count - len(data))
        if not more:
            raise OSError("connection closed")
        data += more
    return data
