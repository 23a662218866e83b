"""Tables: rich on a terminal, aligned columns in a pipe (so that scripts cut them as they are used to)."""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def print_table(
    stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]], *, pretty: bool, color: bool
) -> None:
    """``rows`` are texts, one for each column. Where not even the words fit side by side, plain lines that
    wrap are easier to read than a table."""
    if pretty and _fits(stream, columns, rows):
        _rich(stream, columns, rows, color=color)
        return
    stream.write(aligned(columns, rows))


def _fits(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    from orchestra.cli.render.progress import size

    longest = (
        max(len(word) for cell in cells for word in (cell.split() or [""]))
        for cells in zip(columns, *rows, strict=True)
    )
    return sum(length + 3 for length in longest) <= size(stream)[0]


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns three blanks apart, as docker prints them."""
    widths = [
        max(len(column), *(len(row[i]) for row in rows)) if rows else len(column)
        for i, column in enumerate(columns)
    ]
    lines = []
    for row in (columns, *rows):
        cells = [cell.ljust(widths[i]) for i, cell in enumerate(row)]
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


STATES = {
    "Up": "green",
    "Exited": "red",
    "running": "green",
    "exited": "red",
    "Created": "yellow",
    "Paused": "yellow",
}


def _rich(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[str]], *, color: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = []
        for cell in row:
            style = next((style for word, style in STATES.items() if cell.startswith(word)), "")
            cells.append(Text(cell, style=style))
        table.add_row(*cells)
    Console(file=stream, no_color=not color, highlight=False).print(table)
