"""What a start asks the machine for: looked up once a second at most, as a burst of starts asks the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from orchestra.runtime import defaults


@dataclass(frozen=True, slots=True)
class Machine:
    """``masked``: the paths of /proc and /sys that containers do not see."""

    cpus: int
    swap: bool
    masked: tuple[str, ...]


def machine(clock: Callable[[], float] = time.monotonic) -> Machine:
    """As it is now, give or take a second."""
    return _in_second(int(clock()))


@lru_cache(maxsize=1)
def _in_second(_second: int) -> Machine:
    return Machine(os.cpu_count() or 1, _has_swap(), tuple(defaults.masked_paths()))


def _has_swap() -> bool:
    try:
        with open("/proc/swaps", "rb") as stream:
            return len(stream.readlines()) > 1
    except OSError:
        return False
