"""Attached up: prefixes, Ctrl-C, abort on exit, exit codes."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

LOOP = "sh -c 'trap \"exit 0\" TERM; echo ready; while true; do sleep 0.1; done'"


class Running:
    """A command whose output is collected while it runs."""

    def __init__(self, engine: Engine, *words: str) -> None:
        self.process = engine.popen(*words)
        self.out: list[str] = []
        self.err: list[str] = []
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line)

    def text(self) -> str:
        return "".join(self.out)

    def wait(self) -> int:
        return self.process.wait(60)


def test_ctrl_c_stops_everything(engine: Engine) -> None:
    engine.write(f"name: att\nservices:\n  a: {{image: busybox, command: \"{LOOP.replace(chr(34), chr(92) + chr(34))}\"}}\n")
    running = Running(engine, "up")
    eventually(lambda: "a-1  | ready" in running.text(), what="the prefixed line")
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert "Gracefully Stopping" in "".join(running.err)
    assert engine.state("att-a-1") == "exited"
    assert "a-1 exited with code 0" in running.text()


def test_a_second_ctrl_c_kills(engine: Engine) -> None:
    engine.write("name: att\nservices:\n  a: {image: busybox, command: sh -c 'trap \"\" TERM; echo ready; while true; do sleep 0.1; done'}\n")
    running = Running(engine, "up")
    eventually(lambda: "ready" in running.text(), what="it runs")
    running.process.send_signal(signal.SIGINT)
    eventually(lambda: "Gracefully" in "".join(running.err), what="it stops gracefully")
    running.process.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert engine.ps()["att-a-1"]["ExitCode"] == 137


def test_abort_and_exit_code_from(engine: Engine) -> None:
    engine.write("""
        name: abort
        services:
          test: {image: busybox, command: sh -c 'sleep 0.5; echo tested; exit 3'}
          db: {image: busybox, command: sleep 1000, init: true}
    """)
    done = engine.run("up", "--exit-code-from", "test", code=3)
    assert "test-1  | tested" in done.stdout
    assert {row["State"] for row in engine.ps().values()} == {"exited"}


def test_it_ends_when_all_have_stopped(engine: Engine) -> None:
    engine.write("""
        name: short
        services:
          out: {image: busybox, command: sh -c 'echo to stdout'}
          err: {image: busybox, command: sh -c 'echo to stderr >&2'}
          quiet: {image: busybox, command: echo hidden, attach: false}
    """)
    done = engine.run("up")
    assert "out-1    | to stdout" in done.stdout or "out-1  | to stdout" in done.stdout
    assert "to stderr" in done.stderr and "to stderr" not in done.stdout
    assert "hidden" not in done.stdout


def test_refused_combinations(engine: Engine, tmp_path: Path) -> None:
    engine.write("name: x\nservices:\n  a: {image: busybox}\n")
    assert "incompatible" in engine.run("up", "--build", "--no-build", code=1).stderr
    assert "cannot be combined" in engine.run("up", "-d", "--attach", "a", code=1).stderr
    del tmp_path


def test_the_input_of_a_service_outlives_who_attaches(engine: Engine) -> None:
    """As with docker: the end of an attached client's input is not the container's. For ``run -i`` it is."""
    engine.write("""
        name: p
        services:
          web: {image: busybox, stdin_open: true, command: cat, stop_grace_period: 0s}
    """)
    engine.run("up", "-d")
    for word in ("one", "two"):
        client = engine.popen("attach", "--sig-proxy=false", "web", stdin=subprocess.PIPE)
        assert client.stdin is not None
        client.stdin.write(word + "\n")
        client.stdin.close()
        eventually(lambda word=word: word in engine.out("logs", "--no-log-prefix", "web").split(), what=f"{word} is read")
        client.kill()
        client.wait(30)
    assert engine.state("p-web-1") == "running"
    assert engine.run("container", "run", "--rm", "-i", "busybox", "cat", stdin="whole").stdout == "whole"
    assert engine.run("run", "--rm", "-T", "web", stdin="whole").stdout == "whole"
