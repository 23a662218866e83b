"""Forgets tracked UDP flows of a published port, whose packets would keep going where they went before.

A TCP client notices that its peer is gone; a UDP one that keeps sending keeps the entry alive. Hand-written
ctnetlink (linux/netfilter/nfnetlink_conntrack.h): list, pick by original destination port, delete each.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection

from orchestra.network.model import PortSpec
from orchestra.network.netlink import attributes

_NETLINK_NETFILTER = 12
_CTNETLINK = 1 << 8
_GET, _DELETE = _CTNETLINK | 1, _CTNETLINK | 2
_TUPLE_ORIG, _TUPLE_PROTO, _PROTO_NUM, _PROTO_DST_PORT = 1, 2, 1, 3
_HEADER = struct.Struct("=IHHII")


def forget(ports: Collection[PortSpec]) -> None:
    """Deletes the flows to these host ports; does nothing where conntrack cannot be asked."""
    numbers = {port.published for port in ports}
    if not numbers:
        return
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as link:
            link.settimeout(2)
            link.bind((0, 0))
            for family in (socket.AF_INET, socket.AF_INET6):
                for body in _dump(link, family):
                    if _udp_port(body) in numbers:
                        _delete(link, family, body)
    except OSError:
        return


def _udp_port(body: bytes) -> int:
    """The original destination port of a UDP entry, else 0."""
    original = attributes(attributes(body[4:]).get(_TUPLE_ORIG, b""))
    protocol = attributes(original.get(_TUPLE_PROTO, b""))
    if protocol.get(_PROTO_NUM) != bytes([socket.IPPROTO_UDP]):
        return 0
    return int.from_bytes(protocol.get(_PROTO_DST_PORT, b""), "big")


def _dump(link: socket.socket, family: int) -> list[bytes]:
    link.send(_HEADER.pack(20, _GET, 0x301, 1, 0) + struct.pack("=BBH", family, 0, 0))
    bodies: list[bytes] = []
    while True:
        data, offset = link.recv(1 << 18), 0
        while offset + 16 <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, offset)
            if kind in (2, 3) or length < 16:
                return bodies
            bodies.append(data[offset + 16 : offset + length])
            offset += (length + 3) & ~3


def _delete(link: socket.socket, family: int, body: bytes) -> None:
    original = attributes(body[4:])[_TUPLE_ORIG]
    part = struct.pack("=HH", 4 + len(original), _TUPLE_ORIG | 0x8000) + original
    part += b"\0" * (-len(part) % 4)
    message = struct.pack("=BBH", family, 0, 0) + part
    link.send(_HEADER.pack(16 + len(message), _DELETE, 0x5, 2, 0) + message)
    link.recv(65536)  # the answer; an entry that has just gone is fine
