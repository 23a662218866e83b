"""The engine's settings: /etc/orchestra/daemon.json, or the file that ORCHESTRA_SETTINGS names.

A JSON object with dockerd's keys, as far as there is something for them: ``userns-remap`` and
``id-mapped-mounts`` (see ``userns``), ``default-address-pools``. Read when something asks, so a change holds
for what is made afterwards.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestra.errors import Location, OrchestraError
from orchestra.network.ipam import DEFAULT_POOLS, Pool, make_pool

PLACE = Path("/etc/orchestra/daemon.json")
_KEYS = {"userns-remap", "id-mapped-mounts", "default-address-pools"}


def read(path: Path | None = None) -> tuple[Path, dict[str, Any]]:
    """(the file, what it says). OrchestraError for what is no JSON, or a key that is not known."""
    place = path or _place(os.environ.get("ORCHESTRA_SETTINGS", ""))
    try:
        look = os.stat(place)
        data = _parsed(place, look.st_ino, look.st_mtime_ns, look.st_size)
    except FileNotFoundError:
        return place, {}
    return place, data


@lru_cache(maxsize=4)
def _place(named: str) -> Path:
    return Path(named or PLACE)


@lru_cache(maxsize=4)
def _parsed(place: Path, *_look: int) -> dict[str, Any]:
    """Read once for each look (inode, time, size) of the file; nobody changes what it gives."""
    text = place.read_text("utf-8")
    try:
        data = json.loads(text)
    except ValueError as problem:
        line = getattr(problem, "lineno", 1)
        raise OrchestraError(
            f"the settings are no JSON: {problem}", location=Location(str(place), line)
        ) from None
    unknown = sorted(set(data) - _KEYS) if isinstance(data, dict) else ["(no object)"]
    if unknown:
        raise OrchestraError(
            f"unknown setting {', '.join(unknown)}",
            hint=f"known: {', '.join(sorted(_KEYS))}",
            location=Location(str(place), 1),
        )
    return dict(data)


def pools(path: Path | None = None) -> tuple[Pool, ...]:
    """``default-address-pools``: where the subnets of networks come from that name none, in dockerd's form
    (``[{"base": "10.9.0.0/16", "size": 24}]``)."""
    place, data = read(path)
    listed = data.get("default-address-pools")
    if listed is None:
        return DEFAULT_POOLS
    try:
        if not isinstance(listed, list) or not listed:
            raise ValueError("it must be a list of at least one pool")
        return tuple(make_pool(str(entry["base"]), int(entry["size"])) for entry in listed)
    except (KeyError, TypeError, ValueError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)
        raise OrchestraError(
            f"default-address-pools: {what}",
            hint='write "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}]',
            location=Location(str(place), 1),
        ) from None
