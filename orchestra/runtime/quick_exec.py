"""A further process in a running container as a list of system calls (see ``quick``): what ``exec`` does by two
copies of our interpreter. The usual kind only, health checks among them; what fails before the program runs
is begun again by ``exec``, which has the words for it.
"""

from __future__ import annotations

import errno
import os

from orchestra.linux import constants as C
from orchestra.linux.program import CHANNEL, NR, ROOM, Program, Values, available
from orchestra.runtime import quick_process
from orchestra.runtime.process import Process

_CLONE_PARENT_SETTID = 0x00100000
_MAY_NOT = (errno.EACCES, errno.EPERM)
_KEPT = 32
_programs: dict[object, Program] = {}


def fits(process: Process, flags: int) -> bool:
    """Whether ``make`` can write it; ``flags`` are the kinds of namespaces that are entered."""
    return (
        available()
        and not flags & C.CLONE_NEWUSER
        and quick_process.usual(process)
        and quick_process.has_home(process)
    )


class _Given:
    def __init__(
        self, values: Values, process: Process, pidfd: int, stdio: tuple[int, int, int], groups: list[str]
    ) -> None:
        self.stdio = [values.fd(fd) for fd in stdio]
        self.target = values.fd(pidfd)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.go, self.told = values.fd(reader, own=True), values.fd(writer, own=True)
        # the unified tree is joined before it enters: from within a cgroup namespace it cannot be
        here = [folder for folder in groups if not os.path.exists(f"{folder}/tasks")]
        self.here = [values.text(os.fsencode(f"{folder}/cgroup.procs")) for folder in here]
        self.groups = [values.text(os.fsencode(f"{folder}/tasks")) for folder in groups if folder not in here]
        self.program = quick_process.Given(values, process, -1, stdio)

    def shape(self, process: Process, flags: int) -> object:
        own = quick_process.shape(process, self.program)
        return flags, len(self.here), len(self.groups), process.oom_score_adj, own


def make(
    process: Process, pidfd: int, flags: int, stdio: tuple[int, int, int], groups: list[str]
) -> tuple[Program, Values] | None:
    """The program and its values; None where something is in the way. ``groups`` are the directories of
    version 1 that it goes into."""
    values = Values()
    try:
        given = _Given(values, process, pidfd, stdio, groups)
        shape = given.shape(process, flags)
        program = _programs.get(shape)
        if program is None:
            program = Program(len(values))
            _write(program, process, flags, given)
            while len(_programs) >= _KEPT:
                del _programs[next(iter(_programs))]
            _programs[shape] = program
        return program, values
    except BaseException as problem:
        values.close()
        if not isinstance(problem, OSError | ValueError):
            raise
    return None


def _write(program: Program, process: Process, flags: int, given: _Given) -> None:
    """Two processes: one that enters, and its child, which is our own and becomes the program."""
    quick_process.forget_signals(program)
    for index, fd in enumerate(given.stdio):
        program.call(NR.dup2, fd, index)
    writable = os.O_WRONLY | os.O_CLOEXEC
    if process.oom_score_adj is not None:
        text = str(process.oom_score_adj).encode()
        score = program.call(NR.openat, C.AT_FDCWD, b"/proc/self/oom_score_adj", writable, 0, keep=True)
        program.call(NR.write, score, text, len(text), soft=_MAY_NOT)
    for group in given.here:
        file = program.call(NR.openat, C.AT_FDCWD, group, writable, 0, keep=True)
        program.call(NR.write, file, b"0", 1)
    groups = [program.call(NR.openat, C.AT_FDCWD, group, writable, 0, keep=True) for group in given.groups]
    program.call(NR.prctl, C.PR_SET_DUMPABLE, 0, 0, 0)
    program.call(NR.setns, given.target, flags)
    program.call(NR.clone, C.CLONE_PARENT | _CLONE_PARENT_SETTID, 0, ROOM, 0, 0, fork=True, jump=1)
    program.call(NR.close, given.told, jump=3)  # the child; the next three are the parent's
    program.call(NR.write, CHANNEL, ROOM, 4)  # the child's number, before the child goes on
    program.call(NR.write, given.told, b"g", 1)
    program.call(NR.exit_group, 0)
    program.call(NR.read, given.go, ROOM, 1, answered=True)
    for group in groups:
        program.call(NR.write, group, b"0", 1)
    program.call(NR.setsid)
    quick_process.new_keyring(program)
    quick_process.settle(program, process, given.program)
    quick_process.launch(program, process, given.program)
