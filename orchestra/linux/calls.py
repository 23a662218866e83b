"""System calls that Python has no function for: one function a call, ``OSError(errno, text, path)`` on failure.

Every function states its argument types, so that 64-bit values pass unharmed. Buffers live as long as
the call. Newer calls go through ``syscall(2)``: libc need not know them. Nothing here retries,
interprets or remembers.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_ulong, c_void_p

from orchestra.linux import constants as C

TYPE_CHECKING = False  # loaded by commands that live for milliseconds
if TYPE_CHECKING:
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_X86 = os.uname().machine == "x86_64"


def _nr(x86: int, generic: int) -> int:
    return x86 if _X86 else generic


def _function(name: str, *types: Any) -> Any:
    """A libc function of its own prototype (``_libc[name]`` makes a fresh object each time)."""
    function = _libc[name]
    function.argtypes = types
    function.restype = c_int
    return function


def _system(*types: Any) -> Any:
    function = _libc["syscall"]
    function.argtypes = (c_long, *types)
    function.restype = c_long
    return function


def failed(what: str, path: str | bytes | None = None) -> OSError:
    """The OSError of the last call: ``what`` names it."""
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}", os.fsdecode(path) if path else None)


def _bytes(text: str | bytes | None) -> bytes | None:
    if text is None:
        return None
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError("a path must not contain a NUL byte")
    return data


# Mounts

_mount = _function("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = _function("umount2", c_char_p, c_int)
_pivot_root = _system(c_char_p, c_char_p)
_open_tree = _system(c_int, c_char_p, c_uint)
_move_mount = _system(c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = _system(c_char_p, c_uint)
_fsconfig = _system(c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _system(c_int, c_uint, c_uint)
_mount_setattr = _system(c_int, c_char_p, c_uint, c_char_p, c_size_t)


def mount(
    source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    if _mount(_bytes(source), _bytes(target), _bytes(fstype), flags, _bytes(data)):
        raise failed(f"mount {fstype or source or ''}".rstrip(), target)


def umount2(target: str, flags: int = 0) -> None:
    if _umount2(_bytes(target), flags):
        raise failed("umount", target)


def pivot_root(new: str, put_old: str) -> None:
    if _pivot_root(_nr(155, 41), _bytes(new), _bytes(put_old)):
        raise failed("pivot_root", new)


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    fd = _open_tree(428, dir_fd, _bytes(path), flags)
    if fd < 0:
        raise failed("open_tree", path)
    return int(fd)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    if _move_mount(429, from_fd, _bytes(from_path), to_fd, _bytes(to_path), flags):
        raise failed("move_mount", to_path)


def fsopen(fstype: str) -> int:
    fd = _fsopen(430, _bytes(fstype), C.FSOPEN_CLOEXEC)
    if fd < 0:
        raise failed(f"fsopen {fstype}")
    return int(fd)


def fsconfig(fd: int, command: int, key: str | None, value: str | None, aux: int = 0) -> None:
    if _fsconfig(431, fd, command, _bytes(key), _bytes(value), aux):
        raise failed(f"fsconfig {key}" if key else "fsconfig", value)


def fsmount(fd: int, attributes: int = 0) -> int:
    mount_fd = _fsmount(432, fd, C.FSMOUNT_CLOEXEC, attributes)
    if mount_fd < 0:
        raise failed("fsmount")
    return int(mount_fd)


def mount_setattr(
    dir_fd: int,
    path: str,
    flags: int,
    *,
    set_: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    attributes = struct.pack("=QQQQ", set_, clear, propagation, userns_fd)
    if _mount_setattr(442, dir_fd, _bytes(path), flags, attributes, len(attributes)):
        raise failed("mount_setattr", path)


# Namespaces, processes

_setns = _function("setns", c_int, c_int)
_unshare = _function("unshare", c_int)
_prctl = _function("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_sethostname = _function("sethostname", c_char_p, c_size_t)
_setdomainname = _function("setdomainname", c_char_p, c_size_t)
_personality = _function("personality", c_ulong)
_capset = _system(c_char_p, c_char_p)
_capget = _system(c_char_p, c_char_p)
_keyctl = _system(c_int, c_char_p)
_sched_setattr = _system(c_int, c_char_p, c_uint)
_ioprio_set = _system(c_int, c_int, c_int)
_setfsuid = _function("setfsuid", c_uint)
_setfsgid = _function("setfsgid", c_uint)
_seccomp = _system(c_uint, c_uint, c_void_p)


def setns(fd: int, kinds: int = 0) -> None:
    if _setns(fd, kinds):
        raise failed("setns")


def unshare(kinds: int) -> None:
    if _unshare(kinds):
        raise failed("unshare")


def prctl(option: int, second: int = 0, third: int = 0, fourth: int = 0, fifth: int = 0) -> int:
    result = _prctl(option, second, third, fourth, fifth)
    if result < 0:
        raise failed(f"prctl {option}")
    return int(result)


def sethostname(name: str) -> None:
    data = name.encode()
    if _sethostname(data, len(data)):
        raise failed(f"sethostname {name}")


def setdomainname(name: str) -> None:
    data = name.encode()
    if _setdomainname(data, len(data)):
        raise failed(f"setdomainname {name}")


def personality(persona: int) -> None:
    if _personality(persona) < 0:
        raise failed("personality")


_CAPABILITY_VERSION = struct.pack("<Ii", 0x20080522, 0)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """The three sets of the calling thread, as masks."""
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "<6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    if _capset(_nr(126, 91), _CAPABILITY_VERSION, data):
        raise failed("capset")


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the calling thread."""
    data = ctypes.create_string_buffer(24)
    if _capget(_nr(125, 90), _CAPABILITY_VERSION, ctypes.cast(data, c_char_p)):
        raise failed("capget")
    words = struct.unpack("<6I", data.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def join_session_keyring(name: str | None = None) -> None:
    if _keyctl(_nr(250, 219), C.KEYCTL_JOIN_SESSION_KEYRING, _bytes(name)) < 0:
        raise failed("keyctl join session keyring")


def sched_setattr(pid: int, attributes: bytes) -> None:
    """``attributes`` is a packed ``struct sched_attr``."""
    if _sched_setattr(_nr(314, 274), pid, attributes, 0):
        raise failed("sched_setattr")


def ioprio_set(which: int, who: int, priority: int) -> None:
    if _ioprio_set(_nr(251, 30), which, who, priority):
        raise failed("ioprio_set")


def seccomp_load(program: bytes, flags: int = 0) -> None:
    """Install a filter for the calling thread: ``program`` is an array of ``struct sock_filter``."""
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    if _seccomp(_nr(317, 277), C.SECCOMP_SET_MODE_FILTER, flags, ctypes.cast(header, c_void_p)):
        raise failed("seccomp")


def set_filesystem_ids(uid: int, gid: int) -> None:
    """setfsuid and setfsgid (which cannot fail); the capability sets stay as they are."""
    sets = capget()
    _setfsgid(gid)
    _setfsuid(uid)
    capset(*sets)


# Files

_openat2 = _system(c_int, c_char_p, c_char_p, c_size_t)
_close_range = _system(c_uint, c_uint, c_uint)
_fstatfs = _function("fstatfs64", c_int, c_void_p)
_fchmodat = _function("fchmodat", c_int, c_char_p, c_uint, c_int)
_fallocate = _function("fallocate", c_int, c_int, c_long, c_long)


def openat2(dir_fd: int, path: str, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    fd = _openat2(437, dir_fd, _bytes(path), how, len(how))
    if fd < 0:
        raise failed("open", path)
    return int(fd)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close (or mark CLOEXEC) every descriptor from ``first`` to ``last``."""
    if first <= last and _close_range(436, first, last, flags):
        raise failed("close_range")


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Give back what this part of a file takes; it reads as zeros."""
    if _fallocate(fd, C.FALLOC_FL_PUNCH_HOLE | C.FALLOC_FL_KEEP_SIZE, offset, length):
        raise failed("fallocate")


def filesystem_type(fd: int) -> int:
    """The magic number of the filesystem an open file lies on (PROC_SUPER_MAGIC …)."""
    buffer = ctypes.create_string_buffer(128)
    if _fstatfs(fd, buffer):
        raise failed("fstatfs")
    return int(struct.unpack_from("@l", buffer.raw)[0]) & 0xFFFFFFFF
