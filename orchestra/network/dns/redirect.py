"""127.0.0.11:53 inside a container's network namespace, without binding port 53 there.

A socket bound to 127.0.0.11:53 would keep every program of the container from binding 0.0.0.0:53
(SO_REUSEADDR and SO_BINDTODEVICE do not help: the kernel counts both as conflicts). So our sockets sit on
other ports of 127.0.0.11, and four stateless nftables rules rewrite port numbers on the way out of the
namespace's own processes: queries to port 53 go to ours, our answers come from port 53. They run before
connection tracking (priority -300) and need none.

Deleting rules waits for an RCU grace period (~8 ms), so a table that is there already (a daemon that came
back, with its usual ports) is left as it is; the chain's name tells the ports.

The rules are sent as one hand-written nfnetlink batch (linux/netfilter/nf_tables.h): running ``nft`` in every
container's namespace would cost ~10 ms each. Runs in the namespace the calling thread is in.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import struct

from orchestra.network.hosts import DNS_ADDRESS
from orchestra.network.netlink import attribute, nested, text

TABLE = "orchestra-dns"
PORT = 53
USUAL_PORT = 61053  # where our sockets sit; above the ephemeral ports

_NETLINK_NETFILTER = 12
_SUBSYS = 10
_ERROR, _BATCH_BEGIN, _BATCH_END = 2, 16, 17
_NEWTABLE, _DELTABLE, _NEWCHAIN, _GETCHAIN, _NEWRULE = 0, 2, 3, 4, 6
_REQUEST, _ACK, _EXCL, _CREATE, _APPEND = 1, 4, 0x200, 0x400, 0x800
_HOOK_OUTPUT, _PRIORITY = 3, -300
_META_L4PROTO, _NETWORK_HEADER, _TRANSPORT_HEADER, _REGISTER = 16, 1, 2, 1
_SOURCE, _TARGET = 0, 2  # offsets of the ports
_HEADER = struct.Struct("=IHHII")


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _expression(name: str, *parts: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *parts))


def _meta_protocol() -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, _META_L4PROTO))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(
        "payload", _number(1, _REGISTER), _number(2, base), _number(3, offset), _number(4, length)
    )


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER), _number(2, 0), nested(3, attribute(1, value)))


def _immediate(value: bytes) -> bytes:
    return _expression("immediate", _number(1, _REGISTER), nested(2, attribute(1, value)))


def _store_port(offset: int, checksum_offset: int) -> bytes:
    return _expression(
        "payload",
        _number(5, _REGISTER),
        _number(2, _TRANSPORT_HEADER),
        _number(3, offset),
        _number(4, 2),
        _number(6, 1),  # an internet checksum, at:
        _number(7, checksum_offset),
        _number(8, 0),
    )


def _rule(chain: str, protocol: int, *, side: int, match: int, replace: int) -> bytes:
    """Packets of 127.0.0.11 (as source or target) with port ``match`` on that side get port ``replace``."""
    address = ipaddress.ip_address(DNS_ADDRESS).packed
    checksum = 16 if protocol == socket.IPPROTO_TCP else 6
    expressions = (
        _meta_protocol(),
        _equals(bytes([protocol])),
        _load(_NETWORK_HEADER, 12 if side == _SOURCE else 16, 4),
        _equals(address),
        _load(_TRANSPORT_HEADER, side, 2),
        _equals(struct.pack("!H", match)),
        _immediate(struct.pack("!H", replace)),
        _store_port(side, checksum),
    )
    return text(1, TABLE) + text(2, chain) + nested(4, *expressions)


def chain_name(udp_port: int, tcp_port: int) -> str:
    return f"output-{udp_port}-{tcp_port}"


def batch(udp_port: int, tcp_port: int, *, replace: bool = False) -> tuple[bytes, ...]:
    """The messages, without the batch's frame: make the table with its chain and four rules. It must not be
    there, unless it is to be replaced. Only the last asks for an answer; refusals of the others come before it."""
    name = chain_name(udp_port, tcp_port)
    hook = nested(4, _number(1, _HOOK_OUTPUT), _number(2, _PRIORITY))
    chain = text(1, TABLE) + text(3, name) + hook + text(7, "filter")
    table = text(1, TABLE)
    messages = [(_NEWTABLE, _CREATE, table), (_DELTABLE, 0, table)] if replace else []
    messages += [(_NEWTABLE, _CREATE | _EXCL, table), (_NEWCHAIN, _CREATE, chain)]
    for protocol, port in ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port)):
        for side, match, new in ((_TARGET, PORT, port), (_SOURCE, port, PORT)):
            rule = _rule(name, protocol, side=side, match=match, replace=new)
            messages.append((_NEWRULE, _CREATE | _APPEND, rule))
    kind, flags, body = messages[-1]
    messages[-1] = (kind, flags | _ACK, body)
    return tuple(
        _message(_SUBSYS << 8 | kind, flags, number + 1, body, socket.AF_INET, 0)
        for number, (kind, flags, body) in enumerate(messages)
    )


@functools.lru_cache(maxsize=4)  # nearly all namespaces get the usual ports
def _framed(udp_port: int, tcp_port: int, *, replace: bool = False) -> tuple[bytes, int]:
    """The whole batch, and the sequence number of its last message."""
    messages = batch(udp_port, tcp_port, replace=replace)
    begin = _message(_BATCH_BEGIN, 0, 0, b"", 0, _SUBSYS)
    end = _message(_BATCH_END, 0, len(messages) + 1, b"", 0, _SUBSYS)
    return begin + b"".join(messages) + end, len(messages)


def _message(kind: int, flags: int, sequence: int, body: bytes, family: int, resource: int) -> bytes:
    data = struct.pack("!BBH", family, 0, resource) + body
    return _HEADER.pack(16 + len(data), kind, flags | _REQUEST, sequence, 0) + data


def redirect(udp_port: int, tcp_port: int) -> None:
    """Sees to it that the rules for these ports (and no others of ours) are in the current namespace. OSError
    where it cannot."""
    try:
        _run(*_framed(udp_port, tcp_port))
    except FileExistsError:
        if not _has_chain(chain_name(udp_port, tcp_port)):
            _run(*_framed(udp_port, tcp_port, replace=True))


def _socket() -> socket.socket:
    """Bound by the kernel with the first message."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)


def _run(data: bytes, last: int) -> None:
    with _socket() as link:
        link.send(data)
        waiting = True
        while waiting:
            for _, sequence, number in _answers(link):
                if number:
                    raise OSError(number, f"nftables: {os.strerror(number)}")
                waiting = waiting and sequence != last


def _has_chain(name: str) -> bool:
    body = text(1, TABLE) + text(3, name)
    with _socket() as link:
        link.send(_message(_SUBSYS << 8 | _GETCHAIN, 0, 1, body, socket.AF_INET, 0))
        return all(kind != _ERROR for kind, _, _ in _answers(link))


def _answers(link: socket.socket) -> list[tuple[int, int, int]]:
    """(message type, sequence number, error number) of what one receive brings. The kernel answers before the
    send is over: there is nothing to wait for."""
    data, offset, found = link.recv(16384, socket.MSG_DONTWAIT), 0, []
    while offset + 20 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        number = -struct.unpack_from("=i", data, offset + 16)[0] if kind == _ERROR else 0
        found.append((kind, sequence, number))
        offset += (max(length, 16) + 3) & ~3
    return found
