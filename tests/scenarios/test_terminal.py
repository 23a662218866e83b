"""A real terminal: echo, size, keys, detaching, attaching."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest
from support.engine import BIN, PATIENCE, Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


# a shell without line editing, which would talk with the terminal
LOOP = ("sh", "-c", 'trap : INT; echo ready; while read -r line; do eval "$line"; done')


class Terminal:
    """A command on a pseudo terminal."""

    def __init__(self, engine: Engine, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns, slave)
        self.process = subprocess.Popen(
            [BIN, *words], stdin=slave, stdout=slave, stderr=slave, cwd=engine.folder, env={**engine.environ, "TERM": "xterm"}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        engine.started.append(self.process)  # type: ignore[arg-type]
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int, fd: int = -1) -> None:
        fcntl.ioctl(self.master if fd < 0 else fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, text: str) -> None:
        """Wait for it in the output; what came up to it is used up."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    assert text.encode() in self.seen, f"no {text!r} in {self.seen!r}"
                    continue
                self.seen += data
        self.seen = self.seen.partition(text.encode())[2]

    def end(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if select.select([self.master], [], [], 0.1)[0]:
                    os.read(self.master, 65536)
        return self.process.wait(1)


@pytest.fixture
def terminals(engine: Engine) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        os.close(terminal.master)


def test_a_shell_of_its_own(engine: Engine, terminals: list[Terminal]) -> None:
    shell = Terminal(engine, "container", "run", "--rm", "-it", "--name", "shell", "busybox", *LOOP, rows=31, columns=91)
    terminals.append(shell)
    shell.expect("ready")
    shell.type("stty size\n")
    shell.expect("31 91")
    shell.resize(40, 100)
    eventually(lambda: "40 100" in engine.out("container", "exec", "shell", "sh", "-c", "stty size < /dev/console"), what="the new size arrives")
    shell.type("tty; echo a''b\n")
    shell.expect("/dev/pts/0")
    shell.expect("ab")
    shell.type("sleep 1000\n")
    shell.expect("sleep 1000")
    time_to_start = ("container", "exec", "shell", "sh", "-c", "ps | grep -v grep | grep -c 'sleep 1000' || true")
    eventually(lambda: engine.out(*time_to_start).strip() == "1", what="the sleep runs")
    shell.type("\x03")
    eventually(lambda: engine.out(*time_to_start).strip() == "0", what="the interrupt ended it")
    shell.type("exit 5\n")
    assert shell.end() == 5
    assert "shell" not in engine.out("container", "ls", "-a")


def test_detach_and_attach(engine: Engine, terminals: list[Terminal]) -> None:
    first = Terminal(engine, "container", "run", "-it", "--name", "stays", "busybox", *LOOP)
    terminals.append(first)
    first.expect("ready")
    first.type("X=kept; echo s''et\n")
    first.expect("set\r\n")
    first.type("\x10\x11")
    assert first.end() == 0
    assert engine.out("container", "inspect", "-f", "{{.State.Status}}", "stays").strip() == "running"
    second = Terminal(engine, "container", "attach", "stays")
    terminals.append(second)
    second.type("echo =$X=\n")
    second.expect("=kept=")
    inner = Terminal(engine, "container", "exec", "-it", "stays", *LOOP)
    terminals.append(inner)
    inner.expect("ready")
    inner.type("exit 7\n")
    assert inner.end() == 7
    second.type("exit 3\n")
    assert second.end() == 3
    engine.run("container", "rm", "stays")


def test_of_a_project(engine: Engine, terminals: list[Terminal]) -> None:
    engine.write("name: term\nservices:\n  a: {image: busybox, command: sleep 1000, init: true}\n")
    engine.run("up", "-d")
    shell = Terminal(engine, "exec", "a", *LOOP)
    terminals.append(shell)
    shell.expect("ready")
    shell.type("exit 4\n")
    assert shell.end() == 4
    once = Terminal(engine, "run", "--rm", "a", "sh", "-c", "tty && read x && echo got-$x")
    terminals.append(once)
    once.expect("/dev/pts/0")
    once.type("this\n")
    once.expect("got-this")
    assert once.end() == 0
    engine.run("down", "-t", "1")
