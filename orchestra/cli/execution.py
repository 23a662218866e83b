"""Running a command in a container for the user at this terminal: exec, and attach of a one-off."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

from orchestra.cli import terminal
from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.controller.wire import Wire

_GONE = "the daemon went away in the middle of the command"


def run_exec(context: Context, ref: str, spec: dict[str, Any], *, detach: bool, stdin: bool = True) -> int:
    """Run ``spec`` (an ExecSpec as data) in ``ref``; returns its exit code."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    fds = [] if spec["tty"] else ([null] * 3 if detach else [0 if stdin else null, 1, 2])
    context.stdout.flush()
    wire, first = context.client.ask("exec", {"ref": ref, "spec": spec, "detach": detach}, fds=fds)
    os.close(null)
    try:
        if first is None:
            raise OrchestraError(_GONE)
        if "error" in first:
            raise OrchestraError.from_dict(first["error"])
        exec_id = first["data"]["exec_id"]
        handed = wire.take_fds()
        if handed:
            _terminal(context, exec_id, handed[0], stdin=stdin)
        with _forwarded(context, exec_id):
            last = _next(wire)
    finally:
        wire.close()
    if last is None:
        raise OrchestraError(_GONE)
    if "error" in last:
        raise OrchestraError.from_dict(last["error"])
    return int(last["result"])


def _terminal(context: Context, exec_id: str, master: int, *, stdin: bool) -> None:
    def resize(rows: int, columns: int) -> None:
        context.client.call("exec_resize", {"exec_id": exec_id, "rows": rows, "columns": columns})

    try:
        terminal.Pump(master, resize, stdin=stdin and os.isatty(0)).run()
    finally:
        os.close(master)


class _forwarded:
    """Passes SIGINT and SIGTERM on to the command while the block runs (for commands without a terminal).
    Signals are the main thread's: a command that another one runs, as watch does, gets none."""

    def __init__(self, context: Context, exec_id: str) -> None:
        self.context, self.exec_id = context, exec_id
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._pass)

    def _pass(self, number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        try:
            self.context.client.call("exec_signal", {"exec_id": self.exec_id, "signal": name})
        except OrchestraError:
            return

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def attach(
    context: Context,
    ref: str,
    *,
    start: bool,
    stdin: bool,
    tty: bool,
    keys: str = "",
    forward: bool = True,
    streams: frozenset[str] = frozenset({"stdout", "stderr"}),
    until: str = "",
    told: Iterable[str] = (),
) -> int | None:
    """Connect this terminal to a container (and start it); returns its exit code, None when detached. Only
    the outputs in ``streams`` are shown. ``until`` is "removed" to wait for that, too. When nobody reads the
    output any more (``run … | head -1``), a container that this started is stopped; raises BrokenPipeError. ``told`` are warnings that
    the user has seen already."""
    context.stdout.flush()
    sequence = terminal.detach_sequence(keys or terminal.DETACH)
    if tty:
        return _attach_terminal(context, ref, sequence, start=start, stdin=stdin, until=until, told=told)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    shown = [1 if "stdout" in streams else null, 2 if "stderr" in streams else null]
    request = {"ref": ref, "start": start, "stdin": stdin, "until": until}
    wire, first = context.client.ask("attach", request, fds=[0, *shown])
    os.close(null)
    if first is None or "error" in first:
        wire.close()
        raise OrchestraError.from_dict(first["error"]) if first else OrchestraError(_GONE)
    before = {}
    if forward:

        def passing(number: int, _frame: object) -> None:
            name = signal.Signals(number).name
            context.client.call("container_do", {"verb": "kill", "ref": ref, "signal": name})

        before = {n: signal.signal(n, passing) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _last(context, wire, (1,) if "stdout" in streams else (), told)
    except BrokenPipeError:
        wire.close()
        if start:
            context.client.call("container_do", {"verb": "stop", "ref": ref})
        raise
    finally:
        wire.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _attach_terminal(
    context: Context,
    ref: str,
    sequence: bytes,
    *,
    start: bool,
    stdin: bool,
    until: str,
    told: Iterable[str],
) -> int | None:
    """Through a socket pair: the daemon copies between it and the container's terminal."""
    import socket

    ours, theirs = socket.socketpair()
    request = {"ref": ref, "start": start, "stdin": stdin, "until": until, "size": terminal.size()}
    wire, first = context.client.ask("attach", request, fds=[theirs.fileno()] * 3)
    theirs.close()
    if first is None or "error" in first:
        ours.close()
        wire.close()
        raise OrchestraError.from_dict(first["error"]) if first else OrchestraError(_GONE)

    def resize(rows: int, columns: int) -> None:
        try:
            context.client.call("resize", {"ref": ref, "rows": rows, "columns": columns})
        except OrchestraError:
            return

    pump = terminal.Pump(ours.fileno(), resize, sequence, stdin=stdin and os.isatty(0))
    try:
        pump.run()
        return None if pump.detached else _last(context, wire, (), told)
    except BrokenPipeError:
        if start:
            context.client.call("container_do", {"verb": "stop", "ref": ref})
        raise
    finally:
        ours.close()
        wire.close()


def warn_new(context: Context, warnings: Iterable[str], told: Iterable[str]) -> None:
    """Say what the start of a container brought up."""
    known = set(told)
    for text in warnings:
        if text not in known:
            context.warn(text)


def _last(context: Context, wire: Wire, outputs: tuple[int, ...], told: Iterable[str]) -> int:
    while True:
        if not wire.ready(outputs):
            raise BrokenPipeError
        message = _next(wire)
        if message is None:
            raise OrchestraError(_GONE)
        if "error" in message:
            raise OrchestraError.from_dict(message["error"])
        if "warnings" in message.get("data", {}):
            warn_new(context, message["data"]["warnings"], told)
        if "result" in message:
            return int(message["result"])


def _next(wire: Wire) -> dict[str, Any] | None:
    """What the daemon says; None when it is gone, however it went."""
    try:
        return wire.receive()
    except ConnectionResetError:
        return None
