"""A pytest plugin for the guest: one JSON line a test in /out/results, as it happens, so that also a
machine that dies leaves what it found."""

from __future__ import annotations

import json

import pytest

PLACE = "/out/results"


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """The call itself, and a setup or teardown that is not simply fine."""
    if report.when != "call" and report.passed:
        return
    reason = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2])
    elif report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(crash.message if crash else report.longrepr)
    outcome = report.outcome if report.when == "call" or report.skipped else "error"
    line = {"test": report.nodeid, "outcome": outcome, "seconds": round(report.duration, 1), "reason": reason}
    with open(PLACE, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


@pytest.hookimpl
def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        line = {"test": report.nodeid, "outcome": "error", "seconds": 0, "reason": str(report.longrepr).splitlines()[-1]}
        with open(PLACE, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
