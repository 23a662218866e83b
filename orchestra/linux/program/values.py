"""What differs between processes that carry out one program: descriptors, texts, lists of texts."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

SLOT_COUNT = 256
FIRST = 3
PLACE = 0xC00000  # where the texts are loaded
LOADED = 0x40000  # how much at most
GIFTS = 16  # descriptors at most, the program's and the channel's among them


class Slot:
    """A value that is known when the program runs."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


CHANNEL = Slot(1)
ROOM = Slot(2)  # the address of 1 KiB to read into


class Values:
    """In the order in which they are given; a program counts on that order."""

    __slots__ = ("_owned", "data", "slots", "sources")

    def __init__(self) -> None:
        self.slots = [0] * FIRST
        self.data = bytearray()
        self.sources: list[int] = []
        self._owned: list[int] = []

    def __len__(self) -> int:
        return len(self.slots) - FIRST

    def _add(self, value: int) -> Slot:
        self.slots.append(value)
        return Slot(len(self.slots) - 1)

    def fd(self, fd: int, *, own: bool = False) -> Slot:
        """The new process gets a duplicate. ``fd`` must stay open until then; an ``own`` one is closed with the
        values."""
        if own:
            self._owned.append(fd)
        if len(self.sources) == GIFTS - 2:
            raise ValueError("too many descriptors for a program")
        self.sources.append(fd)
        return self._add(-len(self.sources))  # ``message`` puts the number in

    def number(self, value: int) -> Slot:
        return self._add(value)

    def text(self, data: bytes) -> Slot:
        """The address of ``data`` and a NUL behind it."""
        slots, texts = self.slots, self.data
        slots.append(PLACE + len(texts))
        texts += data
        texts.append(0)
        return Slot(len(slots) - 1)

    def pointers(self, texts: Sequence[bytes]) -> Slot:
        """The address of an array of their addresses, ended by a null pointer (argv, envp)."""
        place, places = PLACE + len(self.data), []
        for text in texts:
            places.append(place)
            place += len(text) + 1
        self.data += b"\0".join((*texts, b""))
        self.data += bytes(-len(self.data) % 8)
        place = PLACE + len(self.data)
        self.data += struct.pack(f"={len(places) + 1}Q", *places, 0)
        return self._add(place)

    def message(self, first: int) -> bytes:
        """What the new process reads; ``first`` is the number under which it gets the channel, the others
        follow."""
        self.slots[CHANNEL.number] = first
        slots = [first - value if value < 0 else value for value in self.slots]
        found = b"".join((self.data, bytes(-len(self.data) % 8), struct.pack(f"={len(slots)}Q", *slots)))
        if len(found) > LOADED:
            raise OSError(errno.E2BIG, "the arguments and the environment are too long")
        return found

    def close(self) -> None:
        for fd in self._owned:
            os.close(fd)
        self._owned.clear()
