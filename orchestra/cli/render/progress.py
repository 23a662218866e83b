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

    def __init__(self, stream: TextIO, *, dry_run: bool = False) -> None:
        self.stream = stream

    def show(self, event: dict[str, Any]) -> None:
        if event["status"] == "Warning" and not event["resource"]:
            print(f"warning: {event['text']}", file=self.stream, flush=True)

    def close(self) -> None:
        self.stream.flush()


class Tty(Renderer):
    """A block of one line a resource, redrawn in place at most ten times a second."""

    def __init__(self, stream: TextIO, *, dry_run: bool = False) -> None:
        self.stream, self.dry_run = stream, dry_run
        self.rows: dict[str, dict[str, Any]] = {}
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.drawn = 0
        self.last = 0.0

    def show(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        if event["status"] == "Warning" and not event["resource"]:
            self._erase()
            print(f"\033[33mwarning:\033[0m {event['text']}", file=self.stream)
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
        import shutil

        size = shutil.get_terminal_size()
        done = sum(1 for row in self.rows.values() if row["status"] != "Working")
        lines = [f"[+] Running {done}/{len(self.rows)}"]
        width = max((len(name) for name in self.rows), default=0)
        room = max(1, size.lines - 2)
        shown = list(self.rows.items())[-room:]
        now = time.monotonic()
        for name, row in shown:
            seconds = self.ended.get(name, now) - self.begun[name]
            percent = (
                f" {row['current'] * 100 // row['total']}%"
                if row["total"] and row["status"] == "Working"
                else ""
            )
            details = f" {row['details']}" if row["details"] else ""
            text = f" {MARKS[row['status']]} {name:<{width}}  {row['text']}{percent}{details}"
            tail = f"{seconds:5.1f}s"
            text = text[: max(10, size.columns - len(tail) - 1)]
            pad = " " * max(1, size.columns - len(text) - len(tail) - 1)
            lines.append(f"\033[{COLORS[row['status']]}m{text}\033[0m{pad}{tail}")
        self.stream.write("\n".join(lines) + "\n")
        self.stream.flush()
        self.drawn = len(lines)
        self.last = now

    def close(self) -> None:
        if self.rows:
            self._erase()
            self._draw()
            self.drawn = 0


def make(kind: str, stream: TextIO, *, dry_run: bool = False) -> Renderer:
    """The renderer for tty, plain, json or quiet."""
    if kind == "tty":
        return Tty(stream, dry_run=dry_run)
    if kind == "json":
        return Json(stream, dry_run=dry_run)
    return Plain(stream, dry_run=dry_run) if kind == "plain" else Quiet(stream, dry_run=dry_run)
