"""What the virtual machine found, as a page: ``docs/vm-results.md``.

usage: report.py OUT --code N --seconds N --accel TEXT [--write FILE]

OUT is the directory that the guest wrote: ``results`` (JSON lines of ``record.py``), ``kernel``,
``info`` (what ``orchestra info`` says there). A machine that ended early gives a page that says so.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ORDER = ("failed", "error", "skipped", "passed")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--code", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--accel", required=True)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    tests = [json.loads(line) for line in text(options.out / "results").splitlines()]
    kernel = (text(options.out / "kernel").splitlines() or ["no kernel"])[0]
    print(f"virtual machine: {kernel}, {summary(tests)}, {options.seconds} s")
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(page(options, tests), encoding="utf-8")
        print(f"written: {options.write}")
    return 0


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def summary(tests: list[dict[str, Any]]) -> str:
    counts = Counter(test["outcome"] for test in tests)
    return ", ".join(f"{counts[word]} {word}" for word in ORDER if counts[word]) or "no test ran"


def page(options: argparse.Namespace, tests: list[dict[str, Any]]) -> str:
    kernel = text(options.out / "kernel").splitlines()
    info = dict(line.partition(": ")[::2] for line in text(options.out / "info").splitlines())
    ends = {0: "all passed", 1: "some failed", 124: "out of time: what is missing below did not run",
            125: "the machine ended early: what is missing below did not run"}
    lines = [
        "# Tests on cgroup version 2", "",
        "The last run of `make test-vm`: a virtual machine with unified cgroups only. Written by `tests/vm/run.sh`;",
        "the default choice of tests is `tests/vm/selection`.", "",
        f"- date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- kernel: {kernel[1] if len(kernel) > 1 else 'unknown'}",
        f"- cgroups (`orchestra info`): {info.get('cgroups', 'unknown')}",
        f"- storage, firewall: {info.get('storage', 'unknown')}, {info.get('firewall', 'unknown')}",
        f"- machine: QEMU, {options.accel}, {options.seconds} s in all",
        f"- result: {summary(tests)}; {ends.get(options.code, f'pytest exit code {options.code}')}", "",
    ]
    for outcome in ORDER[:3]:
        chosen = [test for test in tests if test["outcome"] == outcome]
        if chosen:
            lines += [f"## {outcome}", ""]
            lines += [f"- `{test['test']}`: {short(test['reason'])}" for test in chosen] + [""]
    lines += ["## passed", "", "| test | s |", "| --- | ---: |"]
    lines += [f"| {test['test']} | {test['seconds']} |" for test in tests if test["outcome"] == "passed"]
    return "\n".join(lines) + "\n"


def short(reason: str) -> str:
    """The first lines of it, in one."""
    words = " ".join(reason.removeprefix("Skipped: ").split())
    return words if len(words) <= 300 else words[:300] + " …"


if __name__ == "__main__":
    raise SystemExit(main())
