"""The command line that ps(1) shows for this process, changed after a fork.

The kernel reads /proc/<pid>/cmdline from the process' own memory (``arg_start`` to ``arg_end`` of
proc_pid_stat(5)), so writing there is enough. The text must fit into what the process was started with.
"""

from __future__ import annotations

import ctypes

_ARG_START = 45  # fields 48 and 49, counted behind "pid (comm)"


def set_command_line(words: list[str]) -> None:
    """Show ``words``, cut to the room there is. Where the kernel does not tell the place, nothing changes."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        fields = file.read().rpartition(b")")[2].split()
    if len(fields) <= _ARG_START + 1:
        return
    start, end = int(fields[_ARG_START]), int(fields[_ARG_START + 1])
    if not start or end <= start:
        return
    text = b"\0".join(word.encode() for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
