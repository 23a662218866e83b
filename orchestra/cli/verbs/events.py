"""``events``: what happens to containers, as it happens."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from orchestra.cli.projects import project_name
from orchestra.cli.render import words

if TYPE_CHECKING:
    from orchestra.cli.context import Context

RESERVED = "com.docker.compose."


def add_arguments(parser: ArgumentParser) -> None:
    add_system(parser)
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def add_system(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--since", default="", help="from this time on")
    parser.add_argument("--until", default="", help="up to this time")


def _times(args: Namespace) -> dict[str, Any]:
    return {
        "since": words.moment(args.since) if args.since else None,
        "until": words.moment(args.until) if args.until else None,
    }


def run(context: Context, args: Namespace) -> int:
    name, _ = project_name(context)
    for kind, event in context.client.stream("events", {"project": name, **_times(args)}):
        attributes = event.get("attributes", {}) if kind == "data" else {}
        if kind != "data" or event["type"] != "container" or attributes.get(f"{RESERVED}oneoff") == "True":
            continue
        service = attributes.get(f"{RESERVED}service", "")
        if args.services and service not in args.services:
            continue
        shown = {key: value for key, value in attributes.items() if not key.startswith(RESERVED)}
        _print(context, args, event, service, shown)
    return 0


def _print(
    context: Context, args: Namespace, event: dict[str, Any], service: str, attributes: dict[str, str]
) -> None:
    if args.json:
        line = {
            "time": words.rfc3339(event["time"]),
            "type": event["type"],
            "service": service,
            "id": event["id"],
            "action": event["action"],
            "attributes": attributes,
        }
        print(json.dumps(line), file=context.stdout, flush=True)
        return
    text = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    stamp = words.rfc3339(event["time"]).replace("T", " ").rstrip("Z")
    print(
        f"{stamp} {event['type']} {event['action']} {event['id']} ({text})", file=context.stdout, flush=True
    )


def run_system(context: Context, args: Namespace) -> int:
    """``system events``: of everything."""
    for kind, event in context.client.stream("events", _times(args)):
        if kind == "data":
            shown = {key: value for key, value in event["attributes"].items() if not key.startswith(RESERVED)}
            _print(context, args, event, event["attributes"].get(f"{RESERVED}service", ""), shown)
    return 0
