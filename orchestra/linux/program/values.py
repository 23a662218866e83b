"""What differs between processes that carry out one program: descriptors, texts, lists of texts."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Sequence

SLOT_COUNT = 256
FIRST = 3
PLACE = 0xC00000  # where the texts are loaded


class Slot:
    """A value that is known when the program runs."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


CHANNEL = Slot(1)
ROOM = Slot(2)  # the address of 1 KiB to read into


class Values:
    """In the order in which they are given; a program counts on that order."""

    def __init__(self) -> None:
        self.slots = [0] * FIRST
        self.data = bytearray()
        self._kept: list[int] = []

    def __len__(self) -> int:
        return len(self.slots) - FIRST

    def _add(self, value: int) -> Slot:
        self.slots.append(value)
        return Slot(len(self.slots) - 1)

    def fd(self, fd: int) -> Slot:
        """A duplicate, which the new process has under the same number."""
        return self._add(self._keep(fd))

    def _keep(self, fd: int) -> int:
        number = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        self._kept.append(number)
        return number

    def channel(self, fd: int) -> None:
        """Where a failure is told."""
        self.slots[CHANNEL.number] = self._keep(fd)

    def text(self, data: bytes) -> Slot:
        """The address of ``data`` and a NUL behind it."""
        return self._add(self._put(data))

    def _put(self, data: bytes) -> int:
        place = PLACE + len(self.data)
        self.data += data
        self.data += b"\0"
        return place

    def pointers(self, texts: Sequence[bytes]) -> Slot:
        """The address of an array of their addresses, ended by a null pointer (argv, envp)."""
        places = [self._put(text) for text in texts]
        self.data += bytes(-len(self.data) % 8)
        place = PLACE + len(self.data)
        self.data += struct.pack(f"={len(places) + 1}Q", *places, 0)
        return self._add(place)

    def share(self) -> None:
        """Let the next process inherit the descriptors."""
        for fd in self._kept:
            os.set_inheritable(fd, True)

    def close(self) -> None:
        for fd in self._kept:
            os.close(fd)
        self._kept.clear()
