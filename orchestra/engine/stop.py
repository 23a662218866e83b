"""Stopping, killing, pausing: signals to running containers, and waiting for what they do."""

from __future__ import annotations

import signal
import time

from orchestra.engine.container import Container
from orchestra.engine.parts import Parts
from orchestra.engine.process import stop_signal
from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.runtime.shim_errors import ShimGone, StateError

DEFAULT_GRACE = 10.0
_KILL_PATIENCE = 30.0
_ALIVE = ("running", "paused", "restarting")


def signal_number(text: str) -> int:
    """``SIGTERM``, ``TERM``, ``15`` or ``SIGRTMIN+3``."""
    word = text.strip().upper()
    if word.isdigit() and 0 < int(word) <= 64:
        return int(word)
    name, _, offset = word.removeprefix("SIG").partition("+")
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals) or (offset and not offset.isdigit()):
        raise OrchestraError(f"invalid signal: {text}")
    return int(found) + int(offset or 0)


class Stopper:
    """See the module's docstring. A stop by hand also ends the restart policy until the next start."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def stop(self, container: Container, *, timeout: float | None = None, signal_name: str = "") -> None:
        """Stop signal, grace period, SIGKILL; nothing when it does not run."""
        service = container.spec.service
        number = signal_number(signal_name or stop_signal(service, container.image))
        grace = timeout if timeout is not None else service.stop_grace_period
        grace = DEFAULT_GRACE if grace is None else grace
        with container.lock:
            if not self._give_up_restarting(container):
                return
            paused = container.state.status == "paused"
        self._send(container, number)
        if paused:
            self._resume(container)
        if not wait_until_stopped(container, grace if grace >= 0 else None):
            self._kill(container)
        self.parts.hub.publish("container", "stop", container.id, container.event_attributes())

    def kill(self, container: Container, signal_name: str) -> None:
        number = signal_number(signal_name)
        with container.lock:
            if container.state.status == "restarting":
                self._give_up_restarting(container)
                return
            if not container.running:
                raise ConflictError(f"container {container.name} is not running")
            final = number == signal.SIGKILL
            if final or number == signal_number(stop_signal(container.spec.service, container.image)):
                self._give_up_restarting(container)
            paused = container.state.status == "paused"
        self._send(container, number)
        if final:
            if paused:
                self._resume(container)
            self._await_death(container)

    def pause(self, container: Container) -> None:
        with container.lock:
            if container.state.status == "paused":
                raise ConflictError(f"container {container.name} is already paused")
            if container.state.status != "running":
                raise ConflictError(f"container {container.name} is not running")
            self.parts.shims.client(container.group).pause(container.id)
            container.state.status = "paused"
            self.parts.registry.save(container)
        self.parts.hub.publish("container", "pause", container.id, container.event_attributes())

    def unpause(self, container: Container) -> None:
        with container.lock:
            if container.state.status != "paused":
                raise ConflictError(f"container {container.name} is not paused")
            self.parts.shims.client(container.group).resume(container.id)
            container.state.status = "running"
            self.parts.registry.save(container)
        self.parts.hub.publish("container", "unpause", container.id, container.event_attributes())

    def _give_up_restarting(self, container: Container) -> bool:
        """No restart by policy from now on; whether anything is alive to be stopped."""
        container.restarts.stopping_by_hand()
        container.state.stopped_by_hand = True
        if container.state.status == "restarting":
            container.run += 1
            container.state.status = "exited"
        self.parts.registry.save(container)
        container.notify()
        return container.running

    def _send(self, container: Container, number: int) -> None:
        attributes = {**container.event_attributes(), "signal": str(number)}
        self.parts.hub.publish("container", "kill", container.id, attributes)
        shim = self.parts.shims.client(container.group)
        try:
            try:
                shim.signal(container.id, number)
            except ShimGone:
                self.parts.shims.again(container.group, shim).signal(container.id, number)
        except (StateError, NotFoundError, OSError):
            return  # it ended meanwhile; the wait that follows sees it

    def _resume(self, container: Container) -> None:
        try:
            self.parts.shims.client(container.group).resume(container.id)
        except (StateError, NotFoundError, OSError):
            return

    def _kill(self, container: Container) -> None:
        self._send(container, signal.SIGKILL)
        self._await_death(container)

    def _await_death(self, container: Container) -> None:
        if not wait_until_stopped(container, _KILL_PATIENCE):
            raise OrchestraError(
                f"container {container.name} did not end within {_KILL_PATIENCE:g}s of SIGKILL",
                hint="a process of it is stuck in the kernel (state D)",
            )


def wait_until_stopped(container: Container, timeout: float | None) -> bool:
    """True once nothing of it runs (a pending restart counts as running)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with container.changed:
        while container.state.status in _ALIVE and not container.removed:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            container.changed.wait(left)
    return True
