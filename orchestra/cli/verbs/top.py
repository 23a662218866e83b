"""``top``: processes of the project's containers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import containers

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    _, found = containers(context, args.services)
    rows, columns = [], ["SERVICE", "#"]
    for info in found:
        if info["state"] not in ("running", "paused"):
            continue
        table = context.client.call("top", {"ref": info["id"]})
        columns = ["SERVICE", "#", *table["titles"]]
        rows += [[info["service"], str(info["number"]), *row] for row in table["rows"]]
    if rows:
        context.table(columns, rows)
    return 0
