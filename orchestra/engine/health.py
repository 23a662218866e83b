"""When a container is probed and what the answers mean: a pure policy on times handed in.

``starting`` until the first success or ``retries`` failures in a row. During ``start_period`` failures
do not count and probes follow every ``start_interval``; the first success ends that period. Afterwards
a probe every ``interval``, counted from the end of the one before.

Beyond docker: before the first regular probe is due, early ones run (after 0.2, 0.4, 0.8 … seconds).
Their failures never count; a success makes the container healthy at once instead of after a whole
interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestra.compose.model import HealthCheck

EARLY = 0.2
KEPT = 5
OUTPUT_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Probe:
    """A health check with every default filled in; ``test`` begins with CMD or CMD-SHELL."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0

    def command(self, shell: tuple[str, ...] = ("/bin/sh", "-c")) -> tuple[str, ...]:
        if self.test[0] == "CMD-SHELL":
            return (*shell, " ".join(self.test[1:]))
        return self.test[1:]


def effective_probe(check: HealthCheck | None, image: Mapping[str, Any]) -> Probe | None:
    """The service's health check over the one of the image's config (times there in nanoseconds)."""
    given = check or HealthCheck()
    inherited: Mapping[str, Any] = image.get("Healthcheck") or {}
    test = given.test or tuple(inherited.get("Test") or ())
    if given.disable or not test or test[0] == "NONE" or len(test) < 2:
        return None

    def seconds(own: float | None, key: str, default: float) -> float:
        if own is not None and own > 0:
            return own
        return float(inherited.get(key) or 0) / 1e9 or default

    return Probe(
        test=test,
        interval=seconds(given.interval, "Interval", 30.0),
        timeout=seconds(given.timeout, "Timeout", 30.0),
        retries=given.retries or int(inherited.get("Retries") or 0) or 3,
        start_period=seconds(given.start_period, "StartPeriod", 0.0),
        start_interval=seconds(given.start_interval, "StartInterval", 5.0),
    )


@dataclass(frozen=True, slots=True)
class Result:
    """One probe that was run."""

    start: float
    end: float
    exit_code: int
    output: str

    def to_dict(self) -> dict[str, Any]:
        return {"Start": self.start, "End": self.end, "ExitCode": self.exit_code, "Output": self.output}


@dataclass(slots=True)
class HealthTracker:
    """The health of one run of a container, from its start at ``started``."""

    probe: Probe
    started: float
    status: str = "starting"
    streak: int = 0  # failures in a row that count
    results: list[Result] = field(default_factory=list)
    _early: float = EARLY

    def first_due(self) -> float:
        return min(self._regular(self.started), self.started + EARLY)

    def due_after(self, end: float) -> float:
        """When the next probe is due, given that the last one ended at ``end``."""
        first = self._regular(self.started)
        if self.status == "starting" and end < first:
            self._early *= 2
            return min(first, end + self._early)
        return self._regular(end)

    def _regular(self, after: float) -> float:
        waiting = self.status == "starting" and after < self.started + self.probe.start_period
        if waiting:
            return after + min(self.probe.start_interval, max(self.probe.interval, EARLY))
        return after + self.probe.interval

    def record(self, result: Result) -> bool:
        """Takes a result in; true when the status changed."""
        before = self.status
        self.results = [*self.results, result][-KEPT:]
        if result.exit_code == 0:
            self.streak = 0
            self.status = "healthy"
        elif not self._forgiven(result):
            self.streak += 1
            if self.streak >= self.probe.retries:
                self.status = "unhealthy"
        return self.status != before

    def _forgiven(self, result: Result) -> bool:
        if self.status != "starting":
            return False
        early = result.start < self._regular(self.started) - 0.001
        return early or result.start < self.started + self.probe.start_period
