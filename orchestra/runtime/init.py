"""The child's side of creating a container: everything between clone3 and execve.

Runs on a copy of the parent's interpreter, so: no locks, no logging, nothing imported late that could
fail for want of the host's files, ``os._exit`` on every path, failures as data over the channel. It
decides nothing; ``Plan`` says what to do. Steps, in order:

session, descriptors → joined namespaces → id maps → hostname, mounts, devices, terminal → hooks of
the runtime → covered paths → sysctls → pivot → keyring, limits, directory, user, capabilities → the
program's file → "ready" … "start" → startContainer hooks → seccomp, execve
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from orchestra.linux import calls, fs, signals
from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.record import field, shape
from orchestra.runtime import cgroupmount, channel, devices, hooks, mounts, namespaces, process, rootfs, tty
from orchestra.runtime.cgroups import files
from orchestra.runtime.plan import Plan, sysctl_path
from orchestra.runtime.problems import StepError

_PATIENT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@shape
class Inherited:
    """Descriptors that the child keeps from its parent. ``go``, from a middle process, is readable once
    the birth was told and the id maps are written; ``root_ready`` says that the middle process has
    mounted the root already and stands in it; ``unshare`` that only the pid namespace is new yet."""

    end: socket.socket
    stdio: tuple[int, int, int]
    listener: int = -1
    trees: dict[int, int] = field(default_factory=dict)
    joins: dict[str, int] = field(default_factory=dict)
    go: int = -1
    root_ready: bool = False
    unshare: bool = False

    def numbers(self) -> set[int]:
        found = {self.end.fileno(), *self.trees.values(), *self.joins.values()}
        return {fd for fd in (*found, self.listener, self.go) if fd >= 0}


def guarded(end: socket.socket, action: Callable[[], None]) -> NoReturn:
    """Run ``action``; whatever it raises goes over the channel. Never returns."""
    try:
        action()
    except BaseException as problem:
        report(end, problem)
    finally:
        os._exit(1)


def report(end: socket.socket, problem: BaseException) -> None:
    try:
        channel.send(end, {"error": StepError.of("create the container", problem).to_step()})
    except OSError:
        pass


def prepare_descriptors(stdio: tuple[int, int, int], keep: set[int], preserve: int) -> None:
    """stdio to 0, 1, 2; everything that is not in ``keep`` (or preserved: 3 … 2+preserve) is closed, so
    that nothing of the host can leak into the container."""
    source = [
        fd if fd == index else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3 + preserve)
        for index, fd in enumerate(stdio)
    ]
    for index, fd in enumerate(source):
        if fd != index:
            os.dup2(fd, index)
            os.close(fd)
        else:
            os.set_inheritable(index, True)
    for number in range(3, 3 + preserve):
        try:
            os.set_inheritable(number, True)
        except OSError:
            continue
    first = 3 + preserve
    for fd in sorted(number for number in keep if number >= first):
        calls.close_range(first, fd - 1)
        first = fd + 1
    calls.close_range(first)


def run(plan: Plan, inherited: Inherited) -> None:
    """The whole life of the child. Returns only by an exception."""
    end = inherited.end
    words = channel.Words(end)
    pid = int(os.readlink("/proc/self"))  # ours as the host sees it, for the hooks
    os.setsid()
    prepare_descriptors(inherited.stdio, inherited.numbers(), plan.preserve_fds)
    own_user = plan.namespaces.own("user")
    wait_for_middle(inherited.go)
    if inherited.unshare:
        plan.namespaces.leave()
    if inherited.joins:
        namespaces.enter(inherited.joins)
    if own_user:
        become_root()
    if "time" in plan.namespaces.new:
        _new_time(plan.time_offsets)
    calls.prctl(C.PR_SET_DUMPABLE, 0)
    root_fd = _root(plan, inherited)
    proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _names(plan)
    slave = _populate(plan, inherited, root_fd, bind_devices=own_user)
    _join_cgroups(plan)
    _runtime_hooks(plan, words, pid)
    _finish_root(plan, root_fd, proc_fd)
    os.close(root_fd)
    if slave >= 0:
        tty.take(slave)
        os.close(slave)
    # what only the parent can do; the new namespace's root is where we are then
    if not words.expect("attached"):
        os._exit(1)
    if "cgroup" in plan.namespaces.new:
        calls.unshare(C.CLONE_NEWCGROUP)
    program, env = _settle(plan, proc_fd)
    channel.send(end, {"ready": True})
    starter = _wait_for_start(words, inherited.listener)
    try:
        _launch(plan, program, env, pid)
    except BaseException as problem:
        report(starter, problem)
        os._exit(1)


def _join_cgroups(plan: Plan) -> None:
    """Late, so that what a copy of the parent costs is not the container's memory."""
    try:
        for folder in plan.joins:
            files.join(folder)
    except OSError as problem:
        raise StepError.of("join the cgroup", problem) from None


def wait_for_middle(go: int) -> None:
    if go >= 0:
        if os.read(go, 1) != b"g":
            os._exit(1)
        os.close(go)


def become_root() -> None:
    """Root of the user namespace that was entered."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    try:
        os.setgroups([])
    except PermissionError:
        pass  # denied by the map's maker; the groups are nobody's then


def _new_time(offsets: str) -> None:
    """Entered by execve (kernel 6.1 on)."""
    calls.unshare(C.CLONE_NEWTIME)
    if offsets:
        fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, offsets.encode())
        except OSError as problem:
            raise StepError.of("set linux.timeOffsets", problem) from None
        finally:
            os.close(fd)


def _root(plan: Plan, inherited: Inherited) -> int:
    if inherited.root_ready:
        return rootfs.unlock_root()
    rootfs.isolate(plan.propagation)
    return rootfs.mount_root(plan.root, plan.root_mount, (plan.uids, plan.gids), plan.propagation)


def _names(plan: Plan) -> None:
    try:
        if plan.hostname:
            calls.sethostname(plan.hostname)
        if plan.domainname:
            calls.setdomainname(plan.domainname)
    except OSError as problem:
        raise StepError.of("set the hostname", problem) from None


def _populate(plan: Plan, inherited: Inherited, root_fd: int, *, bind_devices: bool) -> int:
    """Mounts, devices, terminal; the slave's descriptor or -1."""
    for index, mount in enumerate(plan.mounts):
        if mount.fstype in ("cgroup", "cgroup2") and not mount.bind:
            cgroupmount.apply(mount, root_fd, plan.cgroup_places, plan.cgroup_unified)
        else:
            mounts.apply(mount, root_fd, inherited.trees.get(index))
    if plan.sets_up_dev:
        devices.apply(plan.devices, root_fd, bind=bind_devices)
    if not plan.process.terminal:
        return -1
    try:
        master, slave = tty.open_pair(root_fd, rows=plan.process.rows, columns=plan.process.columns)
        if plan.sets_up_dev:
            _console(root_fd, slave)
        channel.send(inherited.end, {"console": tty.name(master)}, (master,))
    except OSError as problem:
        raise StepError.of("make the terminal", problem) from None
    os.close(master)
    return slave


def _console(root_fd: int, slave: int) -> None:
    """The terminal as /dev/console, both ends by descriptor (CVE-2025-52565)."""
    target = fs.make_inside(root_fd, "/dev/console", directory=False)
    try:
        calls.mount(mounting.fd_path(slave), mounting.fd_path(target), None, C.MS_BIND)
    finally:
        os.close(target)


def _runtime_hooks(plan: Plan, words: channel.Words, pid: int) -> None:
    if plan.hooks.get("prestart") or plan.hooks.get("createRuntime"):
        channel.send(words.end, {"hooks": True})
        if not words.expect("hooks"):
            os._exit(1)
    if plan.hooks.get("createContainer"):
        hooks.run(plan.hooks["createContainer"], plan.state("creating", pid), directory=plan.bundle)


def _finish_root(plan: Plan, root_fd: int, proc_fd: int) -> None:
    rootfs.mask(root_fd, plan.masked)
    rootfs.protect(root_fd, plan.protected)
    for name, value in plan.sysctls.items():
        _write_proc(proc_fd, f"sys/{sysctl_path(name)}", value, f"set sysctl {name}")
    if plan.root_readonly:
        rootfs.make_readonly(root_fd)
    rootfs.change(root_fd, pivot=plan.pivot, propagation=plan.propagation)


def _write_proc(proc_fd: int, path: str, value: str, step: str) -> None:
    """Into the host's own /proc, whatever may be mounted over parts of it (CVE-2025-52881)."""
    try:
        fd = calls.openat2(
            proc_fd,
            path,
            os.O_WRONLY,
            resolve=C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_MAGICLINKS,
        )
        try:
            if calls.filesystem_type(fd) != C.PROC_SUPER_MAGIC:
                raise OSError(errno.EPERM, "not a file of procfs", path)
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as problem:
        raise StepError.of(step, problem) from None


def _settle(plan: Plan, proc_fd: int) -> tuple[str, dict[str, str]]:
    """Everything up to the program's file; the host's /proc is let go."""
    program = plan.process
    if plan.new_keyring:
        try:
            calls.join_session_keyring()
        except OSError as problem:
            if problem.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                raise
    if plan.personality is not None:
        calls.personality(plan.personality)
    process.limit(program)
    label_program(program, proc_fd)
    os.close(proc_fd)
    process.enter(program)
    env = process.environment(program)
    return process.resolve(program.args[0], env.get("PATH")), env


def label_program(program: process.Process, proc_fd: int) -> None:
    if program.apparmor:
        _write_proc(
            proc_fd, "thread-self/attr/apparmor/exec", f"exec {program.apparmor}", "set the AppArmor profile"
        )
    if program.selinux:
        _write_proc(proc_fd, "thread-self/attr/exec", program.selinux, "set the SELinux label")


def _leave(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


def _wait_for_start(words: channel.Words, listener: int) -> socket.socket:
    """The channel that failures of the start go to. Meanwhile signals end the process as they would
    end a program that handles none (as pid 1 it would not even notice them)."""
    signal.set_wakeup_fd(-1)
    for number in _PATIENT:
        signal.signal(number, _leave)
    if listener < 0:
        if not words.expect("start"):
            os._exit(1)
        return words.end
    words.end.close()
    door = socket.socket(fileno=listener)
    while True:
        starter, _ = door.accept()
        if channel.Words(starter).expect("start"):
            door.close()
            return starter
        starter.close()


def _launch(plan: Plan, program: str, env: dict[str, str], pid: int) -> None:
    if plan.hooks.get("startContainer"):
        hooks.run(plan.hooks["startContainer"], plan.state("created", pid))
    calls.close_range(3 + plan.preserve_fds, flags=C.CLOSE_RANGE_CLOEXEC)
    signals.reset_all()
    process.run(plan.process, program, env)
