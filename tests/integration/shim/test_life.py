"""A container's whole life under the shim, for real."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.shimhelp import World, eventually, process, world

from orchestra.errors import NotFoundError
from orchestra.linux import procfs
from orchestra.runtime import logfile, shimclient
from orchestra.runtime.cgroups import manager, probe
from orchestra.runtime.problems import StepError
from orchestra.runtime.shimclient import StateError

pytestmark = pytest.mark.root


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def read_all(fd: int) -> bytes:
    found = b""
    try:
        while piece := os.read(fd, 65536):
            found += piece
    except OSError:
        pass  # a terminal's end
    return found


def test_exit_code_output_and_state(w: World) -> None:
    pid = w.create("a", "sh", "-c", "echo out; echo err >&2; exit 3")
    before = w.client.state("a")
    assert (before["status"], before["pid"]) == ("created", pid)
    w.client.start("a")
    state = w.client.wait("a")
    assert (state["status"], state["exit_code"], state["exit_signal"], state["oom"]) == ("stopped", 3, 0, False)
    with open(w.paths.bundles / "a/state.json") as file:
        assert json.load(file) == state
    lines = sorted((stream, line) for _at, stream, line in logfile.read(w.log("a")["path"]))
    assert lines == [(1, b"out\n"), (2, b"err\n")]
    w.client.delete("a")
    assert not (w.paths.bundles / "a/state.json").exists()
    with pytest.raises(NotFoundError):
        w.client.state("a")


def test_a_signal_is_told(w: World) -> None:
    w.run("a", "sleep", "1000")
    w.client.signal("a", signal.SIGKILL)
    state = w.client.wait("a")
    assert (state["exit_code"], state["exit_signal"]) == (137, 9)
    with pytest.raises(StateError):
        w.client.signal("a", signal.SIGKILL)


def test_pid_1_takes_all_with_it(w: World) -> None:
    w.run("a", "sh", "-c", "sleep 1000 & sleep 1000 & echo up; read x", stdin_open=True)
    eventually(lambda: w.output("a") == b"up\n")
    pids = list(w.client.pids("a"))
    assert len(pids) == 3
    w.client.close_stdin("a")
    w.client.wait("a")
    assert not [pid for pid in pids if procfs.alive(pid)]


def test_a_program_that_is_not_there(w: World) -> None:
    w.create("a", "sleep", "1", change=lambda config: config["process"].update(cwd="/tmp"))
    w.client.delete("a")  # only created
    with pytest.raises(StepError, match="executable file not found") as caught:
        w.run("b", "no-such-program")
    assert caught.value.exit_code == 127
    assert "b" not in [state["id"] for state in w.client.list()]


def test_a_failed_birth_leaves_nothing(w: World) -> None:
    """Nor do parents of its cgroups, whether it fails before it has a process or later."""
    for source, text in (("/no/such", "/no/such"), ("", "no source")):
        def change(config: dict[str, Any], source: str = source) -> None:
            config["mounts"].append({"destination": "/x", "type": "bind", "source": source, "options": ["bind"]})

        with pytest.raises(Exception, match=text):
            w.create("a", "true", change=change)
        assert w.client.list() == []
        assert sorted(path.name for path in (w.paths.bundles / "a").iterdir()) == ["config.json"]
        assert not manager(f"/{w.paths.scope}/{w.project}", probe()).exists()


def test_a_name_is_taken_once(w: World) -> None:
    w.run("a", "sleep", "1000")
    with pytest.raises(StateError):
        w.create("a", "true")


def test_many_at_once(w: World) -> None:
    names = [f"c{number}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        pids = list(pool.map(lambda name: w.create(name, "sh", "-c", "read x", stdin_open=True), names))
        assert len(set(pids)) == 20
        assert not any(w.client.start_all(names).values())
        assert {state["status"] for state in w.client.list()} == {"running"}
        for name in names:
            w.client.signal(name, signal.SIGKILL)
        list(pool.map(w.client.wait, names))
        list(pool.map(w.client.delete, names))
    assert w.client.list() == []


def test_pause_and_kill(w: World) -> None:
    w.run("a", "sh", "-c", "while :; do echo x; done")
    w.client.pause("a")
    assert w.client.state("a")["status"] == "paused"
    with pytest.raises(StateError):
        w.client.exec_run("a", process("true"))
    w.client.resume("a")
    w.client.pause("a")
    w.client.signal("a", signal.SIGKILL)
    assert w.client.wait("a")["exit_code"] == 137


def test_oom_is_told(w: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["resources"]["memory"] = {"limit": 32 << 20, "swap": 32 << 20}

    events = w.client.events()
    w.run("a", "sh", "-c", 'x=$(yes | head -c 200000000)', change=change)
    assert w.client.wait("a")["oom"] is True
    seen = []
    for event in events:
        seen.append(event["type"])
        if event["type"] == "exit":
            assert event["oom"] is True
            break
    assert seen[:2] == ["create", "start"]
    events.close()  # type: ignore[attr-defined]


def test_stats_and_update(w: World) -> None:
    w.run("a", "sleep", "1000")
    assert w.client.stats("a")["pids"]["current"] >= 1
    assert w.client.update("a", {"pids": {"limit": 77}}) == []
    assert w.client.stats("a")["pids"]["limit"] == 77


def test_exec(w: World) -> None:
    w.run("a", "sleep", "1000")
    assert w.client.exec_run("a", process("sh", "-c", "echo one; echo two >&2; exit 5")) == (5, b"one\ntwo\n")
    assert w.client.exec_run("a", process("seq", "1", "100000"), limit=10) == (0, b"1\n2\n3\n4\n5\n")
    assert w.client.exec_run("a", process("sh", "-c", "sleep 1000; true"), timeout=0.2)[0] == -1
    eventually(lambda: len(w.client.pids("a")) == 1, "the probe's children die with it")
    with pytest.raises(StepError) as caught:
        w.client.exec_run("a", process("/etc/passwd"))
    assert caught.value.exit_code == 126
    reader, writer = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    name, master = w.client.exec("a", process("sh", "-c", "echo $X; kill -TERM $$", env=["X=y", "PATH=/bin"]),
                                 fds=(null, writer, null))
    os.close(writer)
    assert (read_all(reader), w.client.exec_wait(name), master) == (b"y\n", 128 + 15, -1)
    os.close(reader)
    os.close(null)


def test_exec_on_a_terminal(w: World) -> None:
    w.run("a", "sleep", "1000")
    name, master = w.client.exec("a", process("sh"), tty=True, size=(40, 120))
    w.client.exec_resize(name, 41, 121)
    os.write(master, b"stty size; exit 4\n")
    assert w.client.exec_wait(name) == 4
    assert b"41 121" in read_all(master)
    os.close(master)


def test_large_messages_go_through(w: World) -> None:
    w.run("a", "sleep", "1000")
    big = "x" * 100_000
    code, output = w.client.exec_run("a", process("sh", "-c", "echo $BIG", env=[f"BIG={big}", "PATH=/bin"]),
                                     limit=200_000)
    assert (code, output) == (0, big.encode() + b"\n")


def test_terminal_of_the_container(w: World) -> None:
    w.run("a", "sh", tty=True)
    attached = w.client.attach("a")
    assert attached.tty
    w.client.resize("a", 33, 77)
    os.write(attached.stdin, b"stty size; exit 6\n")
    assert w.client.wait("a")["exit_code"] == 6
    assert b"33 77" in read_all(attached.stdout)
    assert b"33 77" in w.output("a")
    attached.close()


def test_attach_with_input(w: World) -> None:
    w.run("a", "cat", stdin_open=True)
    first, second = w.client.attach("a"), w.client.attach("a")
    os.write(first.stdin, b"hello\n")
    assert os.read(first.stdout, 100) == os.read(second.stdout, 100) == b"hello\n"
    first.close()
    os.write(second.stdin, b"again\n")
    assert os.read(second.stdout, 100) == b"again\n"
    w.client.close_stdin("a")
    os.close(second.stdin)
    second.stdin = -1
    assert w.client.wait("a")["exit_code"] == 0
    assert read_all(second.stdout) == b""
    second.close()


def test_a_slow_reader_holds_nobody_back(w: World) -> None:
    w.create("a", "sh", "-c", "seq 1 3000000; echo done >&2")
    slow, quick = w.client.attach("a"), w.client.attach("a", wait=True)
    w.client.start("a")
    with ThreadPoolExecutor(1) as pool:
        output = pool.submit(read_all, quick.stdout)
        assert w.client.wait("a")["exit_code"] == 0
        wanted = b"".join(b"%d\n" % number for number in range(1, 3_000_001))
        assert output.result(60) == wanted
    assert w.output("a") == wanted + b"done\n"
    assert wanted.startswith(os.read(slow.stdout, 1000))
    slow.close()
    quick.close()


def test_a_waiting_reader_loses_nothing(w: World) -> None:
    w.create("a", "sh", "-c", "seq 1 3000000")
    attached = w.client.attach("a", wait=True)
    w.client.start("a")
    eventually(lambda: (w.paths.lib / "a.log").stat().st_size > 4 << 20)
    assert w.client.state("a")["status"] == "running"  # held back
    assert read_all(attached.stdout) == b"".join(b"%d\n" % number for number in range(1, 3_000_001))
    w.client.wait("a")
    attached.close()


def test_stdout_can_be_opened_by_an_unprivileged_user(w: World) -> None:
    w.run("a", "sh", "-c", "echo direct > /dev/stdout",
          change=lambda config: config["process"].update(user={"uid": 65534, "gid": 65534}))
    assert w.client.wait("a")["exit_code"] == 0
    assert w.output("a") == b"direct\n"


def test_the_shim_leaves_when_it_is_not_needed(w: World) -> None:
    pid = w.client.hello()["pid"]
    w.run("a", "sh", "-c", "read x", stdin_open=True)
    w.client.close()
    assert procfs.alive(pid)
    client = w.again()
    assert client.hello()["pid"] == pid
    client.signal("a", signal.SIGKILL)
    client.wait("a")
    client.close()
    eventually(lambda: not procfs.alive(pid), "it leaves")
    assert w.again().state("a")["exit_code"] == 137  # the next one knows what the last one knew


def test_a_closed_client_ends_its_events(w: World) -> None:
    events = w.client.events()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(list, events)
        w.client.close()
        assert ended.result(20) == []


def test_the_shim_is_small(w: World) -> None:
    w.run("a", "sleep", "1000")
    with open(f"/proc/{w.client.hello()['pid']}/smaps_rollup") as file:
        found = {line.split(":")[0]: int(line.split()[1]) for line in file.readlines()[1:]}
    assert found["Pss"] <= 16 << 10


def test_two_never_serve_one_project(w: World) -> None:
    assert shimclient._spawn(w.paths, w.project, str(w.paths.shims / "p.sock"), None) == b"taken"
    with ThreadPoolExecutor(8) as pool:
        w.client.close()
        clients = list(pool.map(lambda _: shimclient.ensure(w.paths, w.project), range(8)))
        assert len({client.hello()["pid"] for client in clients}) == 1
        for client in clients:
            client.close()


def test_a_listener_hears_of_the_types_that_it_asks_for(w: World) -> None:
    some, every = w.client.events(("exit",)), w.client.events()
    w.run("a", "true")
    w.client.wait("a")
    w.client.delete("a")
    assert [next(every)["type"] for _ in range(4)] == ["create", "start", "exit", "delete"]
    w.run("b", "true")
    assert [next(some)["id"] for _ in range(2)] == ["a", "b"]
