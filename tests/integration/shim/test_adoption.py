"""kill -9 of the shim: containers run on, the next shim takes them over, exits are told."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.shimhelp import World, eventually, process, world

from orchestra.linux import procfs
from orchestra.runtime.shimclient import ShimGone

pytestmark = pytest.mark.root


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def kill_shim(w: World) -> None:
    pid = w.client.hello()["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not procfs.alive(pid))


def kernel_tells_exit_codes() -> bool:
    major, minor = (int(word) for word in os.uname().release.split(".")[:2])
    return (major, minor) >= (6, 15)


def test_a_running_container_is_adopted(w: World) -> None:
    script = ("trap s=1 TERM; n=0; while [ -z \"$s\" ]; do n=$((n+1)); echo $n; usleep 1000; done;"
              " echo last; exit 7")
    pid = w.run("a", "sh", "-c", script)
    eventually(lambda: w.output("a").count(b"\n") > 20)
    kill_shim(w)
    with pytest.raises(ShimGone):
        w.client.state("a")
    client = w.again()
    state = client.state("a")
    assert (state["status"], state["pid"]) == ("running", pid)
    assert state["shim_pid"] == client.hello()["pid"]
    before = len(w.output("a"))
    eventually(lambda: len(w.output("a")) > before + 100, "it logs on")
    # the shell may be killed with its namespace before it ends
    assert client.exec_run("a", process("sh", "-c", "kill -TERM 1"))[0] in (0, 137)
    state = client.wait("a")
    allowed = [(7, False)] if kernel_tells_exit_codes() else [(7, False), (255, True)]
    assert (state["exit_code"], state["lost"]) in allowed
    lines = w.output("a").split()
    assert lines[-1] == b"last"
    numbers = [int(line) for line in lines[:-1]]
    assert numbers == list(range(1, len(numbers) + 1))  # not one line was lost


def test_one_that_ended_meanwhile_is_lost(w: World) -> None:
    pid = w.run("a", "sleep", "1000")
    kill_shim(w)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not procfs.alive(pid))
    state = w.again().state("a")
    assert state["status"] == "stopped"  # 137 while its zombie is there, else unknown: never 0
    assert (state["exit_code"], state["lost"]) in ((255, True), (137, False))


def test_one_that_was_only_created_ends(w: World) -> None:
    pid = w.create("a", "sleep", "1000")
    kill_shim(w)
    client = w.again()
    assert client.wait("a")["status"] == "stopped"
    assert not procfs.alive(pid)


def test_a_half_made_one_is_cleared_away(w: World) -> None:
    """The shim dies while a hook of the creation runs: nothing of the container may remain."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"kill -9 $(cat {w.paths.run}/pid); sleep 0.2"]}
    (w.paths.run / "pid").write_text(str(w.client.hello()["pid"]))
    with pytest.raises(ShimGone):
        w.create("a", "sleep", "1000", change=lambda config: config.update(hooks={"createRuntime": [hook]}))
    assert (w.paths.bundles / "a/state.json").exists()
    assert w.again().list() == []
    assert sorted(path.name for path in (w.paths.bundles / "a").iterdir()) == ["config.json"]


def test_a_terminal_survives(w: World) -> None:
    pid = w.run("a", "sh", tty=True)
    eventually(lambda: b"#" in w.output("a"), "its prompt")
    kill_shim(w)
    client = w.again()
    state = client.state("a")
    assert (state["status"], state["pid"]) == ("running", pid)
    attached = client.attach("a")
    assert attached.tty
    os.write(attached.stdin, b"echo sti''ll; exit 5\n")
    assert client.wait("a")["exit_code"] in (5, 255)
    assert b"\nstill" in w.output("a")
    attached.close()


def test_a_paused_one_stays_paused(w: World) -> None:
    w.run("a", "sleep", "1000")
    w.client.pause("a")
    kill_shim(w)
    client = w.again()
    assert client.state("a")["status"] == "paused"
    client.resume("a")
    client.signal("a", signal.SIGTERM, all=True)
    client.signal("a", signal.SIGKILL)
    assert client.wait("a")["status"] == "stopped"


def test_events_end_with_the_shim(w: World) -> None:
    events = w.client.events()
    w.run("a", "sleep", "1000")
    assert next(events)["type"] == "create"
    kill_shim(w)
    with pytest.raises(ShimGone):
        for _ in events:
            pass


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_killed_in_the_middle_of_everything(w: World, delay: float) -> None:
    """Afterwards what runs is known, and what is not known does not run (the fixture looks at the cgroups)."""
    def life(number: int) -> None:
        try:
            for turn in range(20):
                name = f"c{number}-{turn}"
                w.run(name, "sh", "-c", "echo up; sleep 1000")
                w.client.exec_run(name, process("true"))
                w.client.signal(name, signal.SIGKILL)
                w.client.wait(name)
                w.client.delete(name)
        except ShimGone:
            return

    with ThreadPoolExecutor(6) as pool:
        lives = [pool.submit(life, number) for number in range(6)]
        eventually(lambda: len(w.client.list()) >= 3)
        time.sleep(delay)  # not a wait for anything: where the blow falls
        kill_shim(w)
        for each in lives:
            each.result(60)
    client = w.again()

    def consistent() -> bool:
        """What was only created is being killed, what has died is being asked for: both end soon."""
        return all(state["status"] == "stopped" or procfs.alive(state["pid"], state["start_time"])
                   for state in client.list())

    eventually(consistent)
    assert client.call("hello")["project"] == w.project


def test_many_are_adopted(w: World) -> None:
    for number in range(10):
        w.run(f"c{number}", "sleep", "1000")
    kill_shim(w)
    client = w.again()
    assert sorted(state["id"] for state in client.list()) == sorted(f"c{number}" for number in range(10))
    assert {state["status"] for state in client.list()} == {"running"}


def test_an_open_input_stays_open(w: World) -> None:
    """The program reads on; what was closed before is not opened again."""
    pid = w.create("a", "cat", stdin_open=True)
    w.client.start("a")
    w.create("b", "sh", "-c", "sleep 2; cat; echo end; sleep 1000", stdin_open=True)
    w.client.start("b")
    w.client.close_stdin("b")
    kill_shim(w)
    client = w.again()
    assert (client.state("a")["status"], client.state("a")["pid"]) == ("running", pid)
    eventually(lambda: w.output("b") == b"end\n", "the input that was closed ends")
    attached = client.attach("a")
    os.write(attached.stdin, b"hello\n")
    eventually(lambda: w.output("a") == b"hello\n", "it is read")
    attached.close()
    client.close_stdin("a")
    assert client.wait("a")["exit_code"] == (0 if kernel_tells_exit_codes() else 255)
