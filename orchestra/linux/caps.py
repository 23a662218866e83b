"""Capabilities: the 41 names, masks of them, and the calling thread's sets."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from orchestra.linux import calls
from orchestra.linux import constants as C

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
SYS_ADMIN = 1 << NUMBERS["CAP_SYS_ADMIN"]


def mask(names: Iterable[str]) -> int:
    """The bits of these names; ``KeyError`` for an unknown one."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> list[str]:
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


def bounding() -> int:
    """The bounding set of the calling thread."""
    bits = 0
    for number in range(len(NAMES)):
        try:
            bits |= calls.prctl(C.PR_CAPBSET_READ, number) << number
        except OSError:
            break  # the kernel is older than this capability
    return bits


def effective() -> int:
    return calls.capget()[0]


def drop_bounding(keep: int, *, last: int = 63) -> None:
    """Take everything outside ``keep`` out of the bounding set, also what is newer than the table."""
    for number in range(last + 1):
        if keep >> number & 1:
            continue
        try:
            calls.prctl(C.PR_CAPBSET_DROP, number)
        except OSError as problem:
            if problem.errno == errno.EINVAL:
                return  # past the kernel's last
            raise


def raise_ambient(bits: int) -> None:
    calls.prctl(C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if bits >> number & 1:
            calls.prctl(C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_RAISE, number)
