"""Connections through a SOCKS 5 proxy (RFC 1928, with user and password by RFC 1929). Names are resolved by
the proxy, as Go does for ``socks5://`` and ``socks5h://``.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

_REASONS = (
    "",
    "general failure",
    "not allowed by its rules",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "time to live exceeded",
    "command not supported",
    "address type not supported",
)


def connect(link: socket.socket, user: tuple[str, str] | None, target: tuple[str, int]) -> None:
    """Make ``link``, which leads to the proxy, speak with ``target``. Raises OSError."""
    _greet(link, user)
    link.sendall(b"\5\1\0" + _address(*target))
    version, code, _, kind = _read(link, 4)
    if version != 5:
        raise ConnectionAbortedError(errno.ECONNABORTED, "it does not speak SOCKS 5")
    if code:
        reason = _REASONS[code] if code < len(_REASONS) else f"error {code}"
        raise ConnectionAbortedError(errno.ECONNABORTED, f"it says: {reason}")
    length = {1: 4, 4: 16}.get(kind) or _read(link, 1)[0]
    _read(link, length + 2)


def _greet(link: socket.socket, user: tuple[str, str] | None) -> None:
    link.sendall(b"\5\2\0\2" if user else b"\5\1\0")
    version, method = _read(link, 2)
    if version != 5:
        raise ConnectionAbortedError(errno.ECONNABORTED, "it does not speak SOCKS 5")
    if method == 0:
        return
    if method != 2 or not user:
        raise ConnectionAbortedError(errno.ECONNABORTED, "it wants an authentication that was not given")
    name, password = (part.encode()[:255] for part in user)
    link.sendall(b"\1" + bytes([len(name)]) + name + bytes([len(password)]) + password)
    if _read(link, 2)[1]:
        raise ConnectionAbortedError(errno.ECONNABORTED, "it refuses the user name and password")


def _address(host: str, port: int) -> bytes:
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        return b"\3" + bytes([len(name)]) + name + struct.pack("!H", port)
    return bytes([1 if number.version == 4 else 4]) + number.packed + struct.pack("!H", port)


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it hung up")
        data += piece
    return data
