"""The program of a container or an exec: parsed by the parent, put into force by the child.

Order in the child: ``limit`` (limits, scheduling, terminal owner), ``enter`` (directory, user,
capabilities), ``resolve`` (the program's file, with the user's own rights), then, after the start,
``run`` (seccomp, last capabilities, execve).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import Any

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import calls, fs
from orchestra.linux import constants as C
from orchestra.record import field, shape
from orchestra.runtime import capabilities, rlimits
from orchestra.runtime.problems import EXEC, StepError

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_ID = 2**32 - 1
_GROUPS_MAX = 65536  # NGROUPS_MAX
_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1,
    "SCHED_FLAG_RECLAIM": 2,
    "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_IO_CLASSES = {"IOPRIO_CLASS_NONE": 0, "IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_SECCOMP_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": C.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": C.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": C.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
}
_KNOWN = frozenset(
    (
        "args",
        "env",
        "cwd",
        "user",
        "capabilities",
        "noNewPrivileges",
        "rlimits",
        "terminal",
        "consoleSize",
        "oomScoreAdj",
        "scheduler",
        "ioPriority",
        "execCPUAffinity",
        "apparmorProfile",
        "selinuxLabel",
    )
)


class Filter:
    """A filter of system calls, compiled: the program and the flags for seccomp(2)."""

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int) -> None:
        self.program, self.flags = program, flags


@shape
class Process:
    """Everything of ``process``, checked. ``groups`` is None to leave the supplementary groups alone."""

    args: list[str]
    env: list[str]
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: list[int] | None = field(default_factory=list)
    umask: int = 0o022
    sets: capabilities.Sets = field(default_factory=capabilities.Sets)
    no_new_privileges: bool = False
    limits: list[rlimits.Limit] = field(default_factory=list)
    seccomp: bytes = b""
    seccomp_flags: int = 0
    oom_score_adj: int | None = None
    apparmor: str = ""
    selinux: str = ""
    scheduler: bytes = b""
    io_priority: int | None = None
    affinity: list[int] = field(default_factory=list)
    terminal: bool = False
    rows: int = 0
    columns: int = 0
    warnings: list[str] = field(default_factory=list)


def parse(data: dict[str, Any], seccomp: dict[str, Any] | Filter | None) -> Process:
    """``OrchestraError`` for what makes no sense."""
    args, cwd = [str(word) for word in data.get("args") or ()], str(data.get("cwd") or "")
    if not args:
        raise OrchestraError("process.args is empty")
    if not cwd.startswith("/"):
        raise OrchestraError(f"process.cwd {cwd!r} must be an absolute path")
    env = [str(line) for line in data.get("env") or ()]
    for text in (*args, *env, cwd):
        if "\0" in text:
            raise OrchestraError("process: a NUL byte in args, env or cwd")
    user = data.get("user") or {}
    sets, warnings = capabilities.parse(data.get("capabilities"))
    size = data.get("consoleSize") or {}
    umask = user.get("umask")
    found = Process(
        args,
        env,
        cwd,
        int(user.get("uid") or 0),
        int(user.get("gid") or 0),
        [int(gid) for gid in user.get("additionalGids") or ()],
        0o022 if umask is None else int(umask),
        sets,
        bool(data.get("noNewPrivileges")),
        rlimits.parse(data.get("rlimits")),
        terminal=bool(data.get("terminal")),
        rows=int(size.get("height") or 0),
        columns=int(size.get("width") or 0),
        warnings=warnings,
    )
    _check_ids(found)
    if data.get("oomScoreAdj") is not None:
        found.oom_score_adj = int(data["oomScoreAdj"])
    found.scheduler = _scheduler(data.get("scheduler"))
    found.io_priority = _io_priority(data.get("ioPriority"))
    affinity = data.get("execCPUAffinity") or {}
    found.affinity = cpu_list(str(affinity.get("final") or affinity.get("initial") or ""))
    found.apparmor = _apparmor(str(data.get("apparmorProfile") or ""), warnings)
    found.selinux = _selinux(str(data.get("selinuxLabel") or ""), warnings)
    warnings += [
        f"process.{key} is not supported and was ignored" for key in sorted(set(data) - _KNOWN) if data[key]
    ]
    if seccomp:
        known = seccomp if isinstance(seccomp, Filter) else compile_filter(seccomp)
        found.seccomp, found.seccomp_flags = known.program, known.flags
    return found


def _check_ids(process: Process) -> None:
    """-1 would leave the id as it is: root's."""
    groups = process.groups or []
    if any(not 0 <= number < _NO_ID for number in (process.uid, process.gid, *groups)):
        raise OrchestraError(f"process.user: ids are from 0 to {_NO_ID - 1}")
    if len(groups) > _GROUPS_MAX:
        raise OrchestraError(f"process.user.additionalGids: more than {_GROUPS_MAX} groups")


def compile_filter(data: dict[str, Any]) -> Filter:
    """Of ``linux.seccomp``."""
    if data.get("listenerPath"):
        raise UnsupportedError("linux.seccomp.listenerPath: notifications to an agent are not supported")
    unknown = sorted(
        set(data.get("flags") or ()) - set(_SECCOMP_FLAGS) - {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}
    )
    if unknown:
        raise UnsupportedError(f"linux.seccomp.flags: unknown flag {', '.join(unknown)}")
    from orchestra.runtime.seccomp import compile_profile

    flags = 0
    for word in data.get("flags") or ():
        flags |= _SECCOMP_FLAGS.get(word, 0)
    # one thread: nothing to synchronise
    return Filter(compile_profile(data), flags & ~C.SECCOMP_FILTER_FLAG_TSYNC)


def _scheduler(data: dict[str, Any] | None) -> bytes:
    """A packed ``struct sched_attr``."""
    if not data:
        return b""
    policy = str(data.get("policy") or "")
    if policy not in _POLICIES:
        raise OrchestraError(f"process.scheduler: unknown policy {policy!r}")
    flags = 0
    for word in data.get("flags") or ():
        if word not in _SCHED_FLAGS:
            raise OrchestraError(f"process.scheduler: unknown flag {word!r}")
        flags |= _SCHED_FLAGS[word]
    return struct.pack(
        "=IIQiIQQQ",
        48,
        _POLICIES[policy],
        flags,
        int(data.get("nice") or 0),
        int(data.get("priority") or 0),
        int(data.get("runtime") or 0),
        int(data.get("deadline") or 0),
        int(data.get("period") or 0),
    )


def _io_priority(data: dict[str, Any] | None) -> int | None:
    if not data:
        return None
    word = str(data.get("class") or "")
    if word not in _IO_CLASSES:
        raise OrchestraError(f"process.ioPriority: unknown class {word!r}")
    return _IO_CLASSES[word] << 13 | int(data.get("priority") or 0)


def cpu_list(text: str) -> list[int]:
    """``0-2,5``"""
    found: set[int] = set()
    try:
        for part in text.split(","):
            if part.strip():
                first, _, last = part.partition("-")
                found.update(range(int(first), int(last or first) + 1))
    except ValueError:
        raise OrchestraError(f"process.execCPUAffinity: {text!r} is no list of processors") from None
    return sorted(found)


def _apparmor(profile: str, warnings: list[str]) -> str:
    if profile and not os.path.isdir("/sys/kernel/security/apparmor"):
        if profile != "unconfined":
            warnings.append(f"apparmorProfile {profile}: this kernel has no AppArmor")
        return ""
    return profile


def _selinux(label: str, warnings: list[str]) -> str:
    if label and not os.path.exists("/sys/fs/selinux/enforce"):
        warnings.append(f"selinuxLabel {label}: this kernel has no SELinux")
        return ""
    return label


# In the child


def limit(process: Process) -> None:
    """What needs the rights the child still has."""
    if process.scheduler:
        _step("set the scheduler", lambda: calls.sched_setattr(0, process.scheduler))
    if process.io_priority is not None:
        priority = process.io_priority
        _step("set the io priority", lambda: calls.ioprio_set(1, 0, priority))
    if process.affinity:
        _step("set the cpu affinity", lambda: os.sched_setaffinity(0, process.affinity))
    rlimits.apply(process.limits)


def _step(name: str, action: Any) -> None:
    try:
        action()
    except OSError as problem:
        raise StepError.of(name, problem) from None


def enter(process: Process) -> None:
    """Directory, labels, user, groups, capabilities. No descriptor of the host is open any more."""
    _change_directory(process.cwd)
    if process.uid:
        _own_stdio(process.uid)
    os.umask(process.umask)
    if process.no_new_privileges:
        calls.prctl(C.PR_SET_NO_NEW_PRIVS, 1)
    try:
        capabilities.become(process.sets, process.uid, process.gid, process.groups)
    except OSError as problem:
        raise StepError.of(f"become user {process.uid}:{process.gid}", problem) from None


def _change_directory(path: str) -> None:
    """By a descriptor that cannot be outside of the root (CVE-2024-21626)."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder = fs.make_inside(root, path)
        try:
            os.fchdir(folder)
        finally:
            os.close(folder)
        if not os.getcwd().startswith("/"):
            raise OSError(errno.ENOENT, "the directory is outside of the container", path)
    except OSError as problem:
        raise StepError.of(f"change to directory {path}", problem) from None
    finally:
        os.close(root)


def _own_stdio(uid: int) -> None:
    """So that the user may open /dev/stdout again. A device that others use (/dev/null) stays root's."""
    for fd in (0, 1, 2):
        try:
            info = os.fstat(fd)
            if info.st_uid == uid or stat.S_ISREG(info.st_mode):
                continue
            if stat.S_ISCHR(info.st_mode) and not os.isatty(fd):
                continue
            os.fchown(fd, uid, -1)
        except OSError:
            continue  # an unmapped owner, or a pipe of somebody else's namespace


def environment(process: Process, root: int = -1) -> dict[str, str]:
    """Last word wins; HOME from the container's /etc/passwd when it is not given (``root``: the container's
    root, where it is not the caller's own)."""
    found: dict[str, str] = {}
    for line in process.env:
        name, separator, value = line.partition("=")
        if name and separator:
            found[name] = value
    if not found.get("HOME"):
        found["HOME"] = _home(process.uid, root)
    return found


def _home(uid: int, folder: int) -> str:
    try:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC) if folder < 0 else os.dup(folder)
        try:
            fd = fs.open_inside(root, "etc/passwd", os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.close(root)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return "/"
            text = os.read(fd, 1 << 20).decode(errors="replace")
        finally:
            os.close(fd)
    except OSError:
        return "/"
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"


def resolve(name: str, path: str | None) -> str:
    """The program's file, found as the shell would; ``StepError`` of step ``exec`` otherwise."""
    step = f'{EXEC} "{name}"'
    if "/" in name:
        _check_program(step, name)
        return name
    denied = False
    for folder in (path if path is not None else DEFAULT_PATH).split(":"):
        candidate = f"{folder or '.'}/{name}"
        try:
            _check_program(step, candidate)
        except StepError as problem:
            denied = denied or problem.errno == errno.EACCES
            continue
        return candidate
    if denied:
        raise StepError(step, errno.EACCES, name, "permission denied")
    raise StepError(step, errno.ENOENT, name, "executable file not found in $PATH")


def _check_program(step: str, path: str) -> None:
    try:
        info = os.stat(path)
    except OSError as problem:
        number = problem.errno or errno.ENOENT
        text = "no such file or directory" if number == errno.ENOENT else os.strerror(number).lower()
        raise StepError(step, number, path, text) from None
    if stat.S_ISDIR(info.st_mode):
        raise StepError(step, errno.EACCES, path, "is a directory")
    if not stat.S_ISREG(info.st_mode) or not os.access(path, os.X_OK, effective_ids=True):
        raise StepError(step, errno.EACCES, path, "permission denied")


def start_error(process: Process, number: int, call: int, steps: list[str]) -> StepError:
    """What a program of system calls says about a failed start: an errno and the index of the call."""
    step = steps[call] if call < len(steps) else ""
    if step != EXEC:
        return StepError.of(step or "start the container", OSError(number, os.strerror(number)))
    return _not_executed(process, number, process.args[0])


def _not_executed(process: Process, number: int, program: str) -> StepError:
    text = os.strerror(number).lower()
    if number == errno.ENOENT:
        text = "no such file or directory (its interpreter is missing)"
    elif number == errno.ENOEXEC:
        text = "exec format error"
    return StepError(f'{EXEC} "{process.args[0]}"', number, program, text)


def run(process: Process, program: str, env: dict[str, str]) -> None:
    """Seccomp, the last capabilities, execve. Returns never, or raises."""
    encoded = {os.fsencode(key): os.fsencode(value) for key, value in env.items()}
    if process.seccomp:
        try:
            calls.seccomp_load(process.seccomp, process.seccomp_flags)
        except OSError as problem:
            raise StepError.of("load the seccomp filter", problem) from None
    try:
        capabilities.settle(process.sets)
        os.execve(program, process.args, encoded)
    except OSError as problem:
        raise _not_executed(process, problem.errno or 0, program) from None
