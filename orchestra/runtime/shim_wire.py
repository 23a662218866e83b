"""Messages between the shim and its clients: one JSON object a SOCK_SEQPACKET message, fds beside it.

An object too long for one message travels in a memfd that comes as the first fd. A request is
``{"op", "args"}``; the answer is ``{"ok": …}`` or ``{"error": {…}}``; after ``events`` only
``{"event": {…}}`` follow.
"""

from __future__ import annotations

import array
import json
import os
import socket
from typing import Any

INLINE = 48_000
_FDS = 32


def encode(message: dict[str, Any]) -> tuple[bytes, int | None]:
    """(what goes into the message, a memfd to send first or None; the caller closes it)."""
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) <= INLINE:
        return data, None
    store = os.memfd_create("shim-message", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(store, view) :]
    return b'{"memfd":%d}' % len(data), store


def send(link: socket.socket, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
    """Send; ``BlockingIOError`` when a non-blocking link is full (nothing was sent then)."""
    data, store = encode(message)
    try:
        every = (store, *fds) if store is not None else fds
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", every))] if every else []
        link.sendmsg([data], extra, socket.MSG_NOSIGNAL)
    finally:
        if store is not None:
            os.close(store)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message with its fds (close-on-exec; the caller owns them); None when the other side
    is gone."""
    size = array.array("i").itemsize
    data, extra, _flags, _address = link.recvmsg(
        INLINE + 4096, socket.CMSG_SPACE(_FDS * size), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, raw in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(raw[: len(raw) - len(raw) % size])
            fds.extend(numbers)
    if not data:
        close(fds)
        return None
    message = json.loads(data)
    if "memfd" in message and fds:
        store = fds.pop(0)
        try:
            message = json.loads(_whole(store, int(message["memfd"])))
        finally:
            os.close(store)
    return message, fds


def _whole(store: int, length: int) -> bytes:
    parts, place = [], 0
    while place < length and (piece := os.pread(store, length - place, place)):
        parts.append(piece)
        place += len(piece)
    return b"".join(parts)


def close(fds: list[int] | tuple[int, ...]) -> None:
    for fd in fds:
        if fd >= 0:
            try:
                os.close(fd)
            except OSError:
                continue


class Address:
    """A unix socket path of any length (the kernel takes 107 bytes): a long one goes by its directory's fd."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._folder = -1

    def __enter__(self) -> str:
        if len(os.fsencode(self.path)) < 100:
            return self.path
        folder, name = os.path.split(self.path)
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{name}"

    def __exit__(self, *_: object) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
