"""``stats``: CPU, memory, network and block IO of containers."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from orchestra.cli.projects import containers
from orchestra.cli.render import words

if TYPE_CHECKING:
    from orchestra.cli.context import Context

COLUMNS = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"]


def add_arguments(parser: ArgumentParser) -> None:
    add_stats_options(parser)
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def add_stats_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--no-stream", action="store_true", help="one reading, then end")
    add("-a", "--all", action="store_true", help="stopped containers too")
    add("--format", default="", help="table, json or a template")
    add("--no-trunc", action="store_true", help="do not shorten")


def run(context: Context, args: Namespace) -> int:
    _, found = containers(context, args.services)
    return show(context, args, found)


def show(context: Context, args: Namespace, found: list[dict[str, Any]]) -> int:
    """Readings a second apart, for ever or once."""
    if not args.all:
        found = [c for c in found if c["state"] in ("running", "paused")]
    before = _read(context, found)
    while True:
        time.sleep(1.0 if not args.no_stream else 0.25)
        now = _read(context, found)
        rows = [_row(info, before.get(info["id"]), now.get(info["id"]), full=args.no_trunc) for info in found]
        if not args.no_stream and context.stdout.isatty():
            context.stdout.write("\033[H\033[2J")
        _print(context, args, rows)
        context.stdout.flush()
        if args.no_stream or not found:
            return 0
        before = now


def _read(context: Context, found: list[dict[str, Any]]) -> dict[str, Any]:
    refs = [c["id"] for c in found if c["state"] in ("running", "paused")]
    result: dict[str, Any] = context.client.call("stats", {"refs": refs}) if refs else {}
    return result


def _row(
    info: dict[str, Any], before: dict[str, Any] | None, now: dict[str, Any] | None, *, full: bool
) -> dict[str, str]:
    empty = {
        "time": 0.0,
        "cpu": 0.0,
        "memory": 0,
        "memory_limit": 0,
        "pids": 0,
        "rx": 0,
        "tx": 0,
        "read": 0,
        "write": 0,
    }
    old, new = {**empty, **(before or {})}, {**empty, **(now or {})}
    elapsed = max(1e-6, new["time"] - old["time"])
    cpu = max(0.0, new["cpu"] - old["cpu"]) / elapsed * 100 if before and now else 0.0
    share = new["memory"] * 100 / new["memory_limit"] if new["memory_limit"] else 0.0
    return {
        "ID": info["id"] if full else info["id"][:12],
        "Container": info["id"][:12],
        "Name": info["name"],
        "CPUPerc": f"{cpu:.2f}%",
        "MemUsage": f"{words.binary_size(new['memory'])} / {words.binary_size(new['memory_limit'])}",
        "MemPerc": f"{share:.2f}%",
        "NetIO": f"{words.size(new['rx'])} / {words.size(new['tx'])}",
        "BlockIO": f"{words.size(new['read'])} / {words.size(new['write'])}",
        "PIDs": str(new["pids"]),
    }


def _print(context: Context, args: Namespace, rows: list[dict[str, str]]) -> None:
    from orchestra.cli.render import template

    if not template.show(context, args.format, rows, {}):
        keys = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
        context.table(COLUMNS, [[row[key] for key in keys] for row in rows])
