"""The one error of the runtime: which step failed, how, and on what.

It crosses a fork and a socket as ``{step, errno, path, message}``.
"""

from __future__ import annotations

import errno as numbers
import os
from typing import Any

from orchestra.errors import OrchestraError

EXEC = "exec"


class StepError(OrchestraError):
    """``step`` names what was being done (``mount /proc``, ``exec``), ``errno`` is 0 where no system
    call failed. ``exit_code`` is 127 for a program that is not there, 126 for one that cannot run."""

    def __init__(self, step: str, errno: int, path: str | None, message: str) -> None:
        super().__init__(f"{step}: {message}" if step else message)
        self.step = step
        self.errno = errno
        self.path = path
        self.message = message
        if step == EXEC or step.startswith(EXEC + " "):
            self.exit_code = 127 if errno in (numbers.ENOENT, numbers.ENOTDIR) else 126

    def to_step(self) -> dict[str, Any]:
        return {"step": self.step, "errno": self.errno, "path": self.path, "message": self.message}

    @classmethod
    def from_step(cls, data: dict[str, Any]) -> StepError:
        return cls(
            str(data.get("step", "")),
            int(data.get("errno") or 0),
            data.get("path"),
            str(data.get("message", "unknown error")),
        )

    @classmethod
    def of(cls, step: str, problem: BaseException) -> StepError:
        """Any exception as the failure of this step."""
        if isinstance(problem, StepError):
            return problem
        if isinstance(problem, OSError):
            text = problem.strerror or (os.strerror(problem.errno) if problem.errno else str(problem))
            path = os.fsdecode(problem.filename) if isinstance(problem.filename, (str, bytes)) else None
            return cls(step, problem.errno or 0, path, f"{text} ({path})" if path else text)
        if isinstance(problem, OrchestraError):
            return cls(step, 0, None, problem.brief)
        return cls(step, 0, None, f"{type(problem).__name__}: {problem}")
