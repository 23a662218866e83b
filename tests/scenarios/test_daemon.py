"""The daemon comes when needed, leaves when idle, and may be killed at any moment."""

from __future__ import annotations

import os
import signal

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

FILE = """
    name: alive
    services:
      a: {image: busybox, command: sleep 1000, init: true}
      b:
        image: busybox
        command: sh -c 'while ! test -e /go; do sleep 0.1; done; exit 42'
"""


def test_it_leaves_when_nothing_runs(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    assert engine.daemon_pid() is not None
    engine.run("down", "-t", "2")
    eventually(lambda: not engine.processes(), what="daemon and shim have left")


def test_containers_survive_kill_9_and_nothing_restarts(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    before = {name: (row["ID"], engine.inspect(name)["State"]["StartedAt"], engine.inspect(name)["State"]["Pid"])
              for name, row in engine.ps().items()}
    engine.kill_daemon()
    after = {name: (row["ID"], engine.inspect(name)["State"]["StartedAt"], engine.inspect(name)["State"]["Pid"])
             for name, row in engine.ps().items()}
    assert after == before
    assert "nothing to do" in engine.run("up", "-d").stderr


def test_an_exit_while_no_daemon_runs_is_kept(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    pid = engine.inspect("alive-b-1")["State"]["Pid"]
    engine.run("exec", "-T", "b", "true")
    engine.kill_daemon()
    with open(f"/proc/{pid}/root/go", "w"):
        pass
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), what="b has ended")
    assert engine.ps()["alive-b-1"]["ExitCode"] == 42
    assert engine.ps()["alive-b-1"]["State"] == "exited"


def test_a_killed_shim_is_replaced(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    pid = engine.inspect("alive-a-1")["State"]["Pid"]
    shims = [p for p in engine.processes() if p != engine.daemon_pid()]
    assert shims
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    eventually(lambda: engine.inspect("alive-a-1")["State"]["Pid"] == pid, what="a is known as running")
    assert engine.state("alive-a-1") == "running"
    assert engine.out("exec", "-T", "a", "echo", "here") == "here\n"
    engine.run("down", "-t", "2")
    assert not os.path.exists(f"/proc/{pid}")


def test_the_socket_and_the_state_are_private(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    for name in ("run", "lib", "run/daemon.sock"):
        assert os.stat(engine.root / name).st_mode & 0o077 == 0, name


def test_commands_meet_a_daemon_that_is_leaving(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d", "a")
    for _ in range(4):
        leaving = engine.popen("system", "shutdown")
        assert engine.out("ps", "-q").strip()
        leaving.communicate(timeout=30)
    assert engine.state("alive-a-1") == "running"
