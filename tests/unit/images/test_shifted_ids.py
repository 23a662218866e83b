"""Ids moved into a range and back, in owners, access lists and file capabilities."""

from __future__ import annotations

import struct

import pytest

from orchestra.images.shifted import attribute, moved

A, B = (100000, 200000, 1000), (300000, 400000, 50)


@pytest.mark.parametrize(
    ("number", "kind", "old", "new", "wanted"),
    [
        (0, 0, None, A, 100000),
        (5, 1, None, A, 200005),
        (999, 0, None, A, 100999),
        (1000, 0, None, A, 1000),  # outside of the range: nobody's
        (100005, 0, A, None, 5),
        (5, 0, A, None, 5),  # moved already
        (100005, 0, A, A, 100005),
        (100005, 0, A, B, 300005),
        (100999, 0, A, B, 999),
        (300005, 0, A, B, 300005),
        (999, 0, B, A, 100999),
    ],
)
def test_one_id(number: int, kind: int, old: tuple[int, int, int] | None, new: tuple[int, int, int] | None, wanted: int) -> None:
    assert moved(number, kind, old, new) == wanted
    assert moved(wanted, kind, old, new) == wanted  # again, after a crash


def test_there_and_back() -> None:
    for number in (0, 1, 49, 50, 999, 1000, 65534):
        for step in ((A, B), (B, A), (A,), (B,)):
            value, at = number, None
            for to in (*step, None):
                value, at = moved(value, 0, at, to), to
            assert value == number


def test_capabilities() -> None:
    host = struct.pack("<5I", 0x02000001, 1, 2, 3, 4)
    inside = attribute("security.capability", host, None, A)
    assert inside == struct.pack("<6I", 0x03000001, 1, 2, 3, 4, 100000)
    assert attribute("security.capability", inside, None, A) == inside
    assert attribute("security.capability", inside, A, B) == struct.pack("<6I", 0x03000001, 1, 2, 3, 4, 300000)
    assert attribute("security.capability", inside, A, None) == host
    foreign = struct.pack("<6I", 0x03000001, 1, 2, 3, 4, 777)
    assert attribute("security.capability", foreign, A, B) == foreign
    assert attribute("security.capability", b"odd", None, A) == b"odd"


def test_access_lists() -> None:
    entries = [(0x01, 7, 0xFFFFFFFF), (0x02, 5, 33), (0x04, 5, 0xFFFFFFFF), (0x08, 4, 44), (0x10, 7, 0xFFFFFFFF), (0x20, 0, 0xFFFFFFFF)]
    host = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    inside = attribute("system.posix_acl_access", host, None, A)
    found = [struct.unpack_from("<HHI", inside, place) for place in range(4, len(inside), 8)]
    assert found[1] == (0x02, 5, 100033) and found[3] == (0x08, 4, 200044)
    assert [found[i] for i in (0, 2, 4, 5)] == [entries[i] for i in (0, 2, 4, 5)]
    assert attribute("system.posix_acl_access", inside, A, None) == host
    assert attribute("user.other", host, None, A) == host
