"""The health policy on made-up times."""

from __future__ import annotations

import pytest

from orchestra.compose.model import HealthCheck
from orchestra.engine.health import HealthTracker, Probe, Result, effective_probe

PROBE = Probe(("CMD", "x"), interval=10.0, retries=2)


def result(at: float, code: int) -> Result:
    return Result(at, at + 0.1, code, "")


def test_first_success_is_healthy_and_retries_failures_unhealthy() -> None:
    tracker = HealthTracker(PROBE, 0.0)
    assert tracker.status == "starting"
    assert tracker.record(result(10.0, 0))
    assert tracker.status == "healthy"
    assert not tracker.record(result(20.0, 1))
    assert tracker.record(result(30.0, 1))
    assert tracker.status == "unhealthy"
    assert tracker.record(result(40.0, 0))
    assert tracker.status == "healthy"


def test_early_probes_help_but_never_harm() -> None:
    tracker = HealthTracker(PROBE, 0.0)
    due = [tracker.first_due()]
    while due[-1] < 10.0:
        tracker.record(Result(due[-1], due[-1], 1, ""))
        assert tracker.status == "starting"
        assert tracker.streak == 0
        due.append(tracker.due_after(due[-1]))
    assert due[:3] == pytest.approx([0.2, 0.6, 1.4])
    assert due[-1] == 10.0
    tracker.record(result(10.0, 1))
    assert tracker.due_after(10.0) == 20.0
    tracker.record(result(20.0, 1))
    assert tracker.status == "unhealthy"


def test_failures_in_the_start_period_are_forgiven() -> None:
    probe = Probe(("CMD", "x"), interval=10.0, retries=1, start_period=20.0, start_interval=2.0)
    tracker = HealthTracker(probe, 0.0)
    tracker.record(result(2.0, 1))
    assert tracker.due_after(2.1) == pytest.approx(4.1)
    tracker.record(result(19.0, 1))
    assert tracker.status == "starting"
    tracker.record(result(21.0, 1))
    assert tracker.status == "unhealthy"


def test_first_success_ends_the_start_period() -> None:
    probe = Probe(("CMD", "x"), interval=10.0, retries=1, start_period=20.0, start_interval=2.0)
    tracker = HealthTracker(probe, 0.0)
    tracker.record(result(2.0, 0))
    assert tracker.due_after(2.0) == 12.0
    tracker.record(result(4.0, 1))
    assert tracker.status == "unhealthy"


def test_only_the_last_results_are_kept() -> None:
    tracker = HealthTracker(PROBE, 0.0)
    for number in range(9):
        tracker.record(result(float(number), 0))
    assert [one.start for one in tracker.results] == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_service_over_image_over_default() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "from-image"], "Interval": 2_000_000_000, "Retries": 7}}
    assert effective_probe(HealthCheck(timeout=1.0), image) == Probe(("CMD", "from-image"), 2.0, 1.0, 7)
    own = effective_probe(HealthCheck(("CMD-SHELL", "own")), image)
    assert own == Probe(("CMD-SHELL", "own"), 2.0, 30.0, 7)
    assert effective_probe(HealthCheck(disable=True), image) is None
    assert effective_probe(HealthCheck(("NONE",)), image) is None
    assert effective_probe(None, {}) is None


def test_shell_form() -> None:
    assert Probe(("CMD-SHELL", "a && b")).command() == ("/bin/sh", "-c", "a && b")
    assert Probe(("CMD", "a", "b")).command() == ("a", "b")
