from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.network.dns import message


def query(
    name: bytes, kind: int = 1, *, flags: int = message.RD, tail: bytes = b"", additional: int = 0
) -> bytes:
    return struct.pack("!HHHHHH", 7, flags, 1, 0, 0, additional) + name + struct.pack("!HH", kind, 1) + tail


WEB = b"\3WeB\0"
OPT = b"\0" + struct.pack("!HHIH", message.OPT, 1400, 0, 0)


def test_a_query_and_its_answer() -> None:
    asked = message.parse_query(query(WEB))
    assert (asked.name, asked.type, asked.udp_limit) == ("web", message.A, 512)
    data = message.respond(
        asked, [message.address_answer("10.0.0.1", 5), message.address_answer("fd00::1", 5)]
    )
    number, flags, *counts = struct.unpack_from("!HHHHHH", data)
    assert number == 7 and flags & message.QR and counts == [1, 2, 0, 0]
    assert data[12:17] == WEB  # the name as it was asked
    assert data.endswith(struct.pack("!HHHIH", 0xC00C, message.AAAA, 1, 5, 16) + b"\xfd" + b"\0" * 14 + b"\1")
    assert message.answers_query(asked, data)
    assert not message.answers_query(message.parse_query(query(b"\3abc\0")), data)


def test_edns() -> None:
    asked = message.parse_query(query(WEB, tail=OPT, additional=1))
    assert asked.edns_size == 1400 == asked.udp_limit
    data = message.respond(asked, rcode=16)
    assert data[-11:] == b"\0" + struct.pack("!HHIH", message.OPT, message.EDNS_SIZE, 1 << 24, 0)


def test_too_much_is_cut() -> None:
    asked = message.parse_query(query(WEB))
    many = [message.address_answer(f"10.0.0.{n}", 5) for n in range(100)]
    data = message.respond(asked, many, limit=512)
    assert len(data) <= 512 and struct.unpack_from("!H", data, 2)[0] & message.TC
    assert struct.unpack_from("!H", data, 6)[0] == (512 - 12 - 9) // 16


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        query(WEB, flags=message.QR),
        query(b"\xc0\x0c"),  # points at itself
        query(b"\xc0\x40"),  # forward
        query(b"\x40abc\0"),
        query(b"\3we"),
        query((b"\x3f" + b"a" * 63) * 4 + b"\0"),  # 257 bytes
        query(WEB)[:-2],
        query(WEB, tail=OPT[:5], additional=1),
        query(WEB, additional=1),
        struct.pack("!HHHHHH", 7, 0, 2, 0, 0, 0) + WEB + b"\0\1\0\1" + WEB + b"\0\1\0\1",
    ],
)
def test_nonsense(data: bytes) -> None:
    with pytest.raises(message.FormatError):
        message.parse_query(data)


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    with contextlib.suppress(message.FormatError):
        asked = message.parse_query(data)
        again = message.parse_query(struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0) + asked.question)
        assert again.name == asked.name
    message.refuse(data, message.FORMERR)


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3), st.binary(max_size=40))
def test_names_round(labels: list[bytes], tail: bytes) -> None:
    written = message.write_labels(labels)
    assert message.read_name(b"\0" * 5 + written + tail, 5) == (labels, 5 + len(written))


def test_refusals() -> None:
    assert message.refuse(b"\0" * 5, 1) is None
    assert message.refuse(query(WEB, flags=message.QR), 1) is None
    assert message.refuse(query(b"\xc0\x0c"), message.FORMERR) == struct.pack(
        "!HHHHHH", 7, 0x8181, 0, 0, 0, 0
    )


def test_reverse_names() -> None:
    assert message.reverse_address("2.0.17.172.in-addr.arpa") == "172.17.0.2"
    assert message.reverse_address("1." + "0." * 29 + "d.f.ip6.arpa") == "fd00::1"
    for name in (
        "1.2.3.in-addr.arpa",
        "x.0.17.172.in-addr.arpa",
        "web",
        "1.2.ip6.arpa",
        "z." * 32 + "ip6.arpa",
    ):
        assert message.reverse_address(name) is None


def test_names_that_cannot_be_written() -> None:
    with pytest.raises(message.FormatError):
        message.write_name("a" * 64)
    with pytest.raises(message.FormatError):
        message.write_name(".".join(["a" * 60] * 5))
