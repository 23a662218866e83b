"""DNS wire format, as much as a small resolver needs (RFC 1035, 6891): read one question, write answers.

Whatever comes from the network is hostile: every read is bounded, compression pointers only go backwards,
names are at most 255 bytes. ``FormatError`` is all that nonsense raises.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
QR, OPCODE, AA, TC, RD, RA = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
UDP_SIZE = 512
EDNS_SIZE = 1232
MAX_UDP_SIZE = 4096

_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")


class FormatError(ValueError):
    """Bytes that are no DNS query."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question. ``name`` is lower case without the final dot; ``question`` its bytes as they came."""

    id: int
    flags: int
    name: str
    type: int
    klass: int
    question: bytes
    edns_size: int = 0  # 0: the client does not speak EDNS
    edns_version: int = 0

    @property
    def udp_limit(self) -> int:
        """The largest answer the client takes over UDP."""
        return min(max(self.edns_size, UDP_SIZE), MAX_UDP_SIZE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A record about the name that was asked."""

    type: int
    data: bytes
    ttl: int = 5


def parse_query(data: bytes) -> Query:
    """Reads a query; FormatError for anything else (answers included)."""
    if len(data) < 12:
        raise FormatError("too short")
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    if flags & QR:
        raise FormatError("not a query")
    if questions != 1:
        raise FormatError(f"{questions} questions")
    labels, offset = read_name(data, 12)
    if offset + 4 > len(data):
        raise FormatError("cut off")
    kind, klass = struct.unpack_from("!HH", data, offset)
    name = b".".join(labels).decode("ascii", "backslashreplace").lower()
    question = write_labels(labels) + data[offset : offset + 4]
    size, version = _edns(data, offset + 4, answers + authorities + additional)
    return Query(number, flags, name, kind, klass, question, size, version)


def _edns(data: bytes, offset: int, records: int) -> tuple[int, int]:
    """(UDP size, version) of the OPT record; (0, 0) without one."""
    for _ in range(min(records, 32)):
        if offset >= len(data):
            raise FormatError("cut off")
        _, offset = read_name(data, offset)
        if offset + 10 > len(data):
            raise FormatError("cut off")
        kind, klass, ttl, length = _FIXED.unpack_from(data, offset)
        offset += 10 + length
        if offset > len(data):
            raise FormatError("cut off")
        if kind == OPT:
            return max(klass, UDP_SIZE), ttl >> 16 & 0xFF
    return 0, 0


def read_name(data: bytes, offset: int) -> tuple[list[bytes], int]:
    """The labels of the name at ``offset`` and where what follows it starts."""
    labels: list[bytes] = []
    total, end, limit = 1, -1, offset
    while True:
        if offset >= len(data):
            raise FormatError("cut off name")
        length = data[offset]
        if length >= 0xC0:
            if offset + 2 > len(data):
                raise FormatError("cut off name")
            target = (length & 0x3F) << 8 | data[offset + 1]
            if target >= limit:
                raise FormatError("compression pointer does not go back")
            end = offset + 2 if end < 0 else end
            offset = limit = target
            continue
        if length > 63:
            raise FormatError("unknown label type")
        if not length:
            return labels, offset + 1 if end < 0 else end
        total += length + 1
        if total > 255 or offset + 1 + length > len(data):
            raise FormatError("name too long")
        labels.append(data[offset + 1 : offset + 1 + length])
        offset += 1 + length


def write_labels(labels: Sequence[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def write_name(name: str) -> bytes:
    """A name as bytes, uncompressed; FormatError if it cannot be one."""
    labels = [label.encode("ascii", "replace") for label in name.rstrip(".").split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise FormatError(f"label too long in {name}")
    data = write_labels(labels)
    if len(data) > 255:
        raise FormatError(f"name too long: {name}")
    return data


def address_answer(address: str, ttl: int) -> Answer:
    ip = ipaddress.ip_address(address)
    return Answer(A if ip.version == 4 else AAAA, ip.packed, ttl)


def pointer_answer(name: str, ttl: int) -> Answer:
    return Answer(PTR, write_name(name), ttl)


def respond(
    query: Query, answers: Sequence[Answer] = (), *, rcode: int = NOERROR, limit: int = 65535, aa: bool = True
) -> bytes:
    """The response; answers that do not fit into ``limit`` are left out and TC is set."""
    opt = b""
    if query.edns_size:
        opt = b"\0" + _FIXED.pack(OPT, EDNS_SIZE, (rcode >> 4) << 24, 0)
    room = limit - 12 - len(query.question) - len(opt)
    body, count = [], 0
    flags = QR | RA | (query.flags & (OPCODE | RD)) | (AA if aa else 0) | rcode & 0xF
    for answer in answers:
        record = b"\xc0\x0c" + _FIXED.pack(answer.type, IN, answer.ttl, len(answer.data)) + answer.data
        if len(record) > room:
            flags |= TC
            break
        room -= len(record)
        body.append(record)
        count += 1
    header = _HEADER.pack(query.id, flags, 1, count, 0, 1 if opt else 0)
    return header + query.question + b"".join(body) + opt


def refuse(data: bytes, rcode: int) -> bytes | None:
    """An answer to something that is no query; None if it deserves none (too short, or itself an answer)."""
    if len(data) < 12:
        return None
    number, flags = struct.unpack_from("!HH", data)
    if flags & QR:
        return None
    return _HEADER.pack(number, QR | flags & (OPCODE | RD) | RA | rcode, 0, 0, 0, 0)


def answers_query(query: Query, data: bytes) -> bool:
    """Whether ``data`` is a response to this very question (whatever its id)."""
    if len(data) < 12:
        return False
    _, flags, questions, *_ = _HEADER.unpack_from(data)
    if not flags & QR or questions > 1:
        return False
    if not questions:  # some servers leave the question out of refusals
        return bool(flags & 0xF)
    try:
        labels, offset = read_name(data, 12)
    except FormatError:
        return False
    echoed = write_labels(labels) + data[offset : offset + 4]
    return echoed.lower() == query.question.lower()


def rcode_of(data: bytes) -> int:
    return data[3] & 0xF


def reverse_address(name: str) -> str | None:
    """The address a name below in-addr.arpa or ip6.arpa stands for; None for other names."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(labels[:4]))))
        if (
            labels[-2:] == ["ip6", "arpa"]
            and len(labels) == 34
            and all(len(label) == 1 for label in labels[:32])
        ):
            digits = "".join(reversed(labels[:32]))
            return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
    except ValueError:
        return None
    return None
