"""A process in the foreground: its terminal joined to ours, signals handed on, its end awaited."""

from __future__ import annotations

import os
import select
import signal
import termios
import tty

from orchestra.linux import pidfd as pidfds
from orchestra.linux import signals
from orchestra.runtime import tty as terminals

_FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGTSTP,
    signal.SIGALRM,
    signal.SIGWINCH,
)


class Foreground:
    """Made before the process is, so that no signal is lost: the forwarded ones are blocked from then on
    (a container's init resets its own mask)."""

    def __init__(self) -> None:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
        self._signals = signals.signalfd(_FORWARDED)

    def close(self) -> None:
        os.close(self._signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, pid: int, pidfd: int, master: int = -1) -> int:
        """The exit code (128 + signal); copies between a terminal's master and our stdio meanwhile."""
        saved = None
        if master >= 0 and os.isatty(0):
            saved = termios.tcgetattr(0)
            tty.setraw(0)
            self._resize(master)
        try:
            self._loop(pidfd, master)
        finally:
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 128 - code if code < 0 else code

    def _loop(self, pidfd: int, master: int) -> None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        if master >= 0:
            poller.register(master, select.POLLIN)
            poller.register(0, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._signals in ready:
                self._forward(pidfd, master)
            if 0 in ready and not _copy(0, master):
                poller.unregister(0)
            if master in ready and not _copy(master, 1):
                poller.unregister(master)
            if pidfd in ready:
                if master >= 0:
                    _drain(master)
                return

    def _forward(self, pidfd: int, master: int) -> None:
        for number, _sender in signals.read_signals(self._signals):
            if number == signal.SIGWINCH:
                if master >= 0 and os.isatty(0):
                    self._resize(master)
                continue
            try:
                pidfds.send_signal(pidfd, number)
            except ProcessLookupError:
                return

    @staticmethod
    def _resize(master: int) -> None:
        size = os.get_terminal_size(0)
        terminals.resize(master, size.lines, size.columns)


def _copy(source: int, target: int) -> bool:
    """One buffer; False at the end (a terminal whose last user has gone reads as an error)."""
    try:
        data = os.read(source, 65536)
    except OSError:
        return False
    if not data:
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
    return True


def _drain(master: int) -> None:
    os.set_blocking(master, False)
    while _copy(master, 1):
        pass
