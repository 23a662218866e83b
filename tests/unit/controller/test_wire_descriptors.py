"""Requests with descriptors on the daemon's socket."""

from __future__ import annotations

import os
import socket

from orchestra.controller.wire import CHUNK, Wire


class Quick(socket.socket):
    """The other side has answered and closed as soon as it has read all."""

    other: Wire
    heard: object = None

    def sendmsg(self, *words: object, **more: object) -> int:
        sent = super().sendmsg(*words, **more)  # type: ignore[arg-type]
        self.heard = self.other.receive()
        self.other.close()
        return sent


def test_an_answer_before_the_request_returns() -> None:
    ours, theirs = socket.socketpair()
    quick = Quick(fileno=ours.detach())
    quick.other = Wire(theirs)
    wire = Wire(quick)
    wire.send({"op": "export"}, [0])  # nothing more is sent
    assert quick.heard == {"op": "export"}
    (fd,) = quick.other.take_fds()
    os.close(fd)
    wire.close()


def test_a_long_request_comes_whole() -> None:
    import threading

    ours, theirs = socket.socketpair()
    wire, other = Wire(ours), Wire(theirs)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(other.receive()))
    thread.start()
    message = {"text": "x" * (3 * CHUNK)}
    wire.send(message, [0])
    thread.join(20)
    assert found == [message]
    for fd in other.take_fds():
        os.close(fd)
    wire.close()
    other.close()
