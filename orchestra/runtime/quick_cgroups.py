"""The cgroups (version 1) of a quick start: what ``cgroups.v1`` does to make them and ``cgroups.files.join`` to go
into them, as calls of a program (see ``quick``).

While the new process makes cgroups, it does not outlive its parent: whoever takes over from that one removes what
is there, and nothing may come after.
"""

from __future__ import annotations

import errno
import os
import signal

from orchestra.linux import constants as C
from orchestra.linux.program import CHANNEL, NR, ROOM, Program, Slot, Values
from orchestra.runtime.cgroups.base import Recipe

_PR_SET_PDEATHSIG = 1
_MSG_PEEK, _MSG_DONTWAIT = 2, 0x40
_HELD = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CLOEXEC
_READ = 512  # more than a list of processors has


class Groups:
    """``recipe`` for cgroups that the program makes; else ``folders`` are there. ``places`` are (name, folder) of
    all that there can be, in the order in which the container sees them; ``names`` are those of them that it is in."""

    def __init__(
        self, values: Values, recipe: Recipe | None, folders: list[str], places: list[tuple[str, str]]
    ) -> None:
        wanted = set(folders)
        there = [entry for entry in places if entry[1] in wanted]
        self.names = [name for name, _ in there]
        ordered = [place for _, place in there]
        self.folders = [values.text(os.fsencode(folder)) for folder in ordered]
        self.tasks = (
            tuple(_membership(folder) for folder in ordered) if recipe is None else ("tasks",) * len(ordered)
        )
        self.made = recipe is not None
        self.inherited = -1
        self.writes: list[tuple[int, str, list[tuple[Slot | bytes, Slot | int]]]] = []
        if recipe is None:
            return
        at = {
            root: ordered.index(folder) for root, folder in zip(recipe.roots, recipe.folders(), strict=True)
        }
        self.inherited = at.get(recipe.inherited, -1)
        for root, name, words in recipe.writes:
            texts: list[tuple[Slot | bytes, Slot | int]] = []
            for word in map(str.encode, words):
                fixed = name.startswith("devices.")
                texts.append((word, len(word)) if fixed else (values.text(word), values.number(len(word))))
            self.writes.append((at[root], name, texts))

    def shape(self) -> object:
        writes = tuple(
            (at, name, tuple([None if isinstance(text, Slot) else text for text, _ in texts]))
            for at, name, texts in self.writes
        )
        return self.tasks, tuple(self.names), self.made, self.inherited, writes

    def make(self, program: Program) -> list[Slot]:
        """Descriptors of the cgroups, made where they are not there yet."""
        if not self.made:
            return [program.call(NR.openat, C.AT_FDCWD, place, _HELD, 0, keep=True) for place in self.folders]
        program.call(NR.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        flags = _MSG_PEEK | _MSG_DONTWAIT
        program.call(NR.recvfrom, CHANNEL, ROOM, 1, flags, 0, 0, answered=True, soft=(errno.EAGAIN,))
        found: list[Slot] = []
        file = program.spare()
        for index, place in enumerate(self.folders):
            program.call(NR.mkdirat, C.AT_FDCWD, place, 0o755)
            found.append(program.call(NR.openat, C.AT_FDCWD, place, _HELD, 0, keep=True))
            if index == self.inherited:
                _inherit(program, found[-1], file)
        for at, name, texts in self.writes:
            program.call(NR.openat, found[at], name.encode(), _WRITE, 0, keep=file)
            for text, size in texts:
                program.call(NR.write, file, text, size)
        program.call(NR.prctl, _PR_SET_PDEATHSIG, 0, 0, 0, 0)
        return found

    def join(self, program: Program, groups: list[Slot]) -> None:
        file = program.spare()
        for group, tasks in zip(groups, self.tasks, strict=True):
            program.call(NR.openat, group, tasks.encode(), _WRITE, 0, keep=file)
            program.call(NR.write, file, b"0", 1)


def _membership(folder: str) -> str:
    """The file that ``cgroups.files.join`` writes to."""
    return "tasks" if os.path.exists(f"{folder}/tasks") else "cgroup.procs"


def _inherit(program: Program, group: Slot, file: Slot) -> None:
    """The processors and the memory of the parent's set."""
    size = program.spare()
    for name in (b"cpuset.cpus", b"cpuset.mems"):
        program.call(NR.openat, group, b"../" + name, os.O_RDONLY | os.O_CLOEXEC, 0, keep=file)
        program.call(NR.read, file, ROOM, _READ, keep=size)
        program.call(NR.openat, group, name, _WRITE, 0, keep=file)
        program.call(NR.write, file, ROOM, size)
