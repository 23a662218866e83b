"""``ps``: the project's containers."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from orchestra.cli.projects import names
from orchestra.cli.render import words
from orchestra.errors import NotFoundError, OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context

STATES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")
COLUMNS = {"RunningFor": "CREATED", "CreatedAt": "CREATED AT"}


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="stopped containers too, and one-off ones")
    add("-q", "--quiet", action="store_true", help="only ids")
    add("--format", default="", help="table, json or a template")
    add("--services", action="store_true", help="only names of services")
    add(
        "--status",
        action="append",
        default=[],
        choices=STATES,
        help="only containers in this state (repeatable)",
    )
    add("--filter", action="append", default=[], metavar="status=STATE", help="the same as a filter")
    add(
        "--orphans",
        action="store_true",
        default=True,
        help="show containers of services the file does not have (--orphans=false: do not)",
    )
    add("--no-orphans", dest="orphans", action="store_false", help="same as --orphans=false")
    add("--no-trunc", action="store_true", help="do not shorten")
    add("services_", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    found = select(context, args)
    if args.quiet:
        for info in found:
            print(info["id"], file=context.stdout)
        return 0
    if args.services:
        for name in dict.fromkeys(info["service"] for info in found):
            print(name, file=context.stdout)
        return 0
    if args.format not in ("", "table"):
        from orchestra.cli.render.template import show

        show(context, args.format, [row(info) for info in found], COLUMNS)
        return 0
    now = time.time()
    rows = [
        [
            info["name"],
            info["image"],
            words.command(info, full=args.no_trunc),
            info["service"],
            f"{words.ago(max(0.0, now - info['created']))} ago",
            words.status(info, now),
            words.ports(info),
        ]
        for info in found
    ]
    context.table(["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"], rows)
    return 0


def select(context: Context, args: Namespace) -> list[dict[str, Any]]:
    states = list(args.status)
    for text in args.filter:
        key, _, value = text.partition("=")
        if key != "status":
            raise OrchestraError(f"unknown filter {key}", hint="there is: status=STATE")
        if value not in STATES:
            raise OrchestraError(f"unknown state {value}", hint=f"there are: {', '.join(STATES)}")
        states.append(value)
    name, services = names(context)
    found = context.client.call("containers", {"project": name})
    known = services or set()
    for service in args.services_:
        if service not in known and not any(c["service"] == service for c in found):
            raise NotFoundError(f"no such service: {service}")
    if states:
        found = [c for c in found if c["state"] in states]
    elif not args.all:
        found = [c for c in found if c["state"] in ("running", "paused", "restarting") and not c["oneoff"]]
    if args.services_:
        found = [c for c in found if c["service"] in args.services_]
    if not args.orphans and services is not None:
        found = [c for c in found if c["service"] in known]
    return sorted(found, key=lambda c: c["name"])


def row(info: dict[str, Any]) -> dict[str, Any]:
    """A container with the keys that docker compose prints."""
    now = time.time()
    mounts = [m.get("Name") or m.get("Source", "") for m in info["mounts"]]
    return {
        "Command": words.command(info),
        "CreatedAt": words.local_stamp(info["created"]),
        "ExitCode": info["exit_code"],
        "Health": info["health"],
        "ID": info["id"][:12],
        "Image": info["image"],
        "Labels": ",".join(f"{key}={value}" for key, value in info["labels"].items()),
        "LocalVolumes": str(sum(1 for m in info["mounts"] if m.get("Type") == "volume")),
        "Mounts": ",".join(mounts),
        "Name": info["name"],
        "Names": info["name"],
        "Networks": ",".join(info["networks"]),
        "Ports": words.ports(info),
        "Project": info["project"],
        "Publishers": [
            {"URL": url, "TargetPort": target, "PublishedPort": published, "Protocol": protocol}
            for url, target, published, protocol in info["publishers"]
        ],
        "RunningFor": f"{words.ago(max(0.0, now - info['created']))} ago",
        "Service": info["service"],
        "Size": "0B",
        "State": info["state"],
        "Status": words.status(info, now),
        "OOMKilled": info["oom_killed"],
        "Warnings": info["warnings"],
    }
