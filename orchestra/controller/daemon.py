"""``orchestrad``: the long-running process that owns the engine.

Started by the first command that needs it, it leaves by itself when nothing runs and nobody asked
for anything for a while (``ORCHESTRA_IDLE`` seconds, 10 by default). One thread a connection: the
work is blocking system calls, and a thread costs less than a round through an event loop.
``kill -9`` at any moment is fine: containers run on, and the next daemon adopts what it finds.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

from orchestra.controller.wire import Wire
from orchestra.errors import OrchestraError
from orchestra.paths import Paths

IDLE = 10.0
PATIENCE = 15.0  # seconds that operations under way get when the daemon is told to end
LOG_LIMIT = 1 << 20


class Daemon:
    """The socket, its connections and the decision to leave."""

    def __init__(self, paths: Paths, lock: int, idle: float) -> None:
        self.paths, self.lock, self.idle = paths, lock, idle
        self.active = 0
        self.last = time.monotonic()
        self.guard = threading.Lock()
        self.ending = False
        # most of the program: loaded when ``main`` has made collections rare
        from orchestra.controller.api import Api

        self.api = Api(paths)

    def serve(self) -> None:
        """Until idle, or told to end."""
        path = str(self.paths.socket)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        _unlink(path)
        _bind(listener, self.paths.socket)
        os.chmod(path, 0o600)
        listener.listen(128)
        listener.settimeout(min(1.0, self.idle / 4 or 0.1))
        self.api.begin()
        gc.freeze()  # what is there by now stays: no collection looks at it again
        try:
            while not self.ending:
                try:
                    sock, _ = listener.accept()
                except TimeoutError:
                    if self._idle():
                        break
                    continue
                if self.ending:
                    sock.close()  # not a word was read: the client asks the next daemon
                    continue
                sock.settimeout(None)
                self._count(1)
                threading.Thread(
                    target=self._connection, args=(sock,), daemon=True, name="connection"
                ).start()
        finally:
            _unlink(path)
            listener.close()  # who stands in the queue sees the end, and asks the next daemon
            self._let_finish()
            self.api.end()

    def _let_finish(self) -> None:
        """Operations under way come to their end, for a while."""
        deadline = time.monotonic() + PATIENCE
        while self.active > 0 and time.monotonic() < deadline:
            time.sleep(0.02)

    def _count(self, step: int) -> None:
        with self.guard:
            self.active += step
            self.last = time.monotonic()

    def _idle(self) -> bool:
        with self.guard:
            quiet = self.active == 0 and time.monotonic() - self.last > self.idle
        return quiet and not self.api.busy()

    def _connection(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        try:
            if _peer(sock) not in (0, os.geteuid()):
                return
            request = wire.receive()
            if request is None:
                return
            if request.get("op") == "shutdown":
                wire.send({"result": None})
                self.ending = True
                _wake(self.paths.socket)
                return
            self._answer(wire, request)
        except (BrokenPipeError, ConnectionResetError, ValueError, OSError):
            return
        finally:
            for fd in wire.take_fds():
                os.close(fd)
            wire.close()
            self._count(-1)

    def _answer(self, wire: Wire, request: dict[str, object]) -> None:
        try:
            result = self.api.handle(wire, str(request.get("op")), dict(request.get("args") or {}))  # type: ignore[call-overload]
        except OrchestraError as error:
            wire.send({"error": error.to_dict()})
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            traceback.print_exc()
            brief = f"bug in the daemon: {type(error).__name__}: {error}"
            report = OrchestraError(brief, hint=f"please report it with {self.paths.run / 'daemon.log'}")
            wire.send({"error": report.to_dict()})
        else:
            wire.send({"result": result})


def _wake(path: Path) -> None:
    """Make the accepting thread look at ``ending`` now."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(str(path))
        except OSError:
            return


def _peer(sock: socket.socket) -> int:
    """The user id of the other side (SO_PEERCRED, unix(7))."""
    import struct

    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind under a umask that keeps others out; long paths through their folder's descriptor."""
    before = os.umask(0o177)
    try:
        if len(os.fsencode(path)) < 100:
            listener.bind(str(path))
        else:
            folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
            os.close(folder)
    finally:
        os.umask(before)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _take_lock(paths: Paths) -> int | None:
    """The engine's lock, or None when another daemon has it."""
    fd = os.open(paths.run / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + 5
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _answers(paths):
                os.close(fd)
                return None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return fd


def _answers(paths: Paths) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect(str(paths.socket))
        except OSError:
            return False
        return True


def _trim_log(path: Path) -> None:
    try:
        if path.stat().st_size > LOG_LIMIT:
            path.write_bytes(path.read_bytes()[-LOG_LIMIT // 2 :])
    except OSError:
        return


def main(arguments: list[str]) -> None:
    """``lib run name``: serve one engine."""
    lib, run, name = arguments
    paths = Paths(Path(lib), Path(run), name)
    gc.set_threshold(5_000, 20, 20)  # what a start makes, it mostly keeps: there is little to collect
    os.umask(0o022)
    os.chdir("/")
    paths.make()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    lock = _take_lock(paths)
    if lock is None:
        return
    _trim_log(paths.run / "daemon.log")
    daemon = Daemon(paths, lock, float(os.environ.get("ORCHESTRA_IDLE", IDLE)))

    def end(_signal: int, _frame: object) -> None:
        daemon.ending = True

    signal.signal(signal.SIGTERM, end)
    daemon.serve()
    sys.stdout.flush()
    os._exit(0)  # threads that still copy bytes to somebody must not hold us


if __name__ == "__main__":
    main(sys.argv[1:])
