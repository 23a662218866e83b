"""When a stopped container is started again: a pure policy on times handed in.

Docker's rules: ``always`` and ``unless-stopped`` after every exit, ``on-failure`` after a code other
than 0, at most ``maximum`` times in a row; the first delay is 100 ms and doubles up to a minute; a run
of ten seconds counts as good and starts over. A set ``delay`` is kept constant, a set ``window``
replaces the ten seconds. A stop by hand ends it until the next start by hand.
"""

from __future__ import annotations

from orchestra.backend import RestartSpec

FIRST_DELAY = 0.1
LONGEST_DELAY = 60.0
GOOD_RUN = 10.0


class RestartTracker:
    """The restarts of one container. ``failures`` counts restarts in a row without a good run."""

    def __init__(self, spec: RestartSpec) -> None:
        self.spec = spec
        self.failures = 0
        self._started: float | None = None
        self._by_hand = False

    def started(self, at: float, *, by_hand: bool) -> None:
        """``at`` is any clock that also stands behind ``exited``'s."""
        self._started = at
        self._by_hand = False
        if by_hand:
            self.failures = 0

    def stopping_by_hand(self) -> None:
        self._by_hand = True

    @property
    def stopped_by_hand(self) -> bool:
        return self._by_hand

    def exited(self, code: int, at: float) -> float | None:
        """The seconds to wait before the next start, or None when there is none."""
        window = GOOD_RUN if self.spec.window is None else self.spec.window
        if self._started is not None and at - self._started >= window:
            self.failures = 0
        self._started = None
        if self._by_hand or not self._wanted(code):
            return None
        self.failures += 1
        if self.spec.delay is not None:
            return self.spec.delay
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures - 1, 30))

    def _wanted(self, code: int) -> bool:
        name = self.spec.name
        if name not in ("always", "unless-stopped") and not (name == "on-failure" and code):
            return False
        return not self.spec.maximum or self.failures < self.spec.maximum


def restart_after_boot(spec: RestartSpec, *, stopped_by_hand: bool) -> bool:
    """Whether the container is started when its engine first runs after the machine's boot."""
    return spec.name == "always" or (spec.name == "unless-stopped" and not stopped_by_hand)
