"""Keys of an attached ``up`` (``--menu``): each key is a function, called in a thread of this module's.

The terminal gives single keys while the menu is open (Ctrl-C stays a signal) and is as before when it is
closed. Without a terminal there is no menu.
"""

from __future__ import annotations

import os
import select
import termios
import threading
import tty
from collections.abc import Callable, Mapping


class Menu:
    """A context manager; ``keys`` maps a key to what it does."""

    def __init__(self, keys: Mapping[str, Callable[[], None]], *, fd: int = 0) -> None:
        self.keys, self.fd = keys, fd
        self._stop = -1
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Menu:
        self._before = termios.tcgetattr(self.fd)
        tty.setcbreak(self.fd, termios.TCSADRAIN)
        wake, self._stop = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, args=(wake,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        if self._thread is not None:
            self._thread.join(1)
        termios.tcsetattr(self.fd, termios.TCSADRAIN, self._before)

    def _read(self, wake: int) -> None:
        try:
            while True:
                ready, _, _ = select.select([self.fd, wake], [], [])
                if wake in ready:
                    return
                data = os.read(self.fd, 64)
                if not data:
                    return
                for key in data.decode("utf-8", "replace").lower():
                    if key in self.keys:
                        self.keys[key]()
        except OSError:
            return  # the terminal is gone
        finally:
            os.close(wake)
