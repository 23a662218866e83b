"""The daemon's side of a shim: start it when it is not there, and speak to it.

    client = ensure(paths, "project")            # a running shim, its dead predecessor's containers adopted
    pid = client.create("id", "/run/…/id", log={"path": …}, cgroup_path="/orchestra/project/id")
    client.start("id")

Thread-safe and synchronous: each call takes a connection of its own from a small pool. While a client
object is open, the shim does not leave; ``close()`` it when the project has nothing left.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestra.paths import Paths
from orchestra.runtime import shim_wire as wire
from orchestra.runtime.shim_errors import ShimGone, StateError, from_data

__all__ = ["Attachment", "Nursery", "ShimClient", "ShimGone", "StateError", "ensure", "running"]

_START_PATIENCE = 20.0
_IDLE_LINKS = 8
_ROOM = "-" * 240  # in the nursery's own command line, for that of its shims


class Attachment:
    """Ends of a container's or process' streams, owned by the caller. ``stdout``/``stderr`` are for
    reading (end of file at the container's end), ``stdin`` for writing; -1 where there is none. With a
    terminal ``stdin`` is its master: write input and set the size there, but read from ``stdout``."""

    __slots__ = ("stderr", "stdin", "stdout", "tty")

    def __init__(self, stdin: int, stdout: int, stderr: int, *, tty: bool) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.tty = tty

    def fds(self) -> tuple[int, int, int]:
        return self.stdin, self.stdout, self.stderr

    def close(self) -> None:
        wire.close(self.fds())
        self.stdin = self.stdout = self.stderr = -1


def ensure(paths: Paths, project: str, nursery: Nursery | None = None) -> ShimClient:
    """The project's shim, started if there is none (from ``nursery`` where that lives). ``ShimGone`` when
    it does not come up."""
    place = str(paths.shims / f"{project}.sock")
    deadline = time.monotonic() + _START_PATIENCE
    said = b""
    while True:
        client = _connect(place)
        if client:
            return client
        if time.monotonic() > deadline:
            log = paths.shims / f"{project}.log"
            raise ShimGone(
                f"the shim of project {project} does not start",
                hint=f"see {log}",
                details=(said.decode(errors="replace"),) if said else (),
            )
        said = _spawn(paths, project, place, nursery)
        if said != b"ready":
            time.sleep(0.02)  # another one starts or leaves at this moment


def running(paths: Paths, project: str) -> ShimClient | None:
    """The project's shim if it lives."""
    return _connect(str(paths.shims / f"{project}.sock"))


def _connect(place: str) -> ShimClient | None:
    client = ShimClient(place)
    try:
        client.call("hello")
    except (ShimGone, OSError):
        client.close()
        return None
    return client


def _spawn(paths: Paths, project: str, place: str, nursery: Nursery | None) -> bytes:
    """Start one; what it says: ``ready``, ``taken`` (another holds the lock) or nothing (it failed)."""
    for folder in (paths.shims, paths.bundles):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    log = os.open(
        paths.shims / f"{project}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        options = {
            "project": project,
            "socket": place,
            "lock": str(paths.shims / f"{project}.lock"),
            "bundles": str(paths.bundles),
        }
        if nursery is None or not nursery.fork(options, writer, log):
            launch({**options, "ready": str(writer)}, writer, log)
        os.close(writer)
        writer = -1
        said = b""
        while piece := os.read(reader, 64):
            said += piece
        return said
    finally:
        wire.close([reader, writer, log])


def launch(options: dict[str, str], kept: int, log: int | None) -> None:
    """Run ``shim.py`` with ``options``, in a session of its own; it keeps the fd ``kept``. Returns when it
    has left our tree. ``log`` takes its output (None: where ours goes)."""
    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.py")
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.Popen(
        [sys.executable, "-I", "-S", "-X", "utf8", program, *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        env={},
        close_fds=True,
        pass_fds=(kept,),
        start_new_session=True,
    ).wait()


class Nursery:
    """The daemon's side of a nursery (see ``shim_nursery``). Without one, or when it was killed, shims are
    started the slow way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._link: socket.socket | None = None

    def start(self) -> None:
        """Have one. It is not ready yet when this returns, and need not be."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            launch({"nursery": str(its.fileno()), "room": _ROOM}, its.fileno(), None)
        with self._lock:
            old, self._link = self._link, ours
        if old:
            old.close()

    def fork(self, options: dict[str, str], ready: int, log: int) -> bool:
        """Ask for a shim; False when there is no nursery to ask."""
        with self._lock:
            if self._link is None:
                return False
            try:
                wire.send(self._link, dict(options), (ready, log))
            except OSError:
                self._link.close()
                self._link = None
                return False
        return True

    def close(self) -> None:
        """Let it leave."""
        with self._lock:
            link, self._link = self._link, None
        if link:
            link.close()


class ShimClient:
    """See the module. Errors: ``StepError`` (a container's birth failed at a named step), ``StateError``,
    ``NotFoundError``, ``OSError``, and ``ShimGone`` when the shim has ended: ``ensure`` again then."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._streams: set[socket.socket] = set()
        self._closed = False

    def close(self) -> None:
        """Let go of the shim. Iterators of ``events()`` end, also in other threads."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            streams = list(self._streams)
        for link in idle:
            link.close()
        for link in streams:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def __enter__(self) -> ShimClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Life

    def create(
        self,
        container_id: str,
        bundle: str,
        log: dict[str, Any] | None = None,
        *,
        stdin_open: bool = False,
        cgroup_path: str | None = None,
    ) -> int:
        """Make the container up to the point before its program; its pid in the host. ``cgroup_path``
        defaults to ``linux.cgroupsPath`` of the config; named warnings are in ``state()["warnings"]``."""
        return self.create_with_warnings(
            container_id, bundle, log, stdin_open=stdin_open, cgroup_path=cgroup_path
        )[0]

    def create_with_warnings(
        self,
        container_id: str,
        bundle: str,
        log: dict[str, Any] | None = None,
        *,
        stdin_open: bool = False,
        cgroup_path: str | None = None,
    ) -> tuple[int, list[str]]:
        """``create``, and the named warnings with the pid."""
        answer = self.call(
            "create",
            id=container_id,
            bundle=str(bundle),
            log=log,
            stdin_open=stdin_open,
            cgroup_path=cgroup_path,
        )
        return int(answer["pid"]), list(answer["warnings"])

    def start(self, container_id: str) -> None:
        self.call("start", id=container_id)

    def start_all(self, ids: Sequence[str]) -> dict[str, Exception | None]:
        """Start many in one request; per id None or what went wrong."""
        answer = self.call("start_all", ids=list(ids))
        return {name: from_data(problem) if problem else None for name, problem in answer.items()}

    def wait(self, container_id: str) -> dict[str, Any]:
        """Block until it has stopped; its state."""
        return dict(self.call("wait", id=container_id))

    def signal(self, container_id: str, number: int, *, all: bool = False) -> None:
        self.call("signal", id=container_id, number=int(number), all=all)

    def pause(self, container_id: str) -> None:
        self.call("pause", id=container_id)

    def resume(self, container_id: str) -> None:
        self.call("resume", id=container_id)

    def update(self, container_id: str, resources: dict[str, Any]) -> list[str]:
        """Change limits (OCI ``linux.resources``); named warnings."""
        return list(self.call("update", id=container_id, resources=resources))

    def delete(self, container_id: str) -> None:
        """Forget a stopped (or only created) container: cgroup, FIFOs and state.json go."""
        self.call("delete", id=container_id)

    # Looking

    def state(self, container_id: str) -> dict[str, Any]:
        return dict(self.call("state", id=container_id))

    def list(self) -> list[dict[str, Any]]:
        return list(self.call("list"))

    def stats(self, container_id: str) -> dict[str, Any]:
        return dict(self.call("stats", id=container_id))

    def pids(self, container_id: str) -> Sequence[int]:
        return tuple(self.call("pids", id=container_id))

    def hello(self) -> dict[str, Any]:
        """{"pid", "project", "cgroups"} of the shim."""
        return dict(self.call("hello"))

    def events(self, types: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """All that happens from now on (the subscription stands when this returns), or what is of these types:
        each event wakes the listener. It ends with ``ShimGone`` when the shim does, and quietly when this
        client is closed."""
        link = self._open()
        try:
            self._ask(link, "events", {"types": [*types]} if types else {}, ())
            with self._lock:
                if self._closed:
                    raise ShimGone(f"the client of {self.place} is closed")
                self._streams.add(link)
        except BaseException:
            link.close()
            raise
        return self._listen(link)

    # Input and output

    def attach(self, container_id: str, *, wait: bool = False) -> Attachment:
        """A live copy of the output from now on. A reader that is too slow loses output; with ``wait``
        it holds the container's output back instead."""
        answer, fds = self._call("attach", {"id": container_id, "wait": wait})
        names = answer["names"]
        stdin, stdout, stderr = (
            fds[names[name]] if name in names else -1 for name in ("stdin", "stdout", "stderr")
        )
        return Attachment(stdin, stdout, stderr, tty=bool(answer["tty"]))

    def resize(self, container_id: str, rows: int, columns: int) -> None:
        self.call("resize", id=container_id, rows=rows, columns=columns)

    def close_stdin(self, container_id: str) -> None:
        self.call("close_stdin", id=container_id)

    # Further processes

    def exec(
        self,
        container_id: str,
        process: dict[str, Any],
        *,
        fds: tuple[int, int, int] | None = None,
        tty: bool = False,
        size: tuple[int, int] | None = None,
    ) -> tuple[str, int]:
        """Start a further process: (exec id, master fd or -1). ``process`` is an OCI process object;
        without ``fds`` and ``tty`` it runs on /dev/null. ``size`` is (rows, columns)."""
        answer, given = self._call(
            "exec",
            {"id": container_id, "process": process, "tty": tty, "size": size},
            tuple(fds) if fds and not tty else (),
        )
        return str(answer["exec"]), given[0] if given else -1

    def exec_wait(self, exec_id: str) -> int:
        return int(self.call("exec_wait", exec=exec_id))

    def exec_signal(self, exec_id: str, number: int) -> None:
        self.call("exec_signal", exec=exec_id, number=int(number))

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        self.call("exec_resize", exec=exec_id, rows=rows, columns=columns)

    def exec_run(
        self, container_id: str, process: dict[str, Any], *, timeout: float | None = None, limit: int = 65536
    ) -> tuple[int, bytes]:
        """Run to the end: (code, first ``limit`` bytes of both outputs). Code -1: it was killed after
        ``timeout`` seconds."""
        answer = self.call("exec_run", id=container_id, process=process, timeout=timeout, limit=limit)
        return int(answer["code"]), str(answer["output"]).encode("latin-1")

    # Connections

    def call(self, op: str, **args: Any) -> Any:
        return self._call(op, args)[0]

    def _call(self, op: str, args: dict[str, Any], fds: tuple[int, ...] = ()) -> tuple[Any, Sequence[int]]:
        with self._link() as link:
            return self._ask(link, op, args, fds)

    def _ask(
        self, link: socket.socket, op: str, args: dict[str, Any], fds: tuple[int, ...]
    ) -> tuple[Any, Sequence[int]]:
        try:
            wire.send(link, {"op": op, "args": args}, fds)
            found = wire.receive(link)
        except (ConnectionError, BrokenPipeError):
            found = None
        if found is None:
            raise ShimGone(f"the shim at {self.place} has ended")
        message, given = found
        if "error" in message:
            wire.close(given)
            raise from_data(message["error"])
        return message["ok"], given

    def _listen(self, link: socket.socket) -> Iterator[dict[str, Any]]:
        try:
            while True:
                try:
                    found = wire.receive(link)
                except ConnectionError:
                    found = None
                if found is None:
                    if self._closed:
                        return
                    raise ShimGone(f"the shim at {self.place} has ended")
                yield found[0]["event"]
        finally:
            with self._lock:
                self._streams.discard(link)
            link.close()

    @contextmanager
    def _link(self) -> Iterator[socket.socket]:
        """A connection for one call; one that saw an error of the transport is not used again."""
        with self._lock:
            link = self._idle.pop() if self._idle else None
        link = link or self._open()
        good = False
        try:
            yield link
            good = True
        except ShimGone:
            raise
        except Exception:
            good = True
            raise
        finally:
            with self._lock:
                keep = good and not self._closed and len(self._idle) < _IDLE_LINKS
                if keep:
                    self._idle.append(link)
            if not keep:
                link.close()

    def _open(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with wire.Address(self.place) as address:
                link.connect(address)
        except (FileNotFoundError, ConnectionError):
            link.close()
            raise ShimGone(f"no shim at {self.place}") from None
        except BaseException:
            link.close()
            raise
        return link
