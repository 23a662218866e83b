"""``ls``: the projects of this engine."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, Namespace
from collections import Counter

from orchestra import labels
from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="stopped projects too")
    add("-q", "--quiet", action="store_true", help="only names")
    add("--format", default="table", choices=["table", "json"], help="table or json")
    add("--filter", action="append", default=[], metavar="name=REGEX", help="only projects with such a name")


def run(context: Context, args: Namespace) -> int:
    _matches("", args.filter)  # what is wrong is told without projects, too
    projects: dict[str, list[dict[str, Any]]] = {}
    for info in context.client.call("projects"):
        projects.setdefault(info["project"], []).append(info)
    rows = []
    for name, found in sorted(projects.items()):
        if not args.all and all(c["state"] not in ("running", "paused", "restarting") for c in found):
            continue
        if not _matches(name, args.filter):
            continue
        counts = Counter(c["state"] for c in found)
        status = ", ".join(f"{state}({count})" for state, count in sorted(counts.items()))
        files = next(
            (c["labels"][labels.CONFIG_FILES] for c in found if c["labels"].get(labels.CONFIG_FILES)), ""
        )
        rows.append({"Name": name, "Status": status, "ConfigFiles": files})
    if args.quiet:
        for row in rows:
            print(row["Name"], file=context.stdout)
    elif args.format == "json":
        print(json.dumps(rows), file=context.stdout)
    else:
        context.table(
            ["NAME", "STATUS", "CONFIG FILES"],
            [[row["Name"], row["Status"], row["ConfigFiles"]] for row in rows],
        )
    return 0


def _matches(name: str, filters: list[str]) -> bool:
    for text in filters:
        key, _, value = text.partition("=")
        if key != "name":
            raise OrchestraError(f"unknown filter {key}", hint="there is: name=REGEX")
        try:
            if not re.search(value, name):
                return False
        except re.error as error:
            raise OrchestraError(f"invalid pattern {value!r}: {error}") from error
    return True
