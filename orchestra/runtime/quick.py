"""The usual container's init as a list of system calls (see ``orchestra.linux.program``).

It does what ``init`` does, in the same order and by the same means, without a copy of our interpreter: a
start takes a third of the processor time. ``fits`` says which plans can be written so; what is rare
(terminals, hooks, user namespaces, propagation …) is not. Whenever anything fails before the container is
ready, the caller starts over by ``init``, which finds the reason and has the words for it: so nothing here
decides, explains or repairs.

Most containers of a project differ in names, paths and descriptors only. So a start first collects these
(``Values``), and the calls are written once for all plans with the same ``shape``.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import struct
from collections.abc import Sequence

from orchestra.linux import calls
from orchestra.linux import constants as C
from orchestra.linux.program import CHANNEL, HANDLER, NR, ROOM, Program, Slot, Values, available
from orchestra.runtime import namespaces, quick_covers, quick_mounts, quick_process, quick_root
from orchestra.runtime.cgroups import files as files_of_cgroups
from orchestra.runtime.cgroups.base import Recipe
from orchestra.runtime.plan import Plan, sysctl_path
from orchestra.runtime.problems import StepError
from orchestra.runtime.quick_cgroups import Groups
from orchestra.runtime.quick_root import Maker, Root

_WAITING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_SA_RESTORER = 0x04000000
_NO_FILE = (errno.ENOENT, errno.ENOSPC, errno.EDQUOT)  # for the parent to see
_KEPT = 32
_programs: dict[object, Program] = {}


def fits(plan: Plan) -> bool:
    """Whether ``make`` can write it."""
    spaces = plan.namespaces
    return (
        available()
        and plan.pivot
        and not plan.preserve_fds
        and not spaces.needs_middle
        and not {"time", "user", "mount"} & set(spaces.joined)
        and "time" not in spaces.new
        and plan.propagation in ("", "private", "rprivate", "slave", "rslave")
        and plan.personality is None
        and not any(plan.hooks.get(kind) for kind in plan.hooks if kind not in ("poststart", "poststop"))
        and quick_process.usual(plan.process)
        and quick_process.fits(plan)
        and quick_mounts.fits(plan)
    )


class Given:
    """What one container has of its own; ``shape`` is everything else that its calls depend on. ``files`` are made
    (or left alone) by the program."""

    def __init__(
        self,
        values: Values,
        plan: Plan,
        stdio: tuple[int, int, int],
        recipe: Recipe | None,
        files: Sequence[str],
    ) -> None:
        self.stdio = [values.fd(fd) for fd in stdio]
        home = quick_process.has_home(plan.process)
        self.root = Root(values, plan, looks=not home or quick_mounts.looks(plan))
        self.proc = values.fd(_host_proc(), own=True) if plan.sysctls else None
        self.names = [
            (number, values.text(name.encode()), values.number(len(name.encode())))
            for number, name in ((NR.sethostname, plan.hostname), (NR.setdomainname, plan.domainname))
            if name
        ]
        self.joined = [(namespaces.FLAGS[kind], fd) for kind, fd in _joined(values, plan)]
        self.groups = Groups(values, recipe, plan.joins, plan.cgroup_places)
        self.files = [values.text(os.fsencode(file)) for file in files]
        self.score = str(plan.process.oom_score_adj) if scores(plan) else ""
        self.mounts = quick_mounts.gather(values, plan, self.root, self.groups.names)
        self.directory = quick_process.directory(plan)
        self.program = quick_process.Given(values, plan.process, self.root.tree, stdio)
        self.shape = (
            frozenset(plan.namespaces.new),
            tuple(flag for flag, _ in self.joined),
            plan.propagation,
            tuple([number for number, _, _ in self.names]),
            self.root.shape(),
            self.groups.shape(),
            len(self.files),
            self.score,
            self.directory,
            tuple(plan.sysctls.items()),
            plan.root_readonly,
            plan.new_keyring,
            quick_mounts.shape(plan, self.mounts),
            quick_process.shape(plan.process, self.program),
        )


def make(
    plan: Plan, stdio: tuple[int, int, int], recipe: Recipe | None = None, files: Sequence[str] = ()
) -> tuple[Program, Values] | None:
    """The program, with all it needs opened; ``stdio`` stays open until it runs. With a ``recipe`` it makes the
    cgroups ``plan.joins``. None where something is in the way."""
    values = Values()
    try:
        given = Given(values, plan, stdio, recipe, files)
        return _program(plan, given, len(values)), values
    except BaseException as problem:
        values.close()
        if not isinstance(problem, OSError | StepError | ValueError):
            raise
    quick_root.give_up(plan)
    return None


def foresee(plan: Plan, stdio: tuple[int, int, int], recipe: Recipe | None, files: Sequence[str]) -> None:
    """Have the program of such containers ready."""
    made = make(plan, stdio, recipe, files)
    if made:
        made[0].prepare()
        made[1].close()


def scores(plan: Plan) -> bool:
    """Whether the program sets its oom_score_adj by itself: to raise it takes no rights."""
    wanted = plan.process.oom_score_adj
    return wanted is not None and wanted >= _own_score()


@functools.cache
def _own_score() -> int:
    try:
        return int(files_of_cgroups.read("/proc/self/oom_score_adj"))
    except (OSError, ValueError):
        return 1000


def _program(plan: Plan, given: Given, count: int) -> Program:
    program = _programs.get(given.shape)
    if program is None:
        program = Program(count)
        _write(program, plan, given)
        while len(_programs) >= _KEPT:
            del _programs[next(iter(_programs))]
        _programs[given.shape] = program
    return program


def _host_proc() -> int:
    fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if calls.filesystem_type(fd) != C.PROC_SUPER_MAGIC:
        os.close(fd)
        raise OSError(errno.ENOTSUP, "/proc is no procfs")
    return fd


def _joined(values: Values, plan: Plan) -> list[tuple[str, Slot]]:
    opened = namespaces.open_all(plan.namespaces.joined)
    return [(kind, values.fd(opened[kind], own=True)) for kind in sorted(opened)]


def _write(program: Program, plan: Plan, given: Given) -> None:
    _begin(program, given)
    groups = given.groups.make(program)
    trees = quick_mounts.trees(program, given.mounts, groups)
    root = given.root.write(program)
    maker = Maker(program, root)
    quick_mounts.points(maker, given.mounts)
    if given.directory:
        maker.make(given.directory)
    _leave(program, plan, given)
    program.call(NR.move_mount, root, b"", C.AT_FDCWD, given.root.place, C.MOVE_MOUNT_F_EMPTY_PATH)
    for number, name, size in given.names:
        program.call(number, name, size)
    quick_mounts.write(program, plan, root, given.mounts, trees)
    given.groups.join(program, groups)
    quick_covers.cover(program, plan, root)
    if given.proc is not None:
        for key, value in plan.sysctls.items():
            _sysctl(program, given.proc, sysctl_path(key), value)
    if plan.root_readonly:
        program.set_attributes(root, set_=C.MOUNT_ATTR_RDONLY)
    _pivot(program, root)
    if "cgroup" in plan.namespaces.new:
        program.call(NR.unshare, C.CLONE_NEWCGROUP)
    if plan.new_keyring:
        quick_process.new_keyring(program)
    quick_process.settle(program, plan.process, given.program)
    _wait(program)
    quick_process.launch(program, plan.process, given.program)


def _begin(program: Program, given: Given) -> None:
    """Session, signals, descriptors, what is done in the parent's mount namespace."""
    program.call(NR.setsid)
    quick_process.forget_signals(program)
    for index, fd in enumerate(given.stdio):
        program.call(NR.dup2, fd, index)
    program.call(NR.umask, 0)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    for path in given.files:
        program.call(NR.openat, C.AT_FDCWD, path, flags, 0o600, soft=_NO_FILE)
    if given.score:
        place, score = b"/proc/self/oom_score_adj", given.score.encode()
        file = program.call(NR.openat, C.AT_FDCWD, place, os.O_WRONLY | os.O_CLOEXEC, 0, keep=program.spare())
        program.call(NR.write, file, score, len(score))


def _leave(program: Program, plan: Plan, given: Given) -> None:
    """Into the container's namespaces."""
    flags = plan.namespaces.clone_flags() & ~C.CLONE_NEWPID
    if flags:
        program.call(NR.unshare, flags)
    for flag, fd in given.joined:
        program.call(NR.setns, fd, flag)
    program.call(NR.prctl, C.PR_SET_DUMPABLE, 0, 0, 0)
    program.call(NR.mount, 0, b"/", 0, C.MS_SLAVE | C.MS_REC, 0)
    if plan.propagation in ("private", "rprivate"):
        program.call(NR.mount, 0, b"/", 0, C.MS_PRIVATE | C.MS_REC, 0)


def _sysctl(program: Program, proc: Slot, path: str, value: str) -> None:
    """Into the host's own /proc, nowhere else: no mount is crossed."""
    beneath = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_MAGICLINKS
    file = program.open(proc, f"sys/{path}".encode(), os.O_WRONLY, beneath)
    program.call(NR.write, file, value.encode(), len(value.encode()))


def _pivot(program: Program, root: Slot) -> None:
    old = program.call(NR.openat, C.AT_FDCWD, b"/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0, keep=True)
    program.call(NR.fchdir, root)
    program.call(NR.pivot_root, b".", b".")
    program.call(NR.fchdir, old)
    program.call(NR.mount, 0, b".", 0, C.MS_SLAVE | C.MS_REC, 0)
    program.call(NR.umount2, b".", C.MNT_DETACH)
    program.call(NR.chdir, b"/")


def _wait(program: Program) -> None:
    """Ready; until the start a signal ends it, as it would end a program that handles none."""
    action = program.text(struct.pack("=4Q", HANDLER, _SA_RESTORER, HANDLER, 0))
    for number in _WAITING:
        program.call(NR.rt_sigaction, number, action, 0, 8)
    ready = b'{"ready": true}'
    program.call(NR.write, CHANNEL, ready, len(ready))
    program.call(NR.read, CHANNEL, ROOM, 64, answered=True)  # "start"
