"""What the shim's process is once it has started: the listening socket, the adoption of what a dead
shim has left, the event loop, and the decision to leave.
"""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import signal
import socket
import time

from orchestra.linux import pages, signals
from orchestra.runtime import shim_state as states
from orchestra.runtime.cgroups import probe
from orchestra.runtime.shim_container import Container
from orchestra.runtime.shim_keeper import Keeper
from orchestra.runtime.shim_loop import READ, Loop
from orchestra.runtime.shim_ops import Operations
from orchestra.runtime.shim_peer import Peer, Request, credentials_fit
from orchestra.runtime.shim_wire import Address

_FIRST_CLIENT = 10.0  # seconds a new shim waits for somebody
_REST = 2.0  # seconds without a request after which it gives memory back


class Shim:
    """The listening socket, the clients, and the decision to leave."""

    def __init__(self, project: str, socket_path: str, bundles: str) -> None:
        self.loop = Loop()
        self.socket_path = socket_path
        self.peers: list[Peer] = []
        self.keeper = Keeper(f"{os.path.splitext(socket_path)[0]}.fds")
        self.operations = Operations(
            self.loop, project, bundles, probe(), self.keeper, self.tell, lambda: self.peers
        )
        self._patient = True
        self._last, self._resting = 0.0, True
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.setblocking(False)

    def listen(self) -> None:
        try:
            os.unlink(self.socket_path)
        except FileNotFoundError:
            pass
        with Address(self.socket_path) as address:
            self._server.bind(address)
        os.chmod(self.socket_path, 0o600)
        self._server.listen(512)
        self.loop.add(self._server.fileno(), READ, lambda mask: self._accept())

    def adopt(self, bundles: str, project: str) -> None:
        """Take over what a dead shim of this project has left."""
        try:
            names = sorted(os.listdir(bundles))
        except FileNotFoundError:
            return
        for name in names:
            state = states.load(f"{bundles}/{name}")
            if not state or state.get("project") != project:
                continue
            state["bundle"] = f"{bundles}/{name}"
            container = Container(
                self.loop, self.operations.mode, state, self.keeper, self.operations.happened
            )
            if container.status == "creating":
                container.discard()
                continue
            self.operations.containers[container.id] = container
            if container.alive:
                container.adopt()

    def tell(self, event: dict[str, object]) -> None:
        for peer in list(self.peers):
            if peer.listening and (not peer.kinds or event["type"] in peer.kinds):
                peer.send({"event": event})

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        children = signals.signalfd({signal.SIGCHLD})
        self.loop.add(children, READ, lambda mask: self._orphans(children))
        self.loop.after(_FIRST_CLIENT, self._impatient)
        gc.collect()
        gc.freeze()  # a collection would only copy the children's pages
        try:
            self.loop.run(self._between)
        finally:
            os.close(children)
            self.loop.close()

    def _impatient(self) -> None:
        self._patient = False

    def _accept(self) -> None:
        while True:
            try:
                link, _address = self._server.accept()
            except BlockingIOError:
                return
            if not credentials_fit(link):
                link.close()
                continue
            self._patient = False
            self.peers.append(Peer(self.loop, link, self._handle, self.peers.remove))

    def _handle(self, request: Request) -> None:
        self._last = time.monotonic()
        if self._resting:
            self._resting = False
            self.loop.after(_REST, self._rest)
        self.operations.handle(request)

    def _rest(self) -> None:
        left = self._last + _REST - time.monotonic()
        if left > 0:
            self.loop.after(left, self._rest)
        else:
            self._resting = True
            pages.give_back()

    def _orphans(self, children: int) -> None:
        """Reap processes that became ours by being orphaned; those with a pidfd are reaped by it."""
        signals.read_signals(children)
        self._reap()

    def _reap(self) -> None:
        ours = self.operations.children()
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_pid in ours or self.operations.births or self.operations.entries:
                self.loop.after(0.1, self._reap)  # its pidfd tells it; orphans behind it come then
                return
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)

    def _between(self) -> None:
        self.operations.attach_fresh()
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self._patient or self.peers or self.operations.busy():
            return
        try:
            os.unlink(self.socket_path)
        except FileNotFoundError:
            pass
        self._server.close()  # whoever connected in this moment gets an end of file and asks again
        self.keeper.close()
        self.loop.done = True


def _lock(path: str) -> int:
    """The lock's fd; -1 when another shim lives."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _protect() -> None:
    """Rather lose any container than the parent of them all; more fds than the usual 1024."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("-900")
    except OSError:
        pass  # lowering it needs CAP_SYS_RESOURCE
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def serve(options: dict[str, str]) -> int:
    """The whole life of the shim; ``options`` as ``shim.py`` got them."""
    ready = int(options["ready"])
    os.set_inheritable(ready, False)
    lock = _lock(options["lock"])
    if lock < 0:
        os.write(ready, b"taken")
        return 0
    shim = Shim(options["project"], options["socket"], options["bundles"])
    _protect()
    shim.adopt(options["bundles"], options["project"])
    shim.listen()
    os.write(ready, b"ready")
    os.close(ready)
    shim.run()
    return 0
