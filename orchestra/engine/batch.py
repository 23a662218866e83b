"""Several concurrent wishes for the same whole-state action become one run of it.

``run()`` returns after a run that began after the call; whoever comes while one is under way waits for
the next one together with all others that came meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Batch:
    """``action`` takes the whole state anew each time."""

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._condition = threading.Condition()
        self._running = False
        self._begun = 0
        self._done = 0
        self._error: tuple[int, BaseException] | None = None

    def run(self) -> None:
        """Raises what the run that served this call raised."""
        with self._condition:
            wanted = self._begun + 1
            while self._done < wanted and self._running:
                self._condition.wait()
            if self._done >= wanted:
                self._raise(wanted)
                return
            self._running = True
            self._begun += 1
            number = self._begun
        error: BaseException | None = None
        try:
            self._action()
        except BaseException as caught:
            error = caught
        with self._condition:
            self._running = False
            self._done = number
            if error is not None:
                self._error = (number, error)
            self._condition.notify_all()
        if error is not None:
            raise error

    def _raise(self, wanted: int) -> None:
        if self._error is not None and self._error[0] >= wanted:
            raise self._error[1]
