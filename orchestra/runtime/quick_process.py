"""The program of a quick start's container: limits, directory, user, capabilities, file, filter, execve. What
``process`` and ``capabilities`` do in the container's init, as calls of a program (see ``quick``)."""

from __future__ import annotations

import errno
import functools
import operator
import os
import stat
import struct

from orchestra.linux import calls, caps
from orchestra.linux import constants as C
from orchestra.linux.program import CHANNEL, NR, Program, Values
from orchestra.runtime import process as processes
from orchestra.runtime import rlimits
from orchestra.runtime.plan import Plan
from orchestra.runtime.problems import EXEC
from orchestra.runtime.process import Process

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES)
_AT_EACCESS = 0x200
_SETS = operator.attrgetter("bounding", "permitted", "effective", "inheritable", "ambient")


def fits(plan: Plan) -> bool:
    """Not where HOME must be looked up in a file that only the container sees."""
    covered = any(mount.destination in ("/etc", "/etc/passwd") for mount in plan.mounts)
    return not covered or has_home(plan.process)


def has_home(process: Process) -> bool:
    """Whether HOME is given (the last word wins, an empty one is none)."""
    homes = [line for line in process.env if line.startswith("HOME=")]
    return bool(homes) and homes[-1] != "HOME="


def usual(process: Process) -> bool:
    """Whether nothing is asked for that only the careful way can do."""
    return process.io_priority is None and not (
        process.terminal or process.scheduler or process.affinity or process.apparmor or process.selinux
    )


class Given:
    """The values: arguments, environment, what may be the program's file, its directory. ``owned`` are the
    standard descriptors that the user gets."""

    def __init__(self, values: Values, process: Process, root: int, stdio: tuple[int, int, int]) -> None:
        env = processes.environment(process, root)
        self.arguments = values.pointers([os.fsencode(word) for word in process.args])
        self.environment = values.pointers([os.fsencode(f"{key}={value}") for key, value in env.items()])
        self.candidates = [values.text(path) for path in _candidates(process, env.get("PATH"))]
        self.directory = values.text(os.fsencode(process.cwd.lstrip("/") or "."))
        self.named = "/" in process.args[0]
        self.owned = tuple(
            index for index, fd in enumerate(stdio) if process.uid and _given_away(fd, process.uid)
        )


def directory(plan: Plan) -> str:
    """The working directory that is made in the root where it is missing; '' where a mount lies above it."""
    path = os.path.normpath(plan.process.cwd)
    places = [mount.destination for mount in plan.mounts]
    return "" if any(path == place or path.startswith(place + "/") for place in places) else path


def shape(process: Process, given: Given) -> object:
    """What the calls depend on besides the values."""
    return (
        len(given.candidates), given.named, given.owned, process.uid, process.gid,
        None if process.groups is None else tuple(process.groups), process.umask, _SETS(process.sets),
        process.no_new_privileges, tuple(process.limits), process.seccomp, process.seccomp_flags,
    )  # fmt: skip


def forget_signals(program: Program) -> None:
    """Every disposition to its default, no signal blocked."""
    default = program.text(bytes(32))
    for number in (number for number in range(1, C.NSIG + 1) if number not in (9, 19)):
        program.call(NR.rt_sigaction, number, default, 0, 8)
    program.call(NR.rt_sigprocmask, C.SIG_SETMASK, default, 0, 8)


def new_keyring(program: Program) -> None:
    soft = (errno.ENOSYS, errno.EPERM, errno.EDQUOT)
    program.call(NR.keyctl, C.KEYCTL_JOIN_SESSION_KEYRING, 0, soft=soft)


def settle(program: Program, process: Process, given: Given) -> None:
    """Everything up to the start."""
    for name, low, high in process.limits:
        words = struct.pack("=QQ", low & 2**64 - 1, high & 2**64 - 1)
        program.call(NR.prlimit64, 0, rlimits.NUMBERS[name], program.text(words), 0)
    _leave_host(program)
    # by a descriptor that cannot be outside of the root (CVE-2024-21626)
    flags = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS
    place = program.open(C.AT_FDCWD, given.directory, os.O_PATH | os.O_DIRECTORY, flags)
    program.call(NR.fchdir, place)
    program.call(NR.close, place)
    for index in given.owned:
        program.call(NR.fchown, index, process.uid, -1, soft=(errno.EPERM, errno.EINVAL, errno.EROFS))
    program.call(NR.umask, process.umask)
    if process.no_new_privileges:
        program.call(NR.prctl, C.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _become(program, process)
    _find(program, given)


def _leave_host(program: Program) -> None:
    """Only the channel stays, as descriptor 3."""
    program.call(NR.dup2, CHANNEL, 3, keep=CHANNEL)
    program.call(NR.close_range, 4, 0xFFFFFFFF, 0)


def _given_away(fd: int, uid: int) -> bool:
    """As in ``process.enter``: pipes and sockets of somebody else's."""
    info = os.fstat(fd)
    return info.st_uid != uid and not stat.S_ISREG(info.st_mode) and not stat.S_ISCHR(info.st_mode)


def _become(program: Program, process: Process) -> None:
    """See ``capabilities.become``."""
    sets = process.sets
    for number in range(_last_capability() + 1):
        if not sets.bounding >> number & 1:
            program.call(NR.prctl, C.PR_CAPBSET_DROP, number, 0, 0, 0)
    program.call(NR.prctl, C.PR_SET_KEEPCAPS, 1, 0, 0, 0)
    if process.groups is not None:
        groups = struct.pack(f"={len(process.groups)}I", *process.groups)
        program.call(NR.setgroups, len(process.groups), program.text(groups))
    program.call(NR.setresgid, process.gid, process.gid, process.gid)
    program.call(NR.setresuid, process.uid, process.uid, process.uid)
    program.call(NR.prctl, C.PR_SET_KEEPCAPS, 0, 0, 0, 0)
    extra = caps.SYS_ADMIN & calls.capget()[1]
    _capset(program, sets.effective | extra, sets.permitted | extra, sets.inheritable)
    program.call(NR.prctl, C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(len(caps.NAMES)):
        if sets.ambient >> number & 1:
            program.call(NR.prctl, C.PR_CAP_AMBIENT, C.PR_CAP_AMBIENT_RAISE, number, 0, 0)


@functools.cache
def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        return int(file.read())


def _capset(program: Program, effective: int, permitted: int, inheritable: int, step: str = "") -> None:
    low = 0xFFFFFFFF
    halves = [mask >> shift & low for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    header = program.text(struct.pack("=Ii", 0x20080522, 0))
    program.call(NR.capset, header, program.text(struct.pack("=6I", *halves)), step=step)


def _candidates(process: Process, path: str | None) -> list[bytes]:
    """What ``process.resolve`` would try."""
    name = process.args[0]
    if "/" in name:
        return [os.fsencode(name)]
    folders = path if path is not None else processes.DEFAULT_PATH
    return [os.fsencode(f"{folder or '.'}/{name}") for folder in folders.split(":")]


def _find(program: Program, given: Given) -> None:
    """One of them must be executable for the user. That it is a file, execve finds out; for a name with a
    slash, which is looked up nowhere else, it is known here."""
    if given.named:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        program.call(NR.openat, C.AT_FDCWD, given.candidates[0], flags, 0, soft=_NOT_THERE, skip=1)
        program.call(NR.close, -1)
    for index, candidate in enumerate(given.candidates):
        left = len(given.candidates) - 1 - index
        soft = _NOT_THERE if left else ()
        program.call(NR.faccessat2, C.AT_FDCWD, candidate, os.X_OK, _AT_EACCESS, soft=soft, jump=left)


def launch(program: Program, process: Process, given: Given) -> None:
    """The filter, the last capabilities, execve: what fails here is a failure of the start."""
    program.call(NR.close_range, 3, 0xFFFFFFFF, C.CLOSE_RANGE_CLOEXEC)
    if process.seccomp:
        header = program.text(struct.pack("=H6xQ", len(process.seccomp) // 8, program.blob(process.seccomp)))
        flags = process.seccomp_flags
        program.call(NR.seccomp, C.SECCOMP_SET_MODE_FILTER, flags, header, step="load the seccomp filter")
    sets = process.sets
    _capset(program, sets.effective, sets.permitted, sets.inheritable, step=EXEC)
    for index, candidate in enumerate(given.candidates):
        soft = _NOT_THERE if index < len(given.candidates) - 1 else ()
        program.call(NR.execve, candidate, given.arguments, given.environment, soft=soft, step=EXEC)
