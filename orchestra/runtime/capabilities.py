"""The five capability sets of a process, and giving them up in the right order.

Dropping has two halves, as loading a seccomp filter without no_new_privs needs CAP_SYS_ADMIN: after
``become`` the thread holds its final sets and CAP_SYS_ADMIN; ``settle`` takes that away. The extra bit
cannot survive execve: it is in no bounding, inheritable or ambient set.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import calls, caps
from orchestra.linux import constants as C
from orchestra.record import record

_KEYS = ("bounding", "permitted", "effective", "inheritable", "ambient")


@record
class Sets:
    """Masks."""

    bounding: int = 0
    permitted: int = 0
    effective: int = 0
    inheritable: int = 0
    ambient: int = 0


def parse(data: dict[str, Any] | None) -> tuple[Sets, list[str]]:
    """The sets, and a warning for each name that cannot be given here. Without an object: none at all."""
    wanted = tuple(tuple(str(name) for name in (data or {}).get(key) or ()) for key in _KEYS)
    sets, warnings = _parse(wanted, os.getpid())
    return sets, list(warnings)


@functools.lru_cache(maxsize=64)
def _parse(every: tuple[tuple[str, ...], ...], _pid: int) -> tuple[Sets, tuple[str, ...]]:
    """Most containers ask for the same. What this process holds itself does not change in its life."""
    warnings: list[str] = []
    available = caps.bounding()
    held = calls.capget()[1]
    masks = {}
    for key, given in zip(_KEYS, every, strict=True):
        names = [name.upper() for name in given]
        unknown = sorted(set(names) - set(caps.NUMBERS))
        if unknown:
            raise OrchestraError(f"process.capabilities.{key}: unknown capability {', '.join(unknown)}")
        wanted = caps.mask(names)
        limit = available if key == "bounding" else available & held
        if key == "bounding" and wanted & ~limit:
            warnings.append(
                f"capabilities: this machine cannot give {', '.join(caps.names(wanted & ~limit))}"
            )
        masks[key] = wanted & limit
    masks["effective"] &= masks["permitted"]
    masks["ambient"] &= masks["permitted"] & masks["inheritable"]
    return Sets(**masks), tuple(warnings)


def become(sets: Sets, uid: int, gid: int, groups: list[int] | None) -> None:
    """Bounding set, user and groups, then the final sets with CAP_SYS_ADMIN besides."""
    caps.drop_bounding(sets.bounding)
    calls.prctl(C.PR_SET_KEEPCAPS, 1)
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    calls.prctl(C.PR_SET_KEEPCAPS, 0)
    extra = caps.SYS_ADMIN & calls.capget()[1]
    calls.capset(sets.effective | extra, sets.permitted | extra, sets.inheritable)
    caps.raise_ambient(sets.ambient)


def settle(sets: Sets) -> None:
    calls.capset(sets.effective, sets.permitted, sets.inheritable)
