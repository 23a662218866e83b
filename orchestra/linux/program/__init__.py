"""A list of system calls that a new process carries out by itself, without an interpreter of Python in it.

A child forked from Python costs milliseconds: its page tables, each page that either side touches
afterwards, and the interpreter's own work. What a container's init does before execve is a list of some
two hundred system calls that is known beforehand. So it is written down as data behind three hundred bytes
of machine code (``stub.S``), as a static program in a sealed memfd. A ``Program`` is made once for all
containers of one kind; what differs between them are ``Values``, which it reads from its channel::

    values = Values()
    folder, name = values.fd(descriptor), values.text(b"etc/hosts")
    program = Program(len(values))
    target = program.open(folder, name, os.O_PATH, resolve)
    program.attach(tree, target)
    pid, pidfd = program.run(values, ours, theirs, flags)  # the ends of a SOCK_SEQPACKET pair

An argument is a number, ``bytes`` (the address of a copy, ended by NUL) or a ``Slot``: one of the values or
what an earlier call gave. A call that fails ends the process after 12 bytes on the channel (``failure``). It
makes no decisions beyond ``soft``: errnos that are no failure, and how many calls are left out then.

For x86-64; ``available()`` says whether this machine can. Sources: elf(5), clone(2), execveat(2).
"""

from __future__ import annotations

import os
import struct

from orchestra.linux import constants as C
from orchestra.linux.program import birth
from orchestra.linux.program.birth import HANDLER, available
from orchestra.linux.program.numbers import NR
from orchestra.linux.program.values import CHANNEL, FIRST, ROOM, SLOT_COUNT, Slot, Values

__all__ = [
    "CHANNEL",
    "HANDLER",
    "NR",
    "ROOM",
    "Argument",
    "Program",
    "Slot",
    "Values",
    "available",
    "failure",
]

_OPERATION = struct.Struct("=HBB3sB6QBB6x")
Argument = int | bytes | Slot


class Program:
    """Calls in their order. ``steps`` names what each is for: a failure has its index. ``given`` is the number
    of values."""

    def __init__(self, given: int) -> None:
        self.steps: list[str] = []
        self._operations: list[bytes] = []
        self._data = bytearray()
        self._texts: dict[bytes, int] = {}
        self._given = given
        self._next = FIRST + given
        self._image: birth.Image | None = None

    def text(self, data: bytes) -> int:
        """The address of ``data`` and a NUL behind it."""
        place = self._texts.get(data)
        if place is None:
            place = self._texts[data] = self.blob(data + b"\0")
        return place

    def blob(self, data: bytes) -> int:
        """The address of these bytes, aligned to 8."""
        self._data += bytes(-len(self._data) % 8)
        place = birth.DATA + len(self._data)
        self._data += data
        return place

    def call(
        self,
        number: int,
        *arguments: Argument,
        step: str = "",
        keep: bool | Slot = False,
        soft: tuple[int, ...] = (),
        skip: int = 0,
        jump: int = 0,
        answered: bool = False,
        fork: bool = False,
    ) -> Slot:
        """``keep`` gives the result a slot (a new one, or that one). After a ``soft`` errno ``skip`` calls are
        left out, after a success ``jump`` (at most 255); ``answered`` means that the result 0 is the end,
        ``fork`` that nothing is left out after it: the child goes on, the parent jumps."""
        refers, values = 0, [0] * 6
        for index, argument in enumerate(arguments):
            if type(argument) is int:  # most are
                values[index] = argument & 0xFFFFFFFFFFFFFFFF
            elif isinstance(argument, Slot):
                refers |= 1 << index
                values[index] = argument.number
            elif isinstance(argument, bytes):
                values[index] = self.text(argument)
            else:
                values[index] = int(argument)
        slot = self._slot(keep)
        self._operations.append(
            _OPERATION.pack(number, refers, slot, bytes(soft), skip, *values, answered | fork << 1, jump)
        )
        self.steps.append(step)
        return Slot(slot)

    def _slot(self, keep: bool | Slot) -> int:
        if isinstance(keep, Slot):
            return keep.number
        if not keep:
            return 0
        self._next += 1
        if self._next > SLOT_COUNT:
            raise ValueError("a program of too many results")
        return self._next - 1

    def spare(self) -> Slot:
        """A slot for results that are soon of no use: to be given as ``keep`` again and again."""
        return Slot(self._slot(True))

    def __len__(self) -> int:
        return len(self.steps)

    # The calls that stand in it most often

    def how(self, flags: int, resolve: int) -> int:
        """The address of a struct open_how."""
        return self.text(struct.pack("=3Q", flags | os.O_CLOEXEC, 0, resolve))

    def open(
        self,
        folder: int | Slot,
        path: bytes | Slot,
        flags: int,
        resolve: int,
        *,
        keep: bool | Slot = True,
        soft: tuple[int, ...] = (),
        skip: int = 0,
        jump: int = 0,
    ) -> Slot:
        """openat2 within ``folder``."""
        how = self.how(flags, resolve)
        return self.call(NR.openat2, folder, path, how, 24, keep=keep, soft=soft, skip=skip, jump=jump)

    def attach(self, tree: int | Slot, target: int | Slot) -> None:
        """move_mount of one descriptor onto another."""
        flags = C.MOVE_MOUNT_F_EMPTY_PATH | C.MOVE_MOUNT_T_EMPTY_PATH
        self.call(NR.move_mount, tree, b"", target, b"", flags)

    def set_attributes(
        self, tree: int | Slot, flags: int = 0, *, set_: int = 0, clear: int = 0, propagation: int = 0
    ) -> None:
        """mount_setattr of a descriptor."""
        attributes = self.text(struct.pack("=4Q", set_, clear, propagation & ~C.MS_REC, 0))
        self.call(NR.mount_setattr, tree, b"", C.AT_EMPTY_PATH | flags, attributes, 32)

    def run(
        self, values: Values, ours: int, theirs: int, flags: int = 0, *, cgroup_fd: int | None = None
    ) -> tuple[int, int]:
        """(pid, pidfd) of a new process that carries it out. Its channel is ``theirs``; what waits there must be
        for it. ``flags`` are CLONE_NEW…; ``cgroup_fd`` is the directory of the cgroup (version 2) it begins in.
        ``values`` are closed in any case. ``OSError`` when there is no such process."""
        try:
            return birth.run(self.prepare(), values, ours, theirs, flags, cgroup_fd)
        finally:
            values.close()

    def prepare(self) -> birth.Image:
        """Its file, made once."""
        if self._image is None:
            self._image = birth.Image(b"".join(self._operations), bytes(self._data), self._given)
            self._operations, self._data, self._texts = [], bytearray(), {}
        return self._image

    def file(self, values: Values) -> bytes:
        """It as an executable file, of no values; to be asked for before it is run."""
        if self._given or len(values):
            raise ValueError("a program of its own has no values")
        return birth.file(b"".join(self._operations), bytes(self._data))


def failure(message: bytes) -> tuple[int, int] | None:
    """(errno, index of the call) of what a failed program says; None when it is something else."""
    if len(message) != 12 or message[:4] != b"\0\0\0\0":
        return None
    number, call = struct.unpack("=II", message[4:])
    return number, call
