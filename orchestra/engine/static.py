"""Whether a program needs a dynamic loader: one look at its ELF program headers (elf(5))."""

from __future__ import annotations

import struct

PT_INTERP = 3


def has_interpreter(path: str) -> bool:
    """False for a static program; True for anything else, also for what is no ELF file."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(64)
            if head[:5] != b"\x7fELF\x02" or len(head) < 64:
                return True
            offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
            stream.seek(offset)
            table = stream.read(size * count)
    except OSError:
        return True
    return any(
        struct.unpack_from("<I", table, index * size)[0] == PT_INTERP
        for index in range(count)
        if len(table) >= (index + 1) * size
    )
