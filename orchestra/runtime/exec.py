"""A further process in a running container: all its namespaces at once, its cgroup, its rules.

A middle process enters the namespaces by the init's pidfd and makes the program's process inside the
container's pid namespace as its own sibling, so that the caller is the parent. On cgroup version 1 only
the program's process goes into the cgroup, by itself: one that is at its limit of processes takes it, too.
On version 2 both are born in the cgroup, unless its limit of processes leaves no room for two.
Nothing of the host is open in it any more when it enters (CVE-2024-21626), and it is not dumpable
before it does.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import stat
from typing import Any, NoReturn

from orchestra.errors import UnsupportedError
from orchestra.linux import calls, fs, signals
from orchestra.linux import constants as C
from orchestra.linux import pidfd as pidfds
from orchestra.linux.clone import clone
from orchestra.record import field, record, shape
from orchestra.runtime import channel, init, namespaces, process, quick_exec, tty
from orchestra.runtime.cgroups import files
from orchestra.runtime.problems import StepError
from orchestra.runtime.process import Process

_WANTED = (
    C.CLONE_NEWUSER
    | C.CLONE_NEWPID
    | C.CLONE_NEWNET
    | C.CLONE_NEWIPC
    | C.CLONE_NEWUTS
    | C.CLONE_NEWNS
    | C.CLONE_NEWCGROUP
    | C.CLONE_NEWTIME
)


@shape
class Executed:
    """``pid`` is our child. ``master`` is the terminal's or -1."""

    pid: int
    pidfd: int
    master: int = -1


@shape
class Target:
    """The container's init, and where its processes belong: directories of ``cgroup.procs``, or a
    descriptor for CLONE_INTO_CGROUP; ``full`` is the directory of such a one where nothing can be born."""

    pid: int
    pidfd: int
    cgroup_dirs: list[str] = field(default_factory=list)
    cgroup_fd: int | None = None
    full: str = ""


@record
class ExecOptions:
    preserve_fds: int = 0
    warnings: list[str] = field(default_factory=list)


class PendingExec:
    """A process on its way; ``fileno()`` is readable when ``step()`` will not wait."""

    def __init__(self, end: socket.socket, middle: int, middle_fd: int, again: _Again | None = None) -> None:
        """``again``: how to begin once more, carefully, after a quick beginning that failed."""
        self._end = end
        self._again = again
        self._old: socket.socket | None = None
        self._middle = middle
        self._middle_fd = middle_fd
        self.pid = -1
        self.pidfd = -1
        self.master = -1

    def fileno(self) -> int:
        """Another one after a ``step`` that had to start over."""
        return self._end.fileno()

    def step(self) -> bool:
        """Handle one message (waits for it); true when the program was executed."""
        message, fds = channel.receive(self._end)
        if self._again and ("failed" in message if message else self.pid < 0):
            self._start_over(self._again)
            return False
        if message is None:
            self._reap_middle()
            self._close()
            if self.pid < 0:
                raise StepError("enter the container", 0, None, "the process ended without a word")
            return True
        if "error" in message:
            self.abort()
            raise StepError.from_step(message["error"])
        if "born" in message:
            self._born(message, fds)
            self._reap_middle()
        elif "console" in message:
            self.master = fds[0]
        return False

    def _born(self, message: dict[str, Any], fds: list[int]) -> None:
        """Our own child: its number is not used again before it is reaped."""
        self.pid = int(message["born"])
        self.pidfd = fds[0] if fds else os.pidfd_open(self.pid)

    def _close(self) -> None:
        self._end.close()
        if self._old:
            self._old.close()
        if self._again:
            self._again.close()
            self._again = None

    def _start_over(self, again: _Again) -> None:
        """A quick beginning has failed: the careful one finds the reason."""
        self._kill()
        self.pid, self._again = -1, None
        try:
            other = again.begin()
        except BaseException:
            self._close()
            raise
        finally:
            again.close()
        self._old = self._end  # closed later: whoever polls it lets go of it first
        self._end, self._middle, self._middle_fd = other._end, other._middle, other._middle_fd

    def _reap_middle(self) -> None:
        if self._middle_fd >= 0:
            os.waitpid(self._middle, 0)
            os.close(self._middle_fd)
            self._middle_fd = -1

    def finish(self) -> Executed:
        while not self.step():
            pass
        return Executed(self.pid, self.pidfd, self.master)

    def abort(self) -> None:
        """Give up; nothing of it remains. The process must be known first: an unknown one would stay a
        zombie, and a zombie keeps the container's pid namespace from ending."""
        self._learn(5.0)
        self._close()
        self._kill()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def _kill(self) -> None:
        for pid, pidfd in ((self._middle, self._middle_fd), (self.pid, self.pidfd)):
            if pidfd >= 0:
                try:
                    pidfds.send_signal(pidfd, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    pass
                os.close(pidfd)
        self._middle_fd = self.pidfd = -1

    def _learn(self, patience: float) -> None:
        """Hear the middle process out."""
        poller = select.poll()
        poller.register(self._end, select.POLLIN)
        while self.pid < 0 and poller.poll(patience * 1000):
            message, fds = channel.receive(self._end)
            if message is None:
                return
            if "born" in message:
                self._born(message, fds)


class _Again:
    """What is kept of an exec that begins quickly, should it have to begin once more."""

    def __init__(self, program: Process, target: Target, flags: int, stdio: tuple[int, int, int]) -> None:
        self._program, self._target, self._flags = program, target, flags
        self._kept: list[int] = []
        try:
            self._stdio = tuple(self._keep(fd) for fd in stdio)
            self._pidfd = self._keep(target.pidfd)
            self._group = self._keep(target.cgroup_fd) if target.cgroup_fd is not None else None
        except BaseException:
            self.close()
            raise

    def _keep(self, fd: int) -> int:
        self._kept.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
        return self._kept[-1]

    def begin(self) -> PendingExec:
        target = Target(self._target.pid, self._pidfd, self._target.cgroup_dirs, self._group)
        return _carefully(self._program, target, self._flags, self._stdio, 0)  # type: ignore[arg-type]

    def close(self) -> None:
        for fd in self._kept:
            os.close(fd)
        self._kept.clear()


def exec_in(
    config: dict[str, Any],
    pid: int,
    process_data: dict[str, Any],
    *,
    stdio: tuple[int, int, int],
    cgroup_dirs: list[str] | None = None,
    cgroup_fd: int | None = None,
    pidfd: int | None = None,
    options: ExecOptions | None = None,
) -> Executed:
    """Run ``process_data`` (an OCI process) in the container whose init is ``pid``; returns when it was
    executed, raises ``StepError`` (step ``exec``: 126 and 127) when it could not be."""
    return exec_begin(
        config,
        pid,
        process_data,
        stdio=stdio,
        cgroup_dirs=cgroup_dirs,
        cgroup_fd=cgroup_fd,
        pidfd=pidfd,
        options=options,
    ).finish()


def exec_begin(
    config: dict[str, Any],
    pid: int,
    process_data: dict[str, Any],
    *,
    stdio: tuple[int, int, int],
    cgroup_dirs: list[str] | None = None,
    cgroup_fd: int | None = None,
    pidfd: int | None = None,
    options: ExecOptions | None = None,
) -> PendingExec:
    """The same without waiting. ``pidfd`` of the init, when the caller has one, makes sure of whom is
    entered; ``cgroup_dirs`` are ``manager.dirs()`` (version 1), ``cgroup_fd`` is ``fds_for_clone()``."""
    options = options or ExecOptions()
    program = process.parse(process_data, (config.get("linux") or {}).get("seccomp"))
    options.warnings.extend(program.warnings)
    own_pidfd = os.pidfd_open(pid) if pidfd is None else -1
    target = Target(pid, own_pidfd if pidfd is None else pidfd, list(cgroup_dirs or ()), cgroup_fd)
    try:
        flags = namespaces.different(pid) & _WANTED
        if not flags & C.CLONE_NEWNS:
            raise UnsupportedError(f"process {pid} is in no container: it shares our mount namespace")
        found = None if options.preserve_fds else _quickly(program, target, flags, stdio)
        return found or _carefully(program, target, flags, stdio, options.preserve_fds)
    finally:
        if own_pidfd >= 0:
            os.close(own_pidfd)


def _quickly(program: Process, target: Target, flags: int, stdio: tuple[int, int, int]) -> PendingExec | None:
    """As a program of system calls; None where that cannot be."""
    if not quick_exec.fits(program, flags):
        return None
    made = quick_exec.make(program, target.pidfd, flags, stdio, target.cgroup_dirs)
    if made is None:
        return None
    try:
        again = _Again(program, target, flags, stdio)
    except BaseException:
        made[1].close()
        raise
    try:
        ours, theirs = channel.pair()
    except BaseException:
        made[1].close()
        again.close()
        raise
    try:
        middle, middle_fd = made[0].run(made[1], ours.fileno(), theirs.fileno(), cgroup_fd=target.cgroup_fd)
    except BaseException as problem:
        ours.close()
        again.close()
        if not isinstance(problem, OSError):
            raise
        return None
    finally:
        theirs.close()
    return PendingExec(ours, middle, middle_fd, again)


def _carefully(
    program: Process, target: Target, flags: int, stdio: tuple[int, int, int], preserve: int
) -> PendingExec:
    if target.cgroup_fd is not None and files.no_room(target.cgroup_fd):
        folder = os.readlink(f"/proc/self/fd/{target.cgroup_fd}")
        target = Target(target.pid, target.pidfd, target.cgroup_dirs, None, folder)
    ours, theirs = channel.pair()
    try:
        middle, middle_fd = clone(cgroup_fd=target.cgroup_fd)
        if middle == 0:
            init.guarded(theirs, lambda: _middle(program, target, flags, theirs, stdio, preserve))
    except OSError as problem:
        ours.close()
        raise StepError.of("make the process", problem) from None
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return PendingExec(ours, middle, middle_fd)


def _middle(
    program: Process,
    target: Target,
    flags: int,
    end: socket.socket,
    stdio: tuple[int, int, int],
    preserve: int,
) -> NoReturn:
    groups = _cgroup_files(target.cgroup_dirs)
    if target.full:  # a process that exists may join, whatever the limit
        groups.append(os.open(f"{target.full}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
    _protect(program)
    if flags & C.CLONE_NEWUSER:
        _own_pipes(program, target.pid, stdio)
    proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    init.prepare_descriptors(stdio, {end.fileno(), target.pidfd, proc_fd, *groups}, preserve)
    calls.prctl(C.PR_SET_DUMPABLE, 0)
    try:
        calls.setns(target.pidfd, flags)
    except OSError as problem:
        raise StepError.of("enter the container's namespaces", problem) from None
    os.close(target.pidfd)
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    pid, pidfd = clone(C.CLONE_PARENT)
    if pid == 0:
        os.close(go_write)
        init.wait_for_middle(go_read)
        init.guarded(end, lambda: _child(program, flags, end, proc_fd, groups, preserve))
    channel.send(end, {"born": pid}, (pidfd,))
    os.write(go_write, b"g")  # what the process has to say comes after its birth
    os._exit(0)


def _own_pipes(program: Process, pid: int, stdio: tuple[int, int, int]) -> None:
    """So that the program may open /dev/stdout again: the pipes of its stdio become its user's, which only
    the host may do where that is another user namespace's."""
    from orchestra.linux import userns

    uid = userns.outside(userns.read_map(pid, "uid"), program.uid)
    if uid is None:
        return
    for fd in stdio:
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, uid, -1)
        except OSError:
            continue  # another's, or closed


def _cgroup_files(folders: list[str]) -> list[int]:
    """What the program's process writes a 0 into; the unified tree is joined here and now, since from
    within a cgroup namespace it cannot be."""
    found = []
    try:
        for folder in folders:
            try:
                found.append(os.open(f"{folder}/tasks", os.O_WRONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                files.join(folder)
    except OSError as problem:
        raise StepError.of("join the cgroup", problem) from None
    return found


def _join(groups: list[int]) -> None:
    try:
        for fd in groups:
            os.write(fd, b"0")
            os.close(fd)
    except OSError as problem:
        raise StepError.of("join the cgroup", problem) from None


def _protect(program: Process) -> None:
    """Lowering needs a right that may be missing; the container's own processes then have none either."""
    if program.oom_score_adj is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(str(program.oom_score_adj).encode())
    except PermissionError:
        return


def _child(
    program: Process, flags: int, end: socket.socket, proc_fd: int, groups: list[int], preserve: int
) -> None:
    _join(groups)
    os.setsid()
    calls.prctl(C.PR_SET_DUMPABLE, 0)
    if flags & C.CLONE_NEWUSER:
        init.become_root()
    if program.terminal:
        _terminal(program, end)
    try:
        calls.join_session_keyring()
    except OSError:
        pass  # no keyrings, or no room: the caller's stays, which is empty for a daemon
    process.limit(program)
    init.label_program(program, proc_fd)
    os.close(proc_fd)
    _must_exist(program.cwd)
    process.enter(program)
    env = process.environment(program)
    path = process.resolve(program.args[0], env.get("PATH"))
    calls.close_range(3 + preserve, flags=C.CLOSE_RANGE_CLOEXEC)
    signals.reset_all()
    process.run(program, path, env)


def _must_exist(path: str) -> None:
    """Only a new container gets a working directory made for it."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(fs.open_inside(root, path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as problem:
        number = problem.errno or 0
        raise StepError(f"change to directory {path}", number, path, os.strerror(number).lower()) from None
    finally:
        os.close(root)


def _terminal(program: Process, end: socket.socket) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        master, slave = tty.open_pair(root, rows=program.rows, columns=program.columns)
        channel.send(end, {"console": tty.name(master)}, (master,))
        os.close(master)
        tty.take(slave)
        os.close(slave)
    except OSError as problem:
        raise StepError.of("make the terminal", problem) from None
    finally:
        os.close(root)
