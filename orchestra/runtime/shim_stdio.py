"""Standard input and output of one container, as the shim holds them.

Without a terminal the streams are FIFOs in the bundle (``stdin stdout stderr``), which a later shim
can open again. The container's ends of stdout and stderr are opened for reading too: so a writer is
never killed by SIGPIPE while no shim lives; it waits when the FIFO (1 MiB) is full. With a terminal
the shim holds the master. A master, and the end of an input that stays open, are with the keeper, too.

Every byte goes to the log and to each attached client. A slow client loses output beyond its queue
(``wait=False``) or holds the container's output back (``wait=True``); it never holds back the others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from collections import deque

from orchestra.runtime.logfile import STDERR, STDOUT, Writer
from orchestra.runtime.shim_loop import HANGUP, READ, WRITE, Loop

_PIPE_SIZE = 1 << 20
_QUEUE = 4 << 20
_BUFFER = memoryview(bytearray(256 << 10))
_DRAIN = 64  # buffers read after the end; more than two full FIFOs
NAMES = {0: "stdin", STDOUT: "stdout", STDERR: "stderr"}


class Stdio:
    """``open`` gives the container's three fds; ``adopt`` takes the FIFOs of a dead shim over."""

    def __init__(self, loop: Loop, bundle: str, writer: Writer | None) -> None:
        self.loop = loop
        self.bundle = bundle
        self.writer = writer
        self.sources: dict[int, int] = {}  # stream → fd read here
        self.stdin = -1
        self.master = -1
        self.sinks: list[Sink] = []
        self._held = False

    def open(self, *, stdin_open: bool) -> tuple[int, int, int]:
        """The container's (stdin, stdout, stderr); the caller closes them after the fork."""
        given: list[int] = []
        try:
            given.append(
                self._open_stdin() if stdin_open else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            )
            for stream in (STDOUT, STDERR):
                path = self._make(stream)
                given.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
                self._listen(stream, path)
        except BaseException:
            for fd in given:
                os.close(fd)
            self.close()
            raise
        return given[0], given[1], given[2]

    def adopt(self, stdin: int = -1) -> None:
        """``stdin`` is the end of the container's input that the keeper held, if it did."""
        for stream in (STDOUT, STDERR):
            path = f"{self.bundle}/{NAMES[stream]}"
            if os.path.exists(path):
                self._listen(stream, path)
        self.stdin = stdin

    def terminal(self, master: int) -> None:
        """Take the master of the container's terminal."""
        os.set_blocking(master, False)
        self.master = master
        self.sources[STDOUT] = master
        self.loop.add(master, READ, lambda mask: self._pump(STDOUT))

    def resize(self, rows: int, columns: int) -> None:
        if self.master < 0:
            raise OSError(errno.ENOTTY, "the container has no terminal")
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attach(self, *, wait: bool) -> tuple[dict[str, int], list[int]]:
        """({name: position among the fds}, fds to hand out; the caller closes its copies)."""
        names: dict[str, int] = {}
        fds: list[int] = []
        for stream in sorted(self.sources):
            reader, target = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(target, False)
            self.sinks.append(Sink(self, stream, target, wait=wait))
            names[NAMES[stream]] = len(fds)
            fds.append(reader)
        if self.master >= 0:
            names["stdin"] = len(fds)
            fds.append(os.dup(self.master))
        elif self.stdin >= 0:
            names["stdin"] = len(fds)
            fds.append(os.open(f"{self.bundle}/stdin", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            os.set_blocking(fds[-1], True)
        return names, fds

    def close_stdin(self) -> None:
        """The container reads end of file once no attached client holds its stdin either."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def drain(self) -> None:
        """Take what is left after the last process ended, then close; clients get the rest and the end."""
        for stream in list(self.sources):
            for _ in range(_DRAIN):
                if stream not in self.sources or not self._once(stream):
                    break
        self.close()

    def close(self) -> None:
        for stream in list(self.sources):
            self._end(stream)
        self.close_stdin()
        for sink in list(self.sinks):
            sink.finish()
        if self.writer:
            self.writer.close()
            self.writer = None

    def remove(self) -> None:
        """Delete the FIFOs."""
        for name in NAMES.values():
            try:
                os.unlink(f"{self.bundle}/{name}")
            except FileNotFoundError:
                continue

    def balance(self) -> None:
        """Stop reading while a waiting client is full, read on when it is not."""
        held = any(sink.wait and sink.queued > _QUEUE for sink in self.sinks)
        if held != self._held:
            self._held = held
            for fd in self.sources.values():
                self.loop.change(fd, 0 if held else READ)

    def _make(self, stream: int) -> str:
        path = f"{self.bundle}/{NAMES[stream]}"
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            os.unlink(path)
            os.mkfifo(path, 0o600)
        os.chmod(path, 0o666)  # /dev/stdout is opened again by unprivileged users; the bundle is private
        return path

    def _open_stdin(self) -> int:
        path = self._make(0)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.stdin = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        return reader

    def _listen(self, stream: int, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # the user's pipe budget is used up: the default size works too
        self.sources[stream] = fd
        self.loop.add(fd, READ, lambda mask: self._pump(stream))

    def _pump(self, stream: int) -> None:
        for _ in range(4):  # then others get their turn
            if self._held or stream not in self.sources or not self._once(stream):
                return

    def _once(self, stream: int) -> bool:
        """Read one buffer and hand it on; False when there is nothing now."""
        try:
            count = os.readv(self.sources[stream], [_BUFFER])
        except BlockingIOError:
            return False
        except OSError:
            count = 0  # EIO: the terminal's last user is gone
        if not count:
            self._end(stream)
            return False
        data = _BUFFER[:count]
        if self.writer:
            self.writer.write(stream, data)
        if self.sinks:
            for sink in list(self.sinks):
                if sink.stream == stream:
                    sink.feed(data)
            self.balance()
        return count == len(_BUFFER)

    def _end(self, stream: int) -> None:
        fd = self.sources.pop(stream)
        self.loop.drop(fd)
        os.close(fd)
        if fd == self.master:
            self.master = -1
        for sink in list(self.sinks):
            if sink.stream == stream:
                sink.finish()


class Sink:
    """One stream to one attached client, through a pipe with a bounded queue before it."""

    def __init__(self, owner: Stdio, stream: int, fd: int, *, wait: bool) -> None:
        self.owner = owner
        self.stream = stream
        self.fd = fd
        self.wait = wait
        self.queued = 0
        self._queue: deque[memoryview] = deque()
        self._ending = False
        owner.loop.add(fd, 0, self._ready)

    def feed(self, data: memoryview) -> None:
        if not self._queue:
            data = self._send(data)
            if not data or self.fd < 0:
                return
        elif self.queued > _QUEUE and not self.wait:
            return  # too slow: this piece is lost to this client
        if not self._queue:
            self.owner.loop.change(self.fd, WRITE)
        self._queue.append(memoryview(bytes(data)))
        self.queued += len(data)

    def finish(self) -> None:
        """Send what is queued, then the end."""
        self._ending = True
        if not self._queue:
            self._close()

    def _send(self, data: memoryview) -> memoryview:
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
        return data

    def _ready(self, mask: int) -> None:
        if mask & HANGUP:
            self._close()
            return
        while self._queue:
            head = self._queue.popleft()
            rest = self._send(head)
            self.queued -= len(head) - len(rest)
            if self.fd < 0:
                return
            if rest:
                self._queue.appendleft(rest)
                break
        if not self._queue:
            self.owner.loop.change(self.fd, 0)
            if self._ending:
                self._close()
        self.owner.balance()

    def _close(self) -> None:
        if self.fd < 0:
            return
        self.owner.loop.drop(self.fd)
        os.close(self.fd)
        self.fd = -1
        self._queue.clear()
        self.queued = 0
        if self in self.owner.sinks:
            self.owner.sinks.remove(self)
        self.owner.balance()
