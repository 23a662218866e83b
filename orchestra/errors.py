"""The one root of all errors a user may see, and what every error carries.

An :class:`OrchestraError` is a user's problem: it is printed as one clear message and never as a
traceback. Anything else that escapes is a bug.
"""

from __future__ import annotations

from collections import namedtuple


class Location(namedtuple("Location", ("file", "line", "column"), defaults=(0, 0))):
    """A place in a text file. ``line`` and ``column`` count from 1; 0 means unknown."""

    __slots__ = ()
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


class OrchestraError(Exception):
    """``brief`` is lower case, has no final period and names the thing; ``details`` are further
    lines; ``hint`` says what to do; ``location`` is where the cause stands, if it stands in a file.
    """

    exit_code = 1

    def __init__(
        self,
        brief: str,
        *,
        details: tuple[str, ...] = (),
        hint: str | None = None,
        location: Location | None = None,
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = tuple(details)
        self.hint = hint
        self.location = location

    def __str__(self) -> str:
        head = f"{self.location}: {self.brief}" if self.location else self.brief
        return "\n".join([head, *(f"  {line}" for line in self.details)])

    def to_dict(self) -> dict[str, object]:
        """The error as JSON data, as it crosses the daemon's socket."""
        place = None
        if self.location:
            place = [self.location.file, self.location.line, self.location.column]
        return {
            "type": type(self).__name__,
            "brief": self.brief,
            "details": list(self.details),
            "hint": self.hint,
            "location": place,
            "exit_code": self.exit_code,
        }

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> OrchestraError:
        """The error that :meth:`to_dict` described (as the root class, with its exit code)."""
        place = data.get("location")
        error = OrchestraError(
            str(data.get("brief", "unknown error")),
            details=tuple(str(line) for line in data.get("details") or ()),  # type: ignore[attr-defined]
            hint=str(data["hint"]) if data.get("hint") else None,
            location=Location(*place) if isinstance(place, list) else None,
        )
        code = data.get("exit_code", 1)
        error.exit_code = code if isinstance(code, int) else 1
        return error


class UsageError(OrchestraError):
    """Words on the command line that make no sense together."""


class NotFoundError(OrchestraError):
    """A named thing (image, container, network, volume, service) does not exist."""


class ConflictError(OrchestraError):
    """A name, address or port is taken, or a thing is in use."""


class UnsupportedError(OrchestraError):
    """Asked for something this machine or this program cannot do, where ignoring it were unsafe."""
