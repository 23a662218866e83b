"""How the shim makes a container, and a further process in one.

Every side effect is undone when a later one fails: log and FIFOs closed, cgroup killed and removed.
What the shim changed for itself (its OOM protection, its limit of open files) does not pass on to
containers: unless the config says otherwise they get what the shim was started with.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

from orchestra.linux import procfs
from orchestra.runtime.cgroups import manager
from orchestra.runtime.cgroups.base import Recipe
from orchestra.runtime.create import Options, Pending, Prepared, prepare
from orchestra.runtime.exec import PendingExec, exec_begin
from orchestra.runtime.shim_container import Container
from orchestra.runtime.shim_exec import Exec
from orchestra.runtime.shim_loop import READ
from orchestra.runtime.shim_wire import close

Config = dict[str, Any]
Over = Callable[[BaseException | None], None]


class Birth:
    """One container on its way: ``begin``; ``launch`` and ``attach``, each for all of a burst; then by
    itself. It keeps the container's stdio until then, as it may have to start over. ``pid`` is 0 until its process exists."""

    def __init__(self, container: Container, open_files: tuple[int, int], over: Over) -> None:
        self.container = container
        self.open_files = open_files
        self.over = over
        self.pid = 0
        self._prepared: Prepared | None = None
        self._stdio: tuple[int, ...] = ()
        self._pending: Pending | None = None

    def begin(self) -> None:
        """``over`` is called once, now or later: with None when it is created, else with the error."""
        try:
            self._prepare()
        except Exception as problem:
            self._failed(problem)

    def launch(self) -> None:
        """Its process exists afterwards, unless something has failed."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            return
        try:
            self._pending = prepared.launch()
            self.pid = self._pending.pid
            if not self._pending.quick:
                self.container.open_log()
        except Exception as problem:
            self._failed(problem)

    def attach(self) -> None:
        """Into its cgroup where it does not go by itself (version 1: the first of a burst waits for the
        kernel)."""
        if self._pending:
            try:
                self.container.loop.add(self._pending.fileno(), READ, self._step)
                self._pending.attach()
            except Exception as problem:
                self._failed(problem)

    def _prepare(self) -> None:
        container = self.container
        config = container.config()
        process = config.get("process") or {}
        container.state["tty"] = bool(process.get("terminal"))
        inherit(process, self.open_files)
        recipe = self._cgroup(config)
        if container.state["tty"]:
            given = null_stdio()
        else:
            given = container.stdio.open(stdin_open=container.state["stdin_open"])
        self._stdio = given
        self._prepared = prepare(
            config,
            container_id=container.id,
            bundle=container.bundle,
            stdio=(given[0], given[1], given[2]),
            cgroups=container.cgroup,
            options=Options(warn=container.state["warnings"].append, files=container.log_files()),
            recipe=recipe,
        )

    def _step(self, _mask: int) -> None:
        assert self._pending
        container, number = self.container, self._pending.fileno()
        try:
            done = self._pending.step()
            if self._pending.fileno() != number:
                container.loop.drop(number)
                container.loop.add(self._pending.fileno(), READ, self._step)
                self.pid = self._pending.pid
                container.open_log()  # before it may say anything
            if done:
                self._complete(self._pending)
        except Exception as problem:
            self._failed(problem)

    def _complete(self, pending: Pending) -> None:
        container = self.container
        container.loop.drop(pending.fileno())
        created = pending.finish()
        close(self._stdio)
        self._stdio = ()
        container.created = created
        container.open_log()
        if created.master >= 0:
            container.stdio.terminal(created.master)
            container.keeper.keep(container.id, created.master)
        elif container.stdio.stdin >= 0:
            container.keeper.keep(container.id, container.stdio.stdin)
        container.save(status="created", pid=created.pid, start_time=procfs.start_time(created.pid))
        container.supervise(created.pidfd, new=True)
        self._pending = None
        self.over(None)

    def _cgroup(self, config: Config) -> Recipe | None:
        """Made, or the recipe for it. The path is on disk before: whoever finds it after a crash knows what to
        remove."""
        container = self.container
        linux = config.get("linux") or {}
        path = container.state.get("cgroup") or linux.get("cgroupsPath")
        if not path:
            return None
        resources = linux.get("resources") or {}
        container.cgroup = manager(path, container.mode)
        container.save(cgroup=path)
        recipe = container.cgroup.recipe(resources)
        if recipe is None:
            container.state["warnings"] += container.cgroup.create(resources)
        return recipe

    def _failed(self, problem: BaseException) -> None:
        """Undo all. ``Pending`` has killed its process already when the error is its own."""
        container = self.container
        close(self._stdio)
        self._stdio = ()
        pending, self._pending = self._pending, None
        if pending:
            container.loop.drop_all(self)
            pending.abort()
        container.discard()
        self.over(problem)


def null_stdio() -> tuple[int, int, int]:
    return (
        os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC),
        os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC),
        os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC),
    )


def inherit(process: Config, open_files: tuple[int, int]) -> None:
    """Undo in ``process`` what the shim did to itself."""
    if process.get("oomScoreAdj") is None:
        process["oomScoreAdj"] = 0
    limits = list(process.get("rlimits") or ())
    if not any(entry.get("type") == "RLIMIT_NOFILE" for entry in limits):
        hard = min(open_files[1], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limits.append({"type": "RLIMIT_NOFILE", "soft": min(open_files[0], hard), "hard": hard})
    process["rlimits"] = limits


class Entry:
    """A further process on its way into a container. ``over`` gets it (with ``master`` set where it has a
    terminal) or the error, once and later."""

    def __init__(
        self, container: Container, name: str, over: Callable[[Exec | None, BaseException | None], None]
    ) -> None:
        self.container = container
        self.name = name
        self.over = over
        self._pending: PendingExec | None = None

    def begin(
        self,
        process: Config,
        *,
        fds: list[int],
        tty: bool,
        size: tuple[int, int] | None,
        open_files: tuple[int, int],
    ) -> None:
        """``fds`` (stdin, stdout, stderr; else /dev/null) are the caller's to close afterwards. Raises
        what can be known at once."""
        container = self.container
        process = {**process, "terminal": tty}
        if tty and size:
            process["consoleSize"] = {"height": size[0], "width": size[1]}
        inherit(process, open_files)
        given: tuple[int, ...] = () if len(fds) >= 3 and not tty else null_stdio()
        stdio = given or tuple(fds)
        group = container.cgroup.fds_for_clone() if container.cgroup else None
        places = container.cgroup.dirs() if container.cgroup and group is None else []
        try:
            self._pending = exec_begin(
                container.config(),
                container.pid,
                process,
                pidfd=container.pidfd,
                stdio=(stdio[0], stdio[1], stdio[2]),
                cgroup_dirs=places,
                cgroup_fd=group,
            )
        finally:
            close(given)
            if group is not None:
                os.close(group)
        container.loop.add(self._pending.fileno(), READ, self._step)

    def _step(self, _mask: int) -> None:
        pending = self._pending
        assert pending
        number = pending.fileno()
        try:
            done = pending.step()
        except Exception as problem:
            self.container.loop.drop(number)
            self.over(None, problem)
            return
        if pending.fileno() != number and not done:
            self.container.loop.drop(number)
            self.container.loop.add(pending.fileno(), READ, self._step)
        if done:
            self.container.loop.drop(number)
            found = Exec(self.container.loop, self.name, self.container.id, pending.pid, pending.pidfd)
            found.master = pending.master
            self.over(found, None)
