"""Memory that a process shares with those forked from it, and shares again after it was touched.

A forked process of Python copies most pages that it so much as looks at: references are counted in the
objects. Many of these pages soon hold again what they held at the fork, but they stay copies. So the parent
``keep``s its memory: a file in memory takes a copy of it and is mapped in its place. What a process has touched
and left as it was it can then ``give_back``: the page is compared with the file and let go, and whoever
touches it next finds the same bytes in the file, which all share.

Neither changes what any address holds. Between looking and letting go nothing else may run, so both steps are
machine code (``pages.S``), called with all signals blocked in a process of one thread. For x86-64; elsewhere,
and where the kernel refuses, nothing happens and memory stays as it is.

Sources: proc(5) (smaps, pagemap), memfd_create(2), madvise(2), rseq(2).
"""

from __future__ import annotations

import _thread
import ctypes
import functools
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator
from ctypes import c_char_p, c_int, c_long, c_size_t

from orchestra.linux import calls, native

PAGE = 4096
_GIVE_BACK = 0x60  # in the machine code
_PWRITE, _MMAP = 18, 9
_MAP_PRIVATE_FIXED = 0x12
_APART = {b"wf", b"dc", b"lo", b"dp", b"dd"}  # flags in /proc/self/smaps
_ATTEMPTS = 3  # memory that is let go while we look makes one fail
_TAIL = 1 << 30  # of the file, empty: a mapping that libc lets grow must not reach beyond its end
_CarryOut = ctypes.PYFUNCTYPE(c_long, c_char_p, c_size_t)  # these keep the GIL
_GiveBack = ctypes.PYFUNCTYPE(c_long, c_char_p, c_size_t, c_int)
_image = -1  # the file's descriptor


class Region:
    """A mapping of this process: ``start`` and ``end`` in bytes, ``offset`` in its ``file`` (device and
    inode as proc(5) shows them)."""

    __slots__ = ("end", "file", "offset", "start")

    def __init__(self, start: int, end: int, offset: int, file: tuple[bytes, int]) -> None:
        self.start, self.end, self.offset, self.file = start, end, offset, file


def keep() -> bool:
    """Put a file in the place of this process's memory; whether it was done. Once in a process's life."""
    global _image
    if _image >= 0 or os.uname().machine != "x86_64":
        return False
    fd = os.memfd_create("orchestra-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        done = bool(_alone(lambda: _replace(fd)))
        native.seal(fd)
    except OSError:
        done = False
    if not done:  # part of it may be mapped: the mapping holds the file
        os.close(fd)
        return False
    _image = fd
    return True


def give_back() -> int:
    """Let go of the pages that are as they were at ``keep``, here or in the process that this was forked from.
    Returns how many they are."""
    if _image < 0:
        return 0
    try:
        facts = os.fstat(_image)
        device = b"%02x:%02x" % (os.major(facts.st_dev), os.minor(facts.st_dev))
        reference = native.map_file(_image, facts.st_size, mmap.PROT_READ)
        try:
            return _alone(lambda: _compare((device, facts.st_ino), reference))
        finally:
            native.unmap(reference, facts.st_size)
    except OSError:
        return 0


def _alone(action: Callable[[], int]) -> int:
    """With no other thread and no signal; 0 where that cannot be."""
    if len(os.listdir("/proc/self/task")) != 1:
        return 0
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return action()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _functions() -> tuple[Callable[[bytes, int], int], Callable[[bytes, int, int], int]]:
    """``carry_out`` and ``give_back`` of the machine code."""
    place = native.load(native.file_beside(__file__, "pages.x86_64"))
    return _CarryOut(place), _GiveBack(place + _GIVE_BACK)


def _replace(fd: int) -> int:
    """All is written before anything is mapped: what has failed until then can be tried again."""
    carry_out, _ = _functions()
    for _attempt in range(_ATTEMPTS):
        os.ftruncate(fd, 0)
        writes, maps, size = _calls(fd, _replaceable())
        done = carry_out(b"".join(writes + maps), len(writes) + len(maps))
        if done == len(writes) + len(maps):
            _thin(fd, size)
            return 1
        if done >= len(writes):
            break
    return 0


def _calls(fd: int, regions: list[Region]) -> tuple[list[bytes], list[bytes], int]:
    """(what writes the regions to the file, what maps it in their place, how much that is)"""
    writes, maps, offset = [], [], 0
    call = struct.Struct("=7Qq").pack
    both = mmap.PROT_READ | mmap.PROT_WRITE
    os.ftruncate(fd, sum(region.end - region.start for region in regions) + _TAIL)
    for region in regions:
        start, size = region.start, region.end - region.start
        writes.append(call(_PWRITE, fd, start, size, offset, 0, 0, size))
        maps.append(call(_MMAP, start, size, both, _MAP_PRIVATE_FIXED, fd, offset, start))
        offset += size
    return writes, maps, offset


def _thin(fd: int, size: int) -> None:
    """Pages of zeros take no memory."""
    zeros = bytes(PAGE)
    for offset in range(0, size, PAGE):
        if os.pread(fd, PAGE, offset) == zeros:
            calls.punch_hole(fd, offset, PAGE)


def _compare(file: tuple[bytes, int], reference: int) -> int:
    triple = struct.Struct("=2Qq").pack
    regions = [
        triple(region.start, region.end, reference + region.offset - region.start)
        for region in map(_region, (line.split(None, 5) for line in _lines("maps")))
        if region.file == file
    ]
    table = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _functions()[1](b"".join(regions), len(regions), table)
    finally:
        os.close(table)


def _replaceable() -> list[Region]:
    """Private writable mappings but for stacks, what a fork must not share (``_APART``: wiped or left out
    then, locked, or that the kernel may drop), and what the kernel itself writes to: it keeps the number of
    the processor in the thread's control block (rseq(2))."""
    control = _thread.get_ident() // PAGE * PAGE  # glibc: the address of that block
    found: list[Region] = []
    region = None
    for line in _lines("smaps"):
        words = line.split(None, 5)
        if not words[0].endswith(b":"):
            name = words[5] if len(words) > 5 else b""
            usual = words[1] == b"rw-p" and (name == b"[heap]" or not name.startswith(b"["))
            region = _region(words) if usual else None
        elif words[0] == b"VmFlags:" and region and not _APART & set(line.split()):
            found += _without(region, control, control + 2 * PAGE)
    return found


def _region(words: list[bytes]) -> Region:
    start, _, end = words[0].partition(b"-")
    return Region(int(start, 16), int(end, 16), int(words[2], 16), (words[3], int(words[4])))


def _lines(table: str) -> list[bytes]:
    with open(f"/proc/self/{table}", "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(1 << 16), b"")).splitlines()


def _without(region: Region, start: int, end: int) -> Iterator[Region]:
    if region.start < min(start, region.end):
        yield Region(region.start, min(start, region.end), region.offset, region.file)
    if max(end, region.start) < region.end:
        begin = max(end, region.start)
        yield Region(begin, region.end, region.offset + begin - region.start, region.file)
