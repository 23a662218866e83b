"""A small assembler for classic BPF, as seccomp runs it.

Jumps only go forward, so programs are built from their end: each ``emit`` returns the place of what it
made, and later code jumps there. A conditional jump reaches 255 instructions; ``near`` builds a step
stone where more is needed.
"""

from __future__ import annotations

import struct

LD, AND, RET, JA, JEQ, JGT, JGE = 0x20, 0x54, 0x06, 0x05, 0x15, 0x25, 0x35
_REACH = 250
_LIMIT = 4096  # BPF_MAXINSNS


class Assembler:
    """Places count from the end of the program."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def ret(self, value: int) -> int:
        """The place of a ``return value`` in reach, made if there is none."""
        place = self._returns.get(value)
        if place is None or len(self._code) - place > _REACH:
            place = self._returns[value] = self._emit(RET, 0, 0, value)
        return place

    def load(self, offset: int, then: int) -> int:
        """A = the word at ``offset`` of seccomp_data, go on at ``then``."""
        self._follow(then)
        return self._emit(LD, 0, 0, offset)

    def mask(self, value: int, then: int) -> int:
        """A = A & value, go on at ``then``."""
        self._follow(then)
        return self._emit(AND, 0, 0, value)

    def branch(self, op: int, value: int, yes: int, no: int) -> int:
        """``op`` is JEQ, JGT or JGE (unsigned)."""
        if yes == no:
            return yes
        yes = self.near(yes)
        no = self.near(no)
        yes = self.near(yes)
        here = len(self._code)
        return self._emit(op, here - yes - 1, here - no - 1, value)

    def near(self, place: int) -> int:
        """``place`` itself, or a jump to it that is in reach."""
        if len(self._code) - place <= _REACH:
            return place
        return self._emit(JA, 0, 0, len(self._code) - place - 1)

    def program(self, entry: int) -> bytes:
        """struct sock_filter, first to last. ``ValueError`` when it is too long for the kernel."""
        self._follow(entry)
        if len(self._code) > _LIMIT:
            raise ValueError(f"the filter has {len(self._code)} instructions, the kernel takes {_LIMIT}")
        return b"".join(struct.pack("=HBBI", *line) for line in reversed(self._code))

    def _follow(self, then: int) -> None:
        if then != len(self._code) - 1:
            self._emit(JA, 0, 0, len(self._code) - then - 1)

    def _emit(self, op: int, yes: int, no: int, value: int) -> int:
        self._code.append((op, yes, no, value))
        return len(self._code) - 1
