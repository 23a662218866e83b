"""What clients may ask of the shim: one method an operation, ``op_<name>(request)``.

A method returns the answer's value, or ``LATER`` when it has kept the request to answer it itself.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.runtime.cgroups import Mode
from orchestra.runtime.shim_birth import Birth, Entry, Over
from orchestra.runtime.shim_container import Container
from orchestra.runtime.shim_errors import StateError, to_data
from orchestra.runtime.shim_exec import Collector, Exec
from orchestra.runtime.shim_keeper import Keeper
from orchestra.runtime.shim_loop import READ, Loop
from orchestra.runtime.shim_peer import Peer, Request

LATER = object()
_KEPT_EXECS = 1000
_TIMED_OUT = -1


class Operations:
    """All state of the shim: its containers and further processes."""

    def __init__(
        self,
        loop: Loop,
        project: str,
        bundles: str,
        mode: Mode,
        keeper: Keeper,
        tell: Callable[[dict[str, object]], None],
        peers: Callable[[], list[Peer]],
    ) -> None:
        self.loop = loop
        self.project = project
        self.bundles = bundles
        self.mode = mode
        self.keeper = keeper
        self.tell = tell
        self.containers: dict[str, Container] = {}
        self.execs: dict[str, Exec] = {}
        self._count = 0
        self.births: dict[str, Birth] = {}
        self.entries: set[Entry] = set()
        self._fresh: list[Birth] = []
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def handle(self, request: Request) -> None:
        method = getattr(self, f"op_{request.op}", None)
        if method is None:
            raise OrchestraError(f"the shim knows no operation {request.op!r}")
        value = method(request)
        if value is not LATER:
            request.reply(value)

    def busy(self) -> bool:
        return bool(self.births or self.entries) or any(
            container.alive for container in self.containers.values()
        )

    def children(self) -> set[int]:
        """Pids that a pidfd of ours watches."""
        found = {container.pid for container in self.containers.values() if container.pidfd >= 0}
        found.update(process.pid for process in self.execs.values() if process.code is None)
        found.update(birth.pid for birth in self.births.values())
        return found

    def happened(self, kind: str, container: Container) -> None:
        state = container.state
        event: dict[str, object] = {"type": kind, "id": container.id, "at": time.time()}
        if kind == "exit":
            event |= {key: state[key] for key in ("exit_code", "exit_signal", "oom", "lost")}
            event["at"] = state["finished_at"]
        self.tell(event)

    def find(self, request: Request) -> Container:
        name = request.args["id"]
        if name not in self.containers:
            raise NotFoundError(f"no container {name} in this shim")
        return self.containers[name]

    # The shim itself

    def op_hello(self, request: Request) -> dict[str, object]:
        return {"pid": os.getpid(), "project": self.project, "cgroups": self.mode.describe()}

    def op_events(self, request: Request) -> object:
        request.reply(True)
        request.peer.listening = True
        request.peer.kinds = tuple(request.args.get("types") or ())
        return LATER

    # Life of a container

    def op_create(self, request: Request) -> object:
        name = request.args["id"]
        if name in self.containers or name in self.births:
            old = self.containers.get(name)
            raise StateError(name, old.status if old else "being created")
        args = request.args
        state: dict[str, Any] = {
            "id": name,
            "project": self.project,
            "bundle": args["bundle"],
            "pid": 0,
            "start_time": None,
            "status": "creating",
            "exit_code": None,
            "exit_signal": None,
            "oom": False,
            "lost": False,
            "created_at": time.time(),
            "started_at": None,
            "finished_at": None,
            "shim_pid": os.getpid(),
            "cgroup": args.get("cgroup_path"),
            "log": args.get("log"),
            "tty": False,
            "stdin_open": bool(args.get("stdin_open")),
            "warnings": [],
        }
        container = Container(self.loop, self.mode, state, self.keeper, self.happened)

        def over(problem: BaseException | None) -> None:
            self.births.pop(name, None)
            if problem is None:
                self.containers[name] = container
                request.reply({"pid": container.pid, "warnings": state["warnings"]})
                self.happened("create", container)
            else:
                request.fail(problem)

        birth = self.births[name] = Birth(container, self._open_files, over)
        self._fresh.append(birth)
        birth.begin()
        return LATER

    def attach_fresh(self) -> None:
        """Once a round, all clones and then the rest of it: see ``Prepared``."""
        fresh, self._fresh = self._fresh, []
        for birth in fresh:
            birth.launch()
        for birth in fresh:
            birth.attach()

    def op_start(self, request: Request) -> object:
        def over(problem: BaseException | None) -> None:
            if problem is None:
                request.reply(True)
            else:
                request.fail(problem)

        self._start(self.find(request), over)
        return LATER

    def op_start_all(self, request: Request) -> object:
        """Each on its own: {id: None or the error}."""
        found: dict[str, object] = {}
        names = list(dict.fromkeys(request.args["ids"]))

        def over(name: str, problem: BaseException | None) -> None:
            found[name] = to_data(problem) if problem else None
            if len(found) == len(names):
                request.reply(found)

        if not names:
            request.reply(found)
        for name in names:
            container = self.containers.get(name)
            if container is None:
                over(name, NotFoundError(f"no container {name} in this shim"))
                continue
            self._start(container, lambda problem, name=name: over(name, problem))  # type: ignore[misc]
        return LATER

    def _start(self, container: Container, over: Over) -> None:
        """Tell the init to go on; ``over`` when its program runs or could not be run."""
        created = container.created
        if container.status != "created" or created is None:
            over(
                StateError(
                    container.id,
                    "created by a shim that is gone" if container.status == "created" else container.status,
                    ("created",),
                )
            )
            return
        container.created = None

        def finish(_mask: int) -> None:
            container.starting = None
            self.loop.drop(created.fileno())
            try:
                created.start_finish()
            except Exception as problem:
                container.start_error = problem
                over(problem)
                return
            container.save(status="running", started_at=time.time())
            self.happened("start", container)
            over(None)

        container.starting = finish
        self.loop.add(created.fileno(), READ, finish)
        created.start_begin()

    def op_wait(self, request: Request) -> object:
        container = self.find(request)
        if not container.alive:
            return container.state
        container.waiters.append(request.reply)
        return LATER

    def op_delete(self, request: Request) -> object:
        """A container that was only created is killed first; a running one is refused."""
        container = self.find(request)
        if container.status == "created":
            container.signal(signal.SIGKILL, everyone=False)
            container.waiters.append(lambda state: self._delete(container, request, time.monotonic() + 10))
            return LATER
        self._delete(container, request, time.monotonic() + 10)
        return LATER

    def _delete(self, container: Container, request: Request, deadline: float) -> None:
        try:
            container.remove()
        except OSError as problem:
            if time.monotonic() < deadline:
                self.loop.after(0.05, lambda: self._delete(container, request, deadline))
            else:
                request.fail(problem)
            return
        except Exception as problem:
            request.fail(problem)
            return
        self.containers.pop(container.id, None)
        request.reply(True)
        self.happened("delete", container)

    def op_signal(self, request: Request) -> bool:
        self.find(request).signal(int(request.args["number"]), everyone=bool(request.args.get("all")))
        return True

    def op_pause(self, request: Request) -> bool:
        self.find(request).pause()
        return True

    def op_resume(self, request: Request) -> bool:
        self.find(request).resume()
        return True

    def op_update(self, request: Request) -> list[str]:
        container = self.find(request)
        container.need("created", "running", "paused")
        return container._group().update(request.args["resources"])

    # Looking

    def op_state(self, request: Request) -> dict[str, Any]:
        return self.find(request).state

    def op_list(self, request: Request) -> list[dict[str, Any]]:
        return [container.state for container in self.containers.values()]

    def op_stats(self, request: Request) -> dict[str, Any]:
        container = self.find(request)
        container.need("created", "running", "paused")
        return container._group().stats()

    def op_pids(self, request: Request) -> list[int]:
        container = self.find(request)
        if not container.alive:
            return []
        return container.cgroup.pids() if container.cgroup else [container.pid]

    # Input and output

    def op_attach(self, request: Request) -> object:
        container = self.find(request)
        container.need("created", "running", "paused")
        names, fds = container.stdio.attach(wait=bool(request.args.get("wait")))
        request.reply({"names": names, "tty": container.stdio.master >= 0}, fds)
        return LATER

    def op_resize(self, request: Request) -> bool:
        self.find(request).stdio.resize(int(request.args["rows"]), int(request.args["columns"]))
        return True

    def op_close_stdin(self, request: Request) -> bool:
        container = self.find(request)
        container.stdio.close_stdin()
        if not container.state.get("tty"):
            self.keeper.drop(container.id)
        return True

    # Further processes

    def op_exec(self, request: Request) -> object:
        size = request.args.get("size")

        def over(process: Exec | None, problem: BaseException | None) -> None:
            if process is None:
                request.fail(problem or RuntimeError("no process"))
                return
            self._keep(process)
            request.reply(
                {"exec": process.name, "pid": process.pid},
                [os.dup(process.master)] if process.master >= 0 else [],
            )

        self._enter(
            request,
            over,
            fds=request.fds,
            tty=bool(request.args.get("tty")),
            size=tuple(size) if size else None,
        )
        return LATER

    def op_exec_run(self, request: Request) -> object:
        collector = Collector(self.loop, int(request.args.get("limit") or 65536))
        timeout = request.args.get("timeout")
        late: list[bool] = []

        def stop(process: Exec) -> None:
            if process.code is None:
                late.append(True)
                process.kill_group()

        def ended(process: Exec, code: int) -> None:
            self.execs.pop(process.name, None)
            request.reply(
                {"code": _TIMED_OUT if late else code, "output": collector.finish().decode("latin-1")}
            )

        def over(process: Exec | None, problem: BaseException | None) -> None:
            if process is None:
                collector.finish()
                request.fail(problem or RuntimeError("no process"))
                return
            self._keep(process)
            process.wait(lambda code: ended(process, code))
            if timeout:
                self.loop.after(float(timeout), lambda: stop(process))

        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._enter(request, over, fds=[null, collector.writer, collector.writer], tty=False, size=None)
        except BaseException:
            collector.finish()
            raise
        finally:
            os.close(null)
        collector.close_writer()
        return LATER

    def _enter(
        self,
        request: Request,
        over: Callable[[Exec | None, BaseException | None], None],
        *,
        fds: list[int],
        tty: bool,
        size: tuple[int, int] | None,
    ) -> None:
        container = self.find(request)
        container.need("running")
        self._count += 1
        name = f"{container.id}.{os.getpid()}.{self._count}"

        def done(process: Exec | None, problem: BaseException | None) -> None:
            self.entries.discard(entry)
            over(process, problem)

        entry = Entry(container, name, done)
        entry.begin(request.args["process"], fds=fds, tty=tty, size=size, open_files=self._open_files)
        self.entries.add(entry)

    def op_exec_wait(self, request: Request) -> object:
        self._exec(request).wait(request.reply)
        return LATER

    def op_exec_signal(self, request: Request) -> bool:
        self._exec(request).signal(int(request.args["number"]))
        return True

    def op_exec_resize(self, request: Request) -> bool:
        self._exec(request).resize(int(request.args["rows"]), int(request.args["columns"]))
        return True

    def _exec(self, request: Request) -> Exec:
        found = self.execs.get(request.args["exec"])
        if found is None:
            raise NotFoundError(f"no process {request.args['exec']} in this shim")
        return found

    def _keep(self, process: Exec) -> None:
        self.execs[process.name] = process
        process.wait(
            lambda code: self.tell(
                {
                    "type": "exec_exit",
                    "id": process.container,
                    "exec": process.name,
                    "exit_code": code,
                    "at": time.time(),
                }
            )
        )
        if len(self.execs) > _KEPT_EXECS:
            for name in [name for name, old in self.execs.items() if old.code is not None][
                : _KEPT_EXECS // 2
            ]:
                del self.execs[name]
