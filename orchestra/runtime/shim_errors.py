"""Errors of the shim as data, so that they cross its socket and are raised again on the other side."""

from __future__ import annotations

import errno
import os
from typing import Any

from orchestra.errors import ConflictError, NotFoundError, OrchestraError, UnsupportedError
from orchestra.runtime.problems import StepError


class ShimGone(OrchestraError):
    """The shim's process has ended (or was replaced) while it was spoken to."""


class StateError(ConflictError):
    """The container is not in a state in which this can be done. ``status`` is the one it is in."""

    def __init__(self, container: str, status: str, wanted: tuple[str, ...] = ()) -> None:
        tail = f", not {' or '.join(wanted)}" if wanted else ""
        super().__init__(f"container {container} is {status}{tail}")
        self.container = container
        self.status = status
        self.wanted = wanted


def to_data(problem: BaseException) -> dict[str, Any]:
    """The error as JSON data: ``kind`` is step, state, missing, orchestra, os or bug."""
    if isinstance(problem, StateError):
        return {
            "kind": "state",
            "container": problem.container,
            "status": problem.status,
            "wanted": list(problem.wanted),
        }
    if isinstance(problem, StepError):
        return {"kind": "step", **problem.to_step()}
    if isinstance(problem, NotFoundError):
        return {"kind": "missing", "brief": problem.brief}
    if isinstance(problem, OrchestraError):
        return {
            "kind": "unsupported" if isinstance(problem, UnsupportedError) else "orchestra",
            "error": problem.to_dict(),
        }
    if isinstance(problem, OSError):
        return {
            "kind": "os",
            "errno": problem.errno or errno.EIO,
            "message": problem.strerror or str(problem),
            "path": os.fsdecode(problem.filename) if isinstance(problem.filename, str | bytes) else "",
        }
    return {"kind": "bug", "message": f"{type(problem).__name__}: {problem}"}


def from_data(data: dict[str, Any]) -> Exception:
    """The exception that :func:`to_data` described."""
    kind = data.get("kind")
    if kind == "step":
        return StepError.from_step(data)
    if kind == "state":
        return StateError(data["container"], data["status"], tuple(data["wanted"]))
    if kind == "missing":
        return NotFoundError(data["brief"])
    if kind == "os":
        return OSError(data["errno"], data["message"], data["path"] or None)
    if kind in ("orchestra", "unsupported"):
        error = OrchestraError.from_dict(data["error"])
        if kind == "orchestra":
            return error
        return UnsupportedError(error.brief, details=error.details, hint=error.hint)
    return RuntimeError(f"shim: {data.get('message')}")
