"""Concurrent wishes share runs, and each is served by a run that began after it."""

from __future__ import annotations

import threading

import pytest

from orchestra.engine.batch import Batch


def test_waiters_share_one_run() -> None:
    runs: list[int] = []
    gate, entered = threading.Event(), threading.Event()

    def action() -> None:
        runs.append(1)
        entered.set()
        gate.wait(20)

    batch = Batch(action)
    threads = [threading.Thread(target=batch.run)]
    threads[0].start()
    assert entered.wait(20)
    threads += [threading.Thread(target=batch.run) for _ in range(10)]
    for thread in threads[1:]:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(20)
    assert 2 <= len(runs) <= 11
    assert not any(thread.is_alive() for thread in threads)


def test_an_error_reaches_the_caller_and_not_the_next_one() -> None:
    outcomes = [ValueError("x"), None]

    def action() -> None:
        outcome = outcomes.pop(0)
        if outcome:
            raise outcome

    batch = Batch(action)
    with pytest.raises(ValueError):
        batch.run()
    batch.run()
