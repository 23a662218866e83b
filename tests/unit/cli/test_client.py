"""The command's side of the connection: a daemon that leaves at that moment."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestra.cli.client import Client
from orchestra.controller.wire import Wire
from orchestra.errors import OrchestraError
from orchestra.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[Paths]:
    found = Paths(tmp_path / "lib", tmp_path / "run", "t")
    found.run.mkdir()
    yield found


def daemon(paths: Paths, *connections: Callable[[socket.socket], None]) -> threading.Thread:
    """Serves one connection after the other."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(paths.run / "daemon.sock"))
    door.listen(8)

    def serve() -> None:
        with door:
            for handle in connections:
                link, _ = door.accept()
                with link:
                    handle(link)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def unread(link: socket.socket) -> None:
    """Leaves with the request in its queue."""
    link.recv(1, socket.MSG_PEEK)


def answering(link: socket.socket) -> None:
    wire = Wire(link)
    request = wire.receive()
    assert request is not None and len(wire.fds) == 1
    wire.send({"data": {"op": request["op"]}})
    os.close(wire.take_fds()[0])


def silent(link: socket.socket) -> None:
    wire = Wire(link)
    wire.receive()
    os.close(wire.take_fds()[0])


def ask(paths: Paths) -> dict[str, object] | None:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        wire, first = Client(paths, {}).ask("exec", {"ref": "a"}, fds=[null])
    finally:
        os.close(null)
    wire.close()
    return first


def test_a_request_that_nobody_read_goes_to_the_next_daemon(paths: Paths) -> None:
    thread = daemon(paths, unread, unread, answering)
    assert ask(paths) == {"data": {"op": "exec"}}
    thread.join(10)


def test_a_request_that_was_read_is_not_sent_again(paths: Paths) -> None:
    thread = daemon(paths, silent)
    assert ask(paths) is None
    thread.join(10)


def test_daemons_that_read_nothing_are_given_up(paths: Paths) -> None:
    thread = daemon(paths, unread, unread, unread)
    with pytest.raises(OrchestraError, match="does not take requests"):
        ask(paths)
    thread.join(10)
