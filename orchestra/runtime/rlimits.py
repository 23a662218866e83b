"""Resource limits of the process: names to numbers, and setting them."""

from __future__ import annotations

import resource
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.runtime.problems import StepError

NUMBERS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
_INFINITY = 2**63  # resource.setrlimit takes no number from here on
Limit = tuple[str, int, int]


def parse(entries: list[dict[str, Any]] | None) -> list[Limit]:
    """(name, soft, hard), -1 for unlimited."""
    found: list[Limit] = []
    for entry in entries or ():
        name = str(entry.get("type", ""))
        if name not in NUMBERS:
            raise OrchestraError(f"process.rlimits: unknown type {name!r}")
        if any(name == other for other, _, _ in found):
            raise OrchestraError(f"process.rlimits: {name} is given twice")
        soft, hard = _value(entry.get("soft")), _value(entry.get("hard"))
        if hard != -1 and (soft == -1 or soft > hard):
            raise OrchestraError(f"process.rlimits: the soft limit of {name} is above its hard limit")
        found.append((name, soft, hard))
    return found


def _value(number: Any) -> int:
    value = int(number or 0)
    return resource.RLIM_INFINITY if value < 0 or value >= _INFINITY else value


def apply(limits: list[Limit]) -> None:
    for name, soft, hard in limits:
        try:
            resource.setrlimit(NUMBERS[name], (soft, hard))
        except (ValueError, OSError) as problem:
            number = problem.errno if isinstance(problem, OSError) else 1
            now = resource.getrlimit(NUMBERS[name])[1]
            raise StepError(
                f"set {name}",
                number or 0,
                None,
                f"cannot set soft {soft} and hard {hard}: this machine allows at most {now}",
            ) from None
