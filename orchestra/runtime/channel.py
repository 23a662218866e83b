"""The socket between a container's init and who creates it: small JSON messages, descriptors beside.

From the child: ``{"born": pid}`` (with the pidfd, from a middle process), ``{"console": …}`` (with the
master), ``{"failed": (errno, call)}`` of a program, ``{"warning": text}``, ``{"hooks": kinds}``, ``{"ready": true}``, ``{"error": {step …}}``.
From the parent: single words (``attached``, ``hooks``, ``start``). The socket is CLOEXEC: its end after
``start`` means that the program was executed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from orchestra.linux import program

_SIZE = 65536


def pair() -> tuple[socket.socket, socket.socket]:
    """(the parent's end, the child's end)"""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    data = json.dumps(message).encode()[:_SIZE]
    if fds:
        socket.send_fds(end, [data], list(fds))
    else:
        end.send(data)


def receive(end: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """(None, []) at the end. The other side's end with words unread is an error once, before what it said."""
    try:
        data, fds, _flags, _address = socket.recv_fds(end, _SIZE, 4)
    except ConnectionResetError:
        data, fds, _flags, _address = socket.recv_fds(end, _SIZE, 4)
    for fd in fds:
        os.set_inheritable(fd, False)
    if not data:
        return None, fds
    if len(data) == 4:  # the number of a process, from a program
        return {"born": int.from_bytes(data, sys.byteorder)}, fds
    broken = program.failure(data)
    if broken:
        return {"failed": broken}, fds
    message = json.loads(data)
    return (message if isinstance(message, dict) else {}), fds


def tell(end: socket.socket, word: str) -> None:
    end.send(word.encode())


class Words:
    """The child's ear: words may come before they are waited for."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._heard: set[str] = set()

    def expect(self, word: str) -> bool:
        """Wait for this word; False when the other side is gone."""
        while word not in self._heard:
            data = self.end.recv(64)
            if not data:
                return False
            self._heard.add(data.decode())
        return True
