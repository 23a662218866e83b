"""Keeps the masters of containers' terminals alive when the shim is killed, and inputs open that were.

A terminal whose master is closed hangs up on its processes, and nobody can open that master again; a program
whose input has no writer any more reads its end. So a second process, forked from the shim when the first
container with a terminal or an open stdin is made (1.4 MiB), does nothing but hold copies: the next shim asks
for them. It forgets one when the terminal or the FIFO has no user any more, and leaves when it holds none and
no shim is connected.

    <run>/shims/<project>.fds    its socket: {"keep": id} with the fd, {"give": id}, {"drop": id}
"""

from __future__ import annotations

import os
import select
import signal
import socket

from orchestra.linux import calls, signals
from orchestra.runtime import shim_wire as wire

_FIRST = 3


class Keeper:
    """The shim's side. ``close`` lets the process leave when it holds nothing."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._link: socket.socket | None = None

    def keep(self, name: str, master: int) -> None:
        """Hold a copy. Without a keeper the terminal is only as safe as the shim."""
        try:
            self._ask({"keep": name}, (master,), start=True)
        except OSError:
            self._link = None

    def give(self, name: str) -> int:
        """A copy of a kept master; -1 when there is none."""
        try:
            fds = self._ask({"give": name})
        except OSError:
            self._link = None
            return -1
        return fds[0] if fds else -1

    def drop(self, name: str) -> None:
        if self._link:
            try:
                self._ask({"drop": name})
            except OSError:
                self._link = None

    def close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None

    def _ask(self, message: dict[str, str], fds: tuple[int, ...] = (), *, start: bool = False) -> list[int]:
        link = self._connect(start=start)
        wire.send(link, dict(message), fds)
        found = wire.receive(link)
        if found is None:
            raise ConnectionResetError("the keeper has left")
        return found[1]

    def _connect(self, *, start: bool) -> socket.socket:
        if self._link:
            return self._link
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(5)
        try:
            with wire.Address(self.path) as address:
                try:
                    link.connect(address)
                except (FileNotFoundError, ConnectionRefusedError):
                    if not start:
                        raise
                    self._start(address)
                    link.connect(address)
        except BaseException:
            link.close()
            raise
        self._link = link
        return link

    def _start(self, address: str) -> None:
        try:
            os.unlink(address)
        except FileNotFoundError:
            pass
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with door:
            door.bind(address)
            os.chmod(address, 0o600)
            door.listen(4)
            if os.fork() == 0:
                _run(door, self.path)


def _run(door: socket.socket, path: str) -> None:
    """The keeper's process. Never returns."""
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signals.reset_all()
        number = os.dup2(door.fileno(), _FIRST, inheritable=False) if door.fileno() != _FIRST else _FIRST
        calls.close_range(_FIRST + 1)
        _Hoard(socket.socket(fileno=number)).run()
        os.unlink(path)
    finally:
        os._exit(0)


class _Hoard:
    """What the keeper holds, and its loop."""

    def __init__(self, door: socket.socket) -> None:
        self.door = door
        self.links: dict[int, socket.socket] = {}
        self.held: dict[str, int] = {}
        self.poll = select.poll()
        self.poll.register(door, select.POLLIN)

    def run(self) -> None:
        served = False
        while not served or self.links or self.held:
            for fd, _mask in self.poll.poll():
                if fd == self.door.fileno():
                    link, _address = self.door.accept()
                    served = True
                    self.links[link.fileno()] = link
                    self.poll.register(link, select.POLLIN)
                elif fd in self.links:
                    self._serve(fd)
                else:  # a terminal or an input without users
                    for name in [name for name, master in self.held.items() if master == fd]:
                        self._drop(name)

    def _serve(self, fd: int) -> None:
        link = self.links[fd]
        try:
            found = wire.receive(link)
            if found is not None:
                self._answer(link, *found)
                return
        except (OSError, ValueError):
            pass
        self.poll.unregister(fd)
        del self.links[fd]
        link.close()

    def _answer(self, link: socket.socket, message: dict[str, str], fds: list[int]) -> None:
        if "keep" in message and fds:
            self._drop(message["keep"])
            master = self.held[message["keep"]] = fds.pop(0)
            self.poll.register(master, 0)  # hang-ups only
        elif "drop" in message:
            self._drop(message["drop"])
        wire.close(fds)
        master = self.held.get(message.get("give", ""), -1)
        wire.send(link, {}, (master,) if master >= 0 else ())

    def _drop(self, name: str) -> None:
        master = self.held.pop(name, -1)
        if master >= 0:
            self.poll.unregister(master)
            os.close(master)
