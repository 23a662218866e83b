"""Progress of an operation, drawn: tty, plain, json or quiet (docker compose's words and forms).

Every renderer takes :meth:`orchestra.events.Progress.to_dict` values.
"""

from __future__ import annotations

import json
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

MARKS = {"Working": "⠿", "Done": "✔", "Warning": "!", "Error": "✘"}
COLORS = {"Working": "36", "Done": "32", "Warning": "33", "Error": "31"}


class Renderer:
    """Something that shows progress until closed."""

    def show(self, event: dict[str, Any]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class Plain(Renderer):
    """One line an event: `` Container x-web-1  Started``."""

    def __init__(self, stream: TextIO, *, dry_run: bool = False) -> None:
        self.stream, self.prefix = stream, "DRY-RUN MODE - " if dry_run else ""
        self._last: dict[str, str] = {}

    def show(self, event: dict[str, Any]) -> None:
        if event["status"] == "Warning" and not event["resource"]:
            print(f"{self.prefix}warning: {event['text']}", file=self.stream, flush=True)
            return
        if (
            event["total"]
            and self._last.get(event["resource"]) == event["text"]
            and event["status"] == "Working"
        ):
            return  # a line for every block of a download would drown the rest
        self._last[event["resource"]] = event["text"]
        details = f"  {event['details']}" if event["details"] else ""
        print(f"{self.prefix} {event['resource']}  {event['text']}{details}", file=self.stream, flush=True)

    def close(self) -> None:
        self.stream.flush()


class Json(Renderer):
    """One JSON object a line."""

    def __init__(self, stream: TextIO, *, dry_run: bool = False) -> None:
        self.stream, self.dry_run = stream, dry_run

    def show(self, event: dict[str, Any]) -> None:
        line = {"id": event["resource"], "status": event["status"], "text": event["text"]}
        if event["details"]:
            line["details"] = event["details"]
        if event["total"]:
            line |= {
                "current": event["current"],
                "total": event["total"],
                "percent": event["current"] * 100 // event["total"],
            }
        if self.dry_run:
            line["dry-run"] = True
        print(json.dumps(line), file=self.stream, flush=True)

    def close(self) -> None:
        self.stream.flush()


class Quiet(Renderer):
    """Only warnings without a resource and errors."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, event: dict[str, Any]) -> None:
        if event["status"] == "Warning" and not event["resource"]:
            print(f"warning: {event['text']}", file=self.stream, flush=True)

    def close(self) -> None:
        self.stream.flush()


class Tty(Renderer):
    """A block of one line a resource, redrawn in place at most ten times a second."""

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self.stream, self.color = stream, color
        self.rows: dict[str, dict[str, Any]] = {}
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.drawn = 0
        self.last = 0.0

    def show(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["status"] == "Warning" and not event["resource"]:
            self._erase()
            print(f"{self._painted('33', 'warning:')} {event['text']}", file=self.stream)
            self._draw()
            return
        name = event["resource"]
        self.rows[name] = event
        self.begun.setdefault(name, now)
        if event["status"] == "Working":
            self.ended.pop(name, None)
        else:
            self.ended[name] = now
        if now - self.last > 0.1 or event["status"] != "Working":
            self._erase()
            self._draw()

    def _erase(self) -> None:
        if self.drawn:
            self.stream.write(f"\033[{self.drawn}A\033[J")
        self.drawn = 0

    def _draw(self) -> None:
        columns, height = size(self.stream)
        done = sum(1 for row in self.rows.values() if row["status"] != "Working")
        lines = [f"[+] Running {done}/{len(self.rows)}"[: columns - 1]]
        width = max((len(name) for name in self.rows), default=0)
        now = time.monotonic()
        for name, row in list(self.rows.items())[-max(1, height - 2) :]:
            seconds = self.ended.get(name, now) - self.begun[name]
            percent = (
                f" {row['current'] * 100 // row['total']}%"
                if row["total"] and row["status"] == "Working"
                else ""
            )
            details = f" {row['details']}" if row["details"] else ""
            text = f" {MARKS[row['status']]} {name:<{width}}  {row['text']}{percent}{details}"
            lines.append(self._line(COLORS[row["status"]], text, f"{seconds:5.1f}s", columns - 1))
        self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()
        self.drawn = len(lines)
        self.last = now

    def _line(self, color: str, text: str, tail: str, room: int) -> str:
        """Never wider than ``room``: a line that wraps could not be drawn over. Narrow ones have no time."""
        text = "".join(char if char.isprintable() else " " for char in text)
        if room < 30:
            return self._painted(color, text[: max(1, room)])
        text = text[: room - len(tail) - 1]
        return f"{self._painted(color, text)}{' ' * (room - len(text) - len(tail))}{tail}"

    def _painted(self, color: str, text: str) -> str:
        return f"\033[{color}m{text}\033[0m" if self.color else text

    def close(self) -> None:
        if self.rows:
            self._erase()
            self._draw()
            self.drawn = 0


def size(stream: TextIO) -> tuple[int, int]:
    """(columns, lines): of ``COLUMNS`` and ``LINES``, else of the terminal that ``stream`` is, else 80 and 24."""
    import os

    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        found = os.terminal_size((80, 24))
    columns, lines = (os.environ.get(name, "") for name in ("COLUMNS", "LINES"))
    return (
        int(columns) if columns.isdigit() and int(columns) else found.columns or 80,
        int(lines) if lines.isdigit() and int(lines) else found.lines or 24,
    )


class Hushed(Renderer):
    """Another renderer without the resources whose names begin with ``hushed``, except for their errors."""

    def __init__(self, renderer: Renderer, hushed: tuple[str, ...]) -> None:
        self.renderer, self.hushed = renderer, hushed

    def show(self, event: dict[str, Any]) -> None:
        if event["status"] == "Error" or not event["resource"].startswith(self.hushed):
            self.renderer.show(event)

    def close(self) -> None:
        self.renderer.close()


def make(
    kind: str,
    stream: TextIO,
    *,
    dry_run: bool = False,
    hushed: tuple[str, ...] = (),
    color: bool = True,
) -> Renderer:
    """The renderer for tty, plain, json or quiet."""
    renderer: Renderer
    if kind == "tty":
        renderer = Tty(stream, color=color)
    elif kind == "json":
        renderer = Json(stream, dry_run=dry_run)
    else:
        renderer = Plain(stream, dry_run=dry_run) if kind == "plain" else Quiet(stream)
    return Hushed(renderer, hushed) if hushed else renderer
