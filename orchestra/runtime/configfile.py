"""A bundle's ``config.json`` as the shim reads it, again and again.

Most of it is the filter of system calls, and nearly all containers have the same: its text is known again, and
stands compiled (``process.Filter``) where the profile was.
"""

from __future__ import annotations

import json
import os
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.runtime.process import Filter, compile_filter

_KEPT = 4
_MARK = '"seccomp": '
_known: dict[str, Filter] = {}  # by the text of the profile
_decoder = json.JSONDecoder()


def load(path: str) -> dict[str, Any]:
    """``ValueError`` where it is no JSON."""
    text = _read(path).decode()
    found = _with_filter(text)
    if found is None:
        found = json.loads(text)
    assert isinstance(found, dict)
    return found


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(fd, 1 << 16)]
        while len(parts[-1]) == 1 << 16:
            parts.append(os.read(fd, 1 << 16))
    finally:
        os.close(fd)
    return b"".join(parts)


def _with_filter(text: str) -> dict[str, Any] | None:
    """None where the profile is not found, or is one that there is something to say about."""
    place = text.find(_MARK) + len(_MARK)
    if place < len(_MARK) or text.find(_MARK, place) >= 0 or text[place - len(_MARK) - 1] == "\\":
        return None
    profile = next((one for one in _known if text.startswith(one, place)), None) or _learn(text, place)
    if profile is None:
        return None
    found: dict[str, Any] = json.loads(f"{text[:place]}null{text[place + len(profile) :]}")
    linux = found.get("linux") if isinstance(found, dict) else None
    if not isinstance(linux, dict) or linux.get("seccomp", found) is not None:
        return None
    linux["seccomp"] = _known[profile]
    return found


def _learn(text: str, place: int) -> str | None:
    """The text of the profile that begins there, known from now on."""
    data, end = _decoder.raw_decode(text, place)
    if not isinstance(data, dict) or not data:
        return None
    try:
        compiled = compile_filter(data)
    except (OrchestraError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    while len(_known) >= _KEPT:
        del _known[next(iter(_known))]
    profile = text[place:end]
    _known[profile] = compiled
    return profile
