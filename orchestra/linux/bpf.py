"""bpf(2), as far as a device program on a cgroup needs it."""

from __future__ import annotations

import ctypes
import os
import struct

_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}.get(os.uname().machine, 280)
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2

_KEPT = 8
_loaded: dict[bytes, int] = {}
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = _syscall(ctypes.c_long(_NR_BPF), ctypes.c_long(command), buffer, ctypes.c_size_t(128))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf: {os.strerror(number)}")
    return int(result), buffer.raw


def load_device_program(code: bytes) -> int:
    """Verify and load; the program's fd."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQ",
        _TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
    )
    return _bpf(_PROG_LOAD, attributes)[0]


def attach(group: int, program: int) -> None:
    _bpf(_PROG_ATTACH, struct.pack("<IIII", group, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))


def detach(group: int, program: int) -> None:
    _bpf(_PROG_DETACH, struct.pack("<IIII", group, program, _ATTACH_CGROUP_DEVICE, 0))


def attached(group: int) -> list[int]:
    """Fds of the device programs on this very cgroup (parents' are not listed)."""
    numbers = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("<IIIIQI", group, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(numbers), 64)
    _result, answer = _bpf(_PROG_QUERY, attributes)
    count = struct.unpack_from("<I", answer, 24)[0]
    return [_bpf(_PROG_GET_FD_BY_ID, struct.pack("<I", numbers[index]))[0] for index in range(count)]


def replace_device_program(group: int, code: bytes | None) -> None:
    """Make ``code`` the only device program of the cgroup; None takes all off. The new one is
    attached before old ones go, so that nothing is allowed meanwhile that neither allows. Cgroups that have none
    yet share one program."""
    old = attached(group)
    if not old and code is not None and (len(_loaded) < _KEPT or code in _loaded):
        if code not in _loaded:
            _loaded[code] = load_device_program(code)
        attach(group, _loaded[code])
        return
    new = -1
    try:
        if code is not None:
            new = load_device_program(code)
            attach(group, new)
        for program in old:
            detach(group, program)
    finally:
        for program in [*old, *([new] if new >= 0 else [])]:
            os.close(program)
