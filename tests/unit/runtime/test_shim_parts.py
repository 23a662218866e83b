"""The shim's parts without a container: its imports, its messages, its loop, its pipes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import orchestra
from orchestra.errors import ConflictError, NotFoundError, OrchestraError, UnsupportedError
from orchestra.runtime import shim_errors, shim_state, shim_wire
from orchestra.runtime.logfile import Writer
from orchestra.runtime.problems import StepError
from orchestra.runtime.shim_exec import Collector
from orchestra.runtime.shim_loop import READ, Loop
from orchestra.runtime.shim_stdio import Stdio

ROOT = str(Path(orchestra.__file__).parent.parent)


def test_the_shim_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {ROOT!r}); import orchestra.runtime.shim, orchestra.runtime.shim_server;" \
           "import json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True, env={})
    modules = json.loads(done.stdout)
    roots = {name.partition(".")[0] for name in modules}
    assert not roots & {"asyncio", "yaml", "logging", "subprocess", "threading", "concurrent", "tempfile", "shutil",
                        "rich", "jsonschema", "networkx", "pyroute2", "sqlite3", "hashlib", "random", "platform", "dataclasses", "inspect"}
    ours = [name for name in modules if name.startswith("orchestra.")]
    assert not [name for name in ours if not name.startswith(("orchestra.linux", "orchestra.runtime"))
                and name not in ("orchestra.errors", "orchestra.record")]
    assert roots - {"orchestra"} <= set(sys.stdlib_module_names) | {"__main__"}


# Messages

def test_messages_with_descriptors() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        reader, writer = os.pipe()
        for size in (10, 500_000):
            shim_wire.send(left, {"text": "ä" * size}, (writer,))
            message, fds = shim_wire.receive(right) or ({}, [])
            assert message == {"text": "ä" * size}
            os.write(fds[0], b"x")
            assert os.read(reader, 1) == b"x"
            assert not os.get_inheritable(fds[0])
            shim_wire.close(fds)
        shim_wire.close([reader, writer])
        left.close()
        assert shim_wire.receive(right) is None


def test_a_socket_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    server = socket.socket(socket.AF_UNIX)
    client = socket.socket(socket.AF_UNIX)
    with server, client:
        with shim_wire.Address(str(folder / "s")) as address:
            server.bind(address)
        server.listen()
        with shim_wire.Address(str(folder / "s")) as address:
            client.connect(address)
    assert (folder / "s").is_socket()


@pytest.mark.parametrize("problem", [
    StepError("exec", 2, "/x", "no such file"), NotFoundError("no container x"), UnsupportedError("cannot"),
    shim_errors.StateError("c", "running", ("stopped",)), OrchestraError("bad", details=("a",), hint="do"),
    OSError(13, "Permission denied", "/x"),
])
def test_errors_cross_the_socket(problem: Exception) -> None:
    back = shim_errors.from_data(json.loads(json.dumps(shim_errors.to_data(problem))))
    assert type(back) is type(problem)
    assert str(back) == str(problem)
    assert getattr(back, "hint", None) == getattr(problem, "hint", None)


def test_a_bug_is_named() -> None:
    assert "ZeroDivisionError" in str(shim_errors.from_data(shim_errors.to_data(ZeroDivisionError("x"))))
    assert issubclass(shim_errors.StateError, ConflictError)


def test_state_is_replaced_whole(tmp_path: Path) -> None:
    assert shim_state.load(str(tmp_path)) is None
    shim_state.save(str(tmp_path), {"id": "a"})
    shim_state.save(str(tmp_path), {"id": "b"})
    assert shim_state.load(str(tmp_path)) == {"id": "b"}
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    shim_state.remove(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Loop

def turn(loop: Loop, until: Callable[[], object], rounds: int = 10_000) -> None:
    """Run the loop until a condition holds."""
    count = 0

    def between() -> None:
        nonlocal count
        count += 1
        assert count < rounds
        loop.done = bool(until())

    loop.done = False
    loop.after(0, lambda: None)
    loop.run(between)


def test_timers_run_in_order_and_errors_stop_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    loop, seen = Loop(), []
    loop.after(0.002, lambda: seen.append(2))
    loop.after(0.001, lambda: seen.append(1 // 0))
    loop.after(0, lambda: seen.append(0))
    turn(loop, lambda: len(seen) == 2)
    assert seen == [0, 2]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_dropped_descriptor_is_quiet() -> None:
    loop, seen = Loop(), []
    reader, writer = os.pipe()
    loop.add(reader, READ, lambda mask: seen.append(os.read(reader, 10)))
    os.write(writer, b"x")
    turn(loop, lambda: seen)
    loop.drop(reader)
    loop.drop(reader)
    os.write(writer, b"y")
    turn(loop, lambda: True)
    assert seen == [b"x"]
    shim_wire.close([reader, writer])


# Stdio

def test_output_goes_to_the_log_and_to_everyone_attached(tmp_path: Path) -> None:
    loop = Loop()
    stdio = Stdio(loop, str(tmp_path), Writer(str(tmp_path / "log")))
    given = stdio.open(stdin_open=True)
    names, fds = stdio.attach(wait=False)
    assert names == {"stdout": 0, "stderr": 1, "stdin": 2}
    os.write(given[1], b"out\n")
    os.write(given[2], b"err\n")
    turn(loop, lambda: (tmp_path / "log").stat().st_size == 8)
    assert (os.read(fds[0], 10), os.read(fds[1], 10)) == (b"out\n", b"err\n")
    os.write(fds[2], b"in")
    assert os.read(given[0], 10) == b"in"
    os.write(given[1], b"rest")
    shim_wire.close(given)
    stdio.drain()
    assert os.read(fds[0], 10) == b"rest"
    assert os.read(fds[0], 10) == os.read(fds[1], 10) == b""
    assert (tmp_path / "log").read_bytes().endswith(b"rest")
    shim_wire.close(fds)
    stdio.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.idx"]


def test_a_writer_survives_its_reader(tmp_path: Path) -> None:
    first = Stdio(Loop(), str(tmp_path), None)
    given = first.open(stdin_open=False)
    first.close()
    assert os.write(given[1], b"unheard\n")  # no SIGPIPE, no EPIPE
    loop = Loop()
    second = Stdio(loop, str(tmp_path), Writer(str(tmp_path / "log")))
    second.adopt()
    turn(loop, lambda: (tmp_path / "log").stat().st_size)
    assert (tmp_path / "log").read_bytes() == b"unheard\n"
    second.close()
    shim_wire.close(given)


def test_a_slow_client_loses_and_a_waiting_one_holds(tmp_path: Path) -> None:
    loop = Loop()
    stdio = Stdio(loop, str(tmp_path), Writer(str(tmp_path / "log")))
    given = stdio.open(stdin_open=False)
    os.set_blocking(given[1], False)
    _names, slow = stdio.attach(wait=False)
    _names, waiting = stdio.attach(wait=True)
    sent = 0
    for _ in range(1000):
        try:
            sent += os.write(given[1], b"x" * 65536)
        except BlockingIOError:
            if stdio._held:
                break
        turn(loop, lambda: True)
    assert stdio._held
    assert sent < 16 << 20
    got = 0
    while got < sent:
        turn(loop, lambda: True)
        got += len(os.read(waiting[0], 65536))
    assert not stdio._held
    assert (tmp_path / "log").stat().st_size == sent
    stdio.close()
    shim_wire.close([*given, *slow, *waiting])


def test_collected_output_is_bounded() -> None:
    loop = Loop()
    collector = Collector(loop, 5)
    os.write(collector.writer, b"0123456789")
    turn(loop, lambda: len(collector.data) == 5)
    assert collector.finish() == b"01234"
