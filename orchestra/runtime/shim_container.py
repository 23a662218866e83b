"""One container as its shim sees it: the init's pidfd, its stdio, its cgroup, its state on disk.

The order that matters at the end of a container: reap, kill what is left in the cgroup, drain the
output into the log, write state.json, and only then tell anyone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestra.linux import pidfd as pidfds
from orchestra.linux import procfs
from orchestra.runtime import configfile
from orchestra.runtime import shim_state as states
from orchestra.runtime.cgroups import CgroupManager, Mode, manager
from orchestra.runtime.logfile import Writer, files_of
from orchestra.runtime.shim_errors import StateError
from orchestra.runtime.shim_keeper import Keeper
from orchestra.runtime.shim_loop import READ, Loop
from orchestra.runtime.shim_stdio import Stdio

if TYPE_CHECKING:
    from orchestra.runtime.create import Created

LOST_CODE = 255
_PATIENCE = 5.0  # for the exit status of a process that is not our child


class Container:
    """``on_event(type, container)`` is called after the state is on disk."""

    def __init__(
        self,
        loop: Loop,
        mode: Mode,
        state: states.State,
        keeper: Keeper,
        on_event: Callable[[str, Container], None],
    ) -> None:
        self.loop = loop
        self.mode = mode
        self.state = state
        self.keeper = keeper
        self.on_event = on_event
        self.id: str = state["id"]
        self.bundle: str = state["bundle"]
        self.pidfd = -1
        self.created: Created | None = None
        self.starting: Callable[[int], None] | None = None  # what to call when the start has an outcome
        self.start_error: BaseException | None = None
        self.cgroup: CgroupManager | None = manager(state["cgroup"], mode) if state.get("cgroup") else None
        self.stdio = Stdio(loop, self.bundle, None)
        self.waiters: list[Callable[[dict[str, Any]], None]] = []
        self._oom = -1
        self._oom_seen = 0

    @property
    def pid(self) -> int:
        return int(self.state["pid"])

    @property
    def status(self) -> str:
        return str(self.state["status"])

    @property
    def alive(self) -> bool:
        return self.status != "stopped"

    def save(self, **changes: Any) -> None:
        self.state.update(changes)
        states.save(self.bundle, self.state)

    def config(self) -> dict[str, Any]:
        return configfile.load(f"{self.bundle}/config.json")

    def need(self, *wanted: str) -> None:
        """``StateError`` unless the status is one of ``wanted``."""
        if self.status not in wanted:
            raise StateError(self.id, self.status, wanted)

    # Birth

    def _log(self) -> dict[str, Any]:
        log = self.state.get("log") or {}
        return log if log.get("path") and log.get("driver", "local") != "none" else {}

    def log_files(self) -> tuple[str, ...]:
        return files_of(self._log()["path"]) if self._log() else ()

    def open_log(self) -> None:
        """Once, before anything is read that the container says."""
        log = self._log()
        if log and self.stdio.writer is None:
            self.stdio.writer = Writer(
                log["path"], max_size=int(log.get("max_size") or 0), max_file=int(log.get("max_file") or 1)
            )

    def supervise(self, pidfd: int, *, new: bool = False) -> None:
        """Take the init's pidfd (owned from here on) and watch for its end and for OOM kills."""
        self.pidfd = pidfd
        self.loop.add(pidfd, READ, lambda mask: self._ended())
        if self.cgroup:
            self._oom_seen = 0 if new else self.cgroup.oom_kills()
            watch = self.cgroup.oom_watch()
            if watch:
                self._oom = watch[0]
                self.loop.add(watch[0], watch[1], lambda mask: self._oom_event())

    def adopt(self) -> None:
        """Take over a container that a dead shim has started."""
        pid = self.pid
        try:
            pidfd = pidfds.open_pid(pid)
        except OSError:
            pidfd = -1
        if pidfd < 0 or not procfs.alive(pid, self.state.get("start_time")):
            if pidfd >= 0:
                os.close(pidfd)
            self.open_log()
            self.stdio.adopt()
            self._finish(zombie_status(pid, self.state.get("start_time")))
            return
        self.open_log()
        tty = bool(self.state.get("tty"))
        kept = self.keeper.give(self.id) if tty or self.state.get("stdin_open") else -1
        if tty and kept >= 0:
            self.stdio.terminal(kept)
        else:
            self.stdio.adopt(kept)
        self.supervise(pidfd)
        if self.status == "created":  # its creator is gone: nobody can start it any more
            pidfds.send_signal(pidfd, signal.SIGKILL)
        self.save(shim_pid=os.getpid())

    # Life

    def signal(self, number: int, *, everyone: bool) -> None:
        self.need("created", "running", "paused")
        if everyone and self.cgroup:
            self.cgroup.signal(number)
        else:
            pidfds.send_signal(self.pidfd, number)
        if number == signal.SIGKILL and self.cgroup and self.status == "paused":
            self.cgroup.thaw()  # a frozen process does not die

    def pause(self) -> None:
        self.need("running")
        self._group().freeze()
        self.save(status="paused")
        self.on_event("pause", self)

    def resume(self) -> None:
        self.need("paused")
        self._group().thaw()
        self.save(status="running")
        self.on_event("resume", self)

    def _group(self) -> CgroupManager:
        if not self.cgroup:
            raise StateError(self.id, "without a cgroup", ("one with a cgroup",))
        return self.cgroup

    def _oom_event(self) -> None:
        try:
            if self.mode.kind == "v2":
                os.pread(self._oom, 4096, 0)  # a new look arms the next notification
            else:
                os.read(self._oom, 8)
        except OSError:
            pass
        self._count_oom()
        self.loop.after(0.1, self._count_oom)  # the counter follows the notification

    def _count_oom(self) -> None:
        if not self.alive or not self.cgroup:
            return
        kills = self.cgroup.oom_kills()
        if kills > self._oom_seen:
            self._oom_seen = kills
            self.save(oom=True)
            self.on_event("oom", self)

    # End

    def _ended(self) -> None:
        self.loop.drop(self.pidfd)
        try:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            self._ask(time.monotonic() + _PATIENCE)
            return
        if found is None:
            self.loop.add(self.pidfd, READ, lambda mask: self._ended())
            return
        if found.si_code == os.CLD_EXITED:
            self._finish(found.si_status << 8)
        else:
            self._finish(found.si_status)

    def _ask(self, deadline: float) -> None:
        """The status of somebody else's child: from its zombie, or, once its parent has reaped it, from
        the pidfd (kernel 6.15)."""
        found = zombie_status(self.pid, self.state.get("start_time"))
        info = pidfds.info(self.pidfd) if found is None else None
        if info and info.exit_status is not None:
            found = info.exit_status
        if found is not None:
            self._finish(found)
        elif time.monotonic() > deadline or (info is None and not os.path.exists(f"/proc/{self.pid}")):
            self._finish(None)
        else:
            self.loop.after(0.02, lambda: self._ask(deadline))

    def _finish(self, wait_status: int | None) -> None:
        if self.starting:  # it ended so soon that its start was not told yet
            self.starting(READ)
        number = (wait_status & 0x7F) if wait_status is not None else 0
        code = LOST_CODE if wait_status is None else 128 + number if number else wait_status >> 8
        if self.start_error is not None:  # the program never ran: 127 not found, 126 not to be executed
            code = int(getattr(self.start_error, "exit_code", code))
        oom = bool(self.state.get("oom"))
        if self.cgroup:
            oom = self._sweep(self.cgroup) or oom
        self.stdio.drain()
        if self.state.get("tty") or self.state.get("stdin_open"):
            self.keeper.drop(self.id)
        self._release()
        self.save(
            status="stopped",
            exit_code=code,
            exit_signal=number,
            oom=oom,
            lost=wait_status is None,
            finished_at=time.time(),
        )
        self.on_event("exit", self)
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter(self.state)

    def _sweep(self, cgroup: CgroupManager) -> bool:
        """Kill what outlived the init (a shared pid namespace); whether the OOM killer was here."""
        try:
            if cgroup.pids():
                cgroup.kill()
            return cgroup.oom_kills() > 0
        except OSError:
            sys.excepthook(*sys.exc_info())
            return False

    def _release(self) -> None:
        for fd in (self.pidfd, self._oom):
            if fd >= 0:
                self.loop.drop(fd)
                os.close(fd)
        self.pidfd = self._oom = -1
        self.created = None

    def discard(self) -> None:
        """Remove every trace of one that was never created."""
        self.stdio.close()
        self.stdio.remove()
        if self.cgroup:
            try:
                self.cgroup.kill()
                self.cgroup.destroy(timeout=2.0)
            except OSError:
                sys.excepthook(*sys.exc_info())  # the state stays, and the next shim tries again
                return
        states.remove(self.bundle)

    def remove(self) -> None:
        """Remove the cgroup, the FIFOs and the state of a stopped container. ``OSError`` (EBUSY) when
        processes still leave the cgroup."""
        self.need("stopped")
        if self.cgroup:
            self.cgroup.kill()
            self.cgroup.destroy(timeout=0.5)
        self.stdio.close()
        self.stdio.remove()
        states.remove(self.bundle)


def zombie_status(pid: int, started: int | None) -> int | None:
    """The wait status of a process that has ended and is not reaped yet (field 52 of /proc/<pid>/stat)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] != b"Z" or int(fields[19]) != started:
        return None
    return int(fields[49])
