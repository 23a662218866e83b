"""The command's side of the daemon's socket; starts the daemon when none answers.

Cheap to import: every verb that only asks something loads nothing heavier than json and socket.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from orchestra.controller.wire import Wire
from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from orchestra.paths import Paths

PATIENCE = 60.0  # seconds for a daemon to come up

OnProgress: TypeAlias = "Callable[[dict[str, Any]], None]"


class Client:
    """Calls of one engine's daemon. Each call is a connection of its own."""

    def __init__(self, paths: Paths, environ: dict[str, str]) -> None:
        self.paths, self.environ = paths, environ

    # calls

    def call(
        self,
        op: str,
        args: dict[str, Any] | None = None,
        *,
        progress: OnProgress | None = None,
        fds: Iterable[int] = (),
        start: bool = True,
    ) -> Any:
        """The result of ``op``. Raises what the daemon raised, as an OrchestraError."""
        for kind, payload in self.stream(op, args, fds=fds, start=start):
            if kind == "result":
                return payload
            if kind == "progress" and progress is not None:
                progress(payload)
        raise OrchestraError(
            "the daemon went away in the middle of the command",
            hint=f"see {self.paths.run_text}/daemon.log, then give the command again",
        )

    def stream(
        self, op: str, args: dict[str, Any] | None = None, *, fds: Iterable[int] = (), start: bool = True
    ) -> Iterator[tuple[str, Any]]:
        """Pairs (progress | data | result, payload). Closing the iterator ends the operation."""
        numbers = list(fds)
        for attempt in range(3):
            heard = False
            for item in self._stream(op, args, numbers, start=start):
                heard = True
                yield item
            if heard or attempt == 2:
                return  # not a word came: that daemon was just leaving, the next one answers

    def _stream(
        self, op: str, args: dict[str, Any] | None, fds: list[int], *, start: bool
    ) -> Iterator[tuple[str, Any]]:
        wire = self.open(op, args, fds=fds, start=start)
        try:
            while True:
                try:
                    message = wire.receive()
                except ConnectionResetError:
                    return
                if message is None:
                    return
                if "error" in message:
                    raise OrchestraError.from_dict(message["error"])
                for kind in ("progress", "data", "result"):
                    if kind in message:
                        yield kind, message[kind]
                        if kind == "result":
                            return
        finally:
            wire.close()

    def open(
        self, op: str, args: dict[str, Any] | None = None, *, fds: Iterable[int] = (), start: bool = True
    ) -> Wire:
        """A connection on which ``op`` was asked for."""
        numbers = list(fds)
        for _ in range(3):
            wire = Wire(self._connect(start=start))
            try:
                wire.send({"op": op, "args": args or {}}, numbers)
            except (BrokenPipeError, ConnectionResetError):
                wire.close()  # the daemon was just leaving: the next one answers
                continue
            return wire
        raise self._deaf()

    def ask(
        self, op: str, args: dict[str, Any] | None = None, *, fds: Iterable[int] = ()
    ) -> tuple[Wire, dict[str, Any] | None]:
        """A connection on which ``op`` was asked for, and the first answer (None: the daemon is gone). A daemon
        that leaves with the request unread has not begun it (unix(7): then the connection is reset): the next
        one is asked."""
        numbers = list(fds)
        for _ in range(3):
            wire = self.open(op, args, fds=numbers)
            try:
                return wire, wire.receive()
            except ConnectionResetError:
                wire.close()
        raise self._deaf()

    def _deaf(self) -> OrchestraError:
        return OrchestraError(
            "the daemon does not take requests", hint=f"see {self.paths.run_text}/daemon.log"
        )

    def alive(self) -> bool:
        """Whether a daemon answers now."""
        sock = self._try()
        if sock is None:
            return False
        sock.close()
        return True

    # the daemon

    def _try(self) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.connect(_short(f"{self.paths.run_text}/daemon.sock"))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return None
        except PermissionError as error:
            sock.close()
            raise OrchestraError(
                f"not allowed to reach the daemon at {self.paths.run_text}/daemon.sock",
                hint="run the command as the owner of the engine (root), or set ORCHESTRA_ROOT",
            ) from error
        return sock

    def _connect(self, *, start: bool) -> socket.socket:
        sock = self._try()
        if sock is not None:
            return sock
        if not start:
            raise DaemonAbsent("no daemon runs")
        return self._start()

    def _start(self) -> socket.socket:
        if os.geteuid() != 0:
            raise OrchestraError(
                "containers need root: user namespaces for plain users are not supported yet",
                hint="run the command with sudo",
            )
        try:
            self.paths.make()
        except OSError as error:
            raise OrchestraError(
                f"cannot make the state directories: {error.strerror}: {error.filename}"
            ) from error
        pid = _spawn(self.paths, self.environ)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            sock = self._try()
            if sock is not None:
                return sock
            if _ended(pid) and not _locked(self.paths):
                sock = self._try()
                if sock is not None:
                    return sock
                break
            select.select([], [], [], 0.004)
        raise OrchestraError(
            "the daemon did not start",
            details=_tail(f"{self.paths.run_text}/daemon.log"),
            hint=f"its log is {self.paths.run_text}/daemon.log",
        )


class DaemonAbsent(OrchestraError):
    """Asked without starting one, and there is none."""


def _spawn(paths: Paths, environ: dict[str, str]) -> int:
    """Start ``orchestrad`` in a session of its own; returns the pid of the process started."""
    command = [
        sys.executable,
        "-I",
        "-m",
        "orchestra.controller.daemon",
        paths.lib_text,
        paths.run_text,
        paths.name,
    ]
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program = f"import sys; sys.path.insert(0, {package_root!r}); from orchestra.controller.daemon import main; main(sys.argv[1:])"
    command[2:4] = ["-c", program]
    log = os.open(
        f"{paths.run_text}/daemon.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ]
        return os.posix_spawn(
            command[0],
            command,
            {**environ, "ORCHESTRA_DAEMON": "1"},
            file_actions=actions,
            setsid=True,
            setsigmask=[],
        )
    finally:
        os.close(log)
        os.close(null)


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _locked(paths: Paths) -> bool:
    """Whether some daemon holds the lock (and so will answer soon)."""
    try:
        fd = os.open(f"{paths.run_text}/daemon.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _short(path: str) -> str:
    """A socket's path may have 107 bytes: longer ones go through /proc/self/fd of their folder."""
    if len(os.fsencode(path)) < 100:
        return path
    folder, name = os.path.split(path)
    try:
        fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return path[:100]
    return f"/proc/self/fd/{fd}/{name}"


def _tail(path: str) -> tuple[str, ...]:
    try:
        with open(path, errors="replace") as stream:
            return tuple(line.rstrip("\n") for line in stream.readlines()[-6:])
    except OSError:
        return ()
