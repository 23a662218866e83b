"""The restart policy on made-up times."""

from __future__ import annotations

import pytest

from orchestra.backend import RestartSpec
from orchestra.engine.restart import RestartTracker, restart_after_boot


def crashes(tracker: RestartTracker, count: int, code: int = 1) -> list[float | None]:
    delays = []
    for number in range(count):
        tracker.started(float(number), by_hand=number == 0)
        delays.append(tracker.exited(code, number + 0.5))
    return delays


def test_back_off_doubles_up_to_a_minute() -> None:
    delays = crashes(RestartTracker(RestartSpec("always")), 12)
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-1] == 60.0


def test_a_good_run_starts_over() -> None:
    tracker = RestartTracker(RestartSpec("always"))
    crashes(tracker, 5)
    tracker.started(100.0, by_hand=False)
    assert tracker.exited(1, 110.0) == 0.1
    assert tracker.failures == 1


def test_on_failure_counts_restarts_in_a_row() -> None:
    assert crashes(RestartTracker(RestartSpec("on-failure", maximum=2)), 3) == [0.1, 0.2, None]
    assert crashes(RestartTracker(RestartSpec("on-failure")), 1, code=0) == [None]
    tracker = RestartTracker(RestartSpec("on-failure", maximum=1))
    assert crashes(tracker, 2)[-1] is None
    tracker.started(50.0, by_hand=True)
    assert tracker.exited(1, 50.1) == 0.1


@pytest.mark.parametrize("name", ["no", ""])
def test_no_policy_never_restarts(name: str) -> None:
    assert crashes(RestartTracker(RestartSpec(name)), 1) == [None]


def test_a_stop_by_hand_ends_it_until_the_next_start() -> None:
    tracker = RestartTracker(RestartSpec("always"))
    tracker.started(0.0, by_hand=True)
    tracker.stopping_by_hand()
    assert tracker.exited(137, 1.0) is None
    assert tracker.stopped_by_hand
    tracker.started(2.0, by_hand=True)
    assert tracker.exited(0, 3.0) == 0.1


def test_own_delay_and_window() -> None:
    tracker = RestartTracker(RestartSpec("on-failure", maximum=2, delay=5.0, window=0.2))
    assert crashes(tracker, 4) == [5.0] * 4  # each run of 0.5 s was a good one


def test_after_a_boot() -> None:
    assert restart_after_boot(RestartSpec("always"), stopped_by_hand=True)
    assert restart_after_boot(RestartSpec("unless-stopped"), stopped_by_hand=False)
    assert not restart_after_boot(RestartSpec("unless-stopped"), stopped_by_hand=True)
    assert not restart_after_boot(RestartSpec("on-failure"), stopped_by_hand=False)
