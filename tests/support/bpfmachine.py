"""Runs a classic BPF program as the kernel's seccomp does."""

from __future__ import annotations

import struct


def data(number: int, arch: int, *args: int) -> bytes:
    """struct seccomp_data."""
    return struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(*args, *[0] * (6 - len(args))))


def run(program: bytes, data: bytes) -> int:
    """The program's verdict. Raises for anything the kernel's checker would refuse."""
    code = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    value, place = 0, 0
    while True:
        op, yes, no, k = code[place]
        place += 1
        if op == 0x20:
            assert k % 4 == 0 and k < 64
            value = struct.unpack_from("<I", data, k)[0]
        elif op == 0x54:
            value &= k
        elif op == 0x06:
            return k
        elif op == 0x05:
            place += k
        elif op in (0x15, 0x25, 0x35, 0x45):
            hit = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}[op]
            place += yes if hit else no
        elif op == 0x04:
            value = (value + k) & 0xFFFFFFFF
        else:
            raise AssertionError(f"instruction {op:#x}")
