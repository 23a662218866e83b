"""``events``: what happens to containers, as it happens."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from orchestra.cli.projects import project_name
from orchestra.cli.render import words
from orchestra.errors import UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context

RESERVED = "com.docker.compose."
FILTERS = ("type", "event", "container", "network", "volume", "image", "label")


def add_arguments(parser: ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def add_system(parser: ArgumentParser) -> None:
    _add_common(parser)
    add = parser.add_argument
    add("-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help=", ".join(FILTERS))
    add("--format", default="", help="json or a template, with docker's names")


def _add_common(parser: ArgumentParser) -> None:
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
    wanted = _wanted(args.filter)
    for kind, event in context.client.stream("events", _times(args)):
        if kind != "data" or not all(passes(event, key, values) for key, values in wanted.items()):
            continue
        if args.format:
            _formatted(context, args.format, event)
            continue
        shown = {key: value for key, value in event["attributes"].items() if not key.startswith(RESERVED)}
        _print(context, args, event, event["attributes"].get(f"{RESERVED}service", ""), shown)
    return 0


def _wanted(words_: list[str]) -> dict[str, list[str]]:
    """key → values, of which one must fit. Raises UsageError."""
    found: dict[str, list[str]] = {}
    for word in words_:
        key, sep, value = word.partition("=")
        if key not in FILTERS or not sep:
            raise UsageError(f"invalid filter {word!r}", hint=f"there are: {', '.join(FILTERS)}, each with =")
        found.setdefault(key, []).append(value)
    return found


def passes(event: dict[str, Any], key: str, values: list[str]) -> bool:
    """Whether an event has one of the values of a filter."""
    attributes = event["attributes"]
    if key == "label":
        pairs = [value.partition("=") for value in values]
        return all(name in attributes and (not sep or attributes[name] == text) for name, sep, text in pairs)
    if key == "type":
        return event["type"] in values
    if key == "event":
        return event["action"] in values
    if key == "image":
        return attributes.get("image") in values
    if event["type"] != key:
        return False
    return any(value in (event["id"], event["id"][:12], attributes.get("name")) for value in values)


def _formatted(context: Context, form: str, event: dict[str, Any]) -> None:
    from orchestra.cli.render.template import render

    attributes = event["attributes"]
    data = {
        "Type": event["type"],
        "Action": event["action"],
        "Actor": {"ID": event["id"], "Attributes": attributes},
        "status": event["action"],
        "id": event["id"],
        "from": attributes.get("image", ""),
        "scope": "local",
        "time": int(event["time"]),
        "timeNano": int(event["time"] * 1e9),
    }
    names = {"ID": event["id"], "Status": event["action"], "From": data["from"], "Time": data["time"]}
    text = json.dumps(data) if form == "json" else render(form, {**data, **names})
    print(text, file=context.stdout, flush=True)
