"""Problems of compose files: collected, sorted by place, printed with their source line.

Contract: nothing is printed here; :class:`ComposeError` is the one exception loading raises and
carries every problem found so far; its text is ready to print.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.compose.tree import Path, path_text
from orchestra.errors import Location, OrchestraError
from orchestra.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 50  # problems printed; the rest is counted
LONGEST = 2000  # characters of a line that is kept with a problem


@record
class Problem:
    """``severity`` is ``error`` or ``warning``; ``path`` is the place in the document
    (``services.web.ports[0]``); ``source_line`` the text of the line; ``notes`` say where a merged or
    included value came from."""

    severity: str
    message: str
    location: Location | None = None
    path: str = ""
    hint: str | None = None
    source_line: str | None = None
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """``file:line:column: error: message``, the source line with a caret, notes and the hint."""
        head = f"{self.severity}: {self.message}"
        if self.location is not None and self.location.file:
            head = f"{self.location}: {head}"
        lines = [head]
        if self.source_line is not None and self.location is not None:
            shown, caret = _excerpt(self.source_line, self.location.column)
            lines.append(f"    {shown}")
            if self.location.column:
                lines.append(f"    {caret}")
        lines += [f"  note: {note}" for note in self.notes]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        place = self.location
        return {
            "severity": self.severity,
            "message": self.message,
            "file": place.file if place else None,
            "line": place.line if place and place.line else None,
            "column": place.column if place and place.column else None,
            "path": self.path or None,
            "hint": self.hint,
            "source_line": self.source_line,
            "notes": list(self.notes),
        }


def _excerpt(line: str, column: int, width: int = 100) -> tuple[str, str]:
    """At most ``width`` characters around ``column`` and the caret below; tabs count as one blank."""
    line = "".join(char if char.isprintable() else " " for char in line.rstrip())
    start = 0
    if len(line) > width:
        start = max(0, min(column - width // 2, len(line) - width))
    return line[start : start + width], " " * max(0, column - 1 - start) + "^"


class Problems:
    """What was found so far. ``sources`` maps a file to its text, for the source lines."""

    def __init__(self) -> None:
        self.items: list[Problem] = []
        self.sources: dict[str, str] = {}
        self._lines: dict[str, list[str]] = {}
        self._seen: set[tuple[str, str, Location | None, str]] = set()

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        return True  # a collection, not a question: ``problems or Problems()`` must keep an empty one

    def add(
        self,
        severity: str,
        message: str,
        location: Location | None = None,
        path: Path | str = "",
        *,
        hint: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Record a problem; the same one at the same place counts once."""
        where = path if isinstance(path, str) else path_text(path)
        key = (severity, message, location, where)
        if key in self._seen:
            return
        self._seen.add(key)
        line = self.source_line(location) if location else None
        self.items.append(Problem(severity, message, location, where, hint, line, notes))

    def error(
        self,
        message: str,
        location: Location | None = None,
        path: Path | str = "",
        *,
        hint: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.add("error", message, location, path, hint=hint, notes=notes)

    def warn(
        self,
        message: str,
        location: Location | None = None,
        path: Path | str = "",
        *,
        hint: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.add("warning", message, location, path, hint=hint, notes=notes)

    def source_line(self, location: Location) -> str | None:
        """The text of the line, if the file's text is known."""
        lines = self._lines.get(location.file)
        if lines is None:
            text = self.sources.get(location.file)
            if text is None:
                return None
            lines = self._lines[location.file] = text.split("\n")
        line = lines[location.line - 1] if 0 < location.line <= len(lines) else ""
        if len(line) > LONGEST:  # no file writes such lines by hand: the place alone must do
            return line[:LONGEST] if location.column < LONGEST else None
        return line or None

    @property
    def errors(self) -> list[Problem]:
        return _sorted(item for item in self.items if item.severity == "error")

    @property
    def warnings(self) -> list[Problem]:
        return _sorted(item for item in self.items if item.severity == "warning")

    def check(self) -> None:
        """Raise :class:`ComposeError` when there is an error."""
        if any(item.severity == "error" for item in self.items):
            raise ComposeError(tuple(self.errors), tuple(self.warnings))

    def fail(
        self,
        message: str,
        location: Location | None = None,
        path: Path | str = "",
        *,
        hint: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> ComposeError:
        """Record an error and return the exception to raise (``raise problems.fail(…)``)."""
        self.error(message, location, path, hint=hint, notes=notes)
        return ComposeError(tuple(self.errors), tuple(self.warnings))


def _sorted(items: Any) -> list[Problem]:
    return sorted(items, key=lambda item: (item.location or Location(""), item.message))


class ComposeError(OrchestraError):
    """A compose project that cannot be loaded: all ``problems`` found, sorted by place."""

    exit_code = 1

    def __init__(self, problems: tuple[Problem, ...], warnings: tuple[Problem, ...] = ()) -> None:
        self.problems = problems
        self.warnings = warnings
        first = problems[0]
        super().__init__(first.message, hint=first.hint, location=first.location)

    def __str__(self) -> str:
        blocks = [problem.text() for problem in self.problems[:LIMIT]]
        if len(self.problems) > LIMIT:
            blocks.append(f"… and {len(self.problems) - LIMIT} more errors")
        return "\n".join(blocks)

    def render(self, *, color: bool) -> str:
        """All problems as a terminal shows them."""
        text = str(self)
        if not color:
            return text
        return text.replace(": error: ", ": \033[1;31merror:\033[0m ")

    def to_dict(self) -> dict[str, object]:
        return {**super().to_dict(), "problems": [problem.to_dict() for problem in self.problems]}
