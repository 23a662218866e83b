"""``volume …``: volumes without a compose file."""

from __future__ import annotations

import argparse
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from orchestra.cli.render import words
from orchestra.cli.verbs.container import each
from orchestra.cli.verbs.container_run import pairs
from orchestra.errors import NotFoundError, OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--format", default="")


def run_ls(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show

    found = sorted(context.client.call("volumes"), key=lambda v: v["name"])
    for word in args.filter:
        key, _, value = word.partition("=")
        if key == "dangling":
            found = [v for v in found if bool(v["used_by"]) != (value in ("true", "1"))]
        elif key == "name":
            found = [v for v in found if value in v["name"]]
        elif key == "driver":
            found = [v for v in found if v["driver"] == value]
        elif key == "label":
            name, sep, wanted = value.partition("=")
            found = [v for v in found if name in v["labels"] and (not sep or v["labels"][name] == wanted)]
        else:
            raise OrchestraError(f"invalid filter {key!r}", hint="there are: dangling, name, driver, label")
    if args.quiet:
        for volume in found:
            print(volume["name"], file=context.stdout)
        return 0
    rows = [
        {
            "Name": v["name"],
            "Driver": v["driver"],
            "Mountpoint": v["mountpoint"],
            "Scope": "local",
            "Labels": ",".join(f"{key}={value}" for key, value in v["labels"].items()),
        }
        for v in found
    ]
    if not show(context, args.format, rows, {"Name": "VOLUME NAME"}):
        context.table(["DRIVER", "VOLUME NAME"], [[r["Driver"], r["Name"]] for r in rows])
    return 0


def add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--driver", default="local")
    parser.add_argument("-o", "--opt", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", dest="name_option", default="", help=argparse.SUPPRESS)
    parser.add_argument("name", nargs="?", default="", metavar="VOLUME")


def run_create(context: Context, args: argparse.Namespace) -> int:
    name = args.name or args.name_option or secrets.token_hex(32)
    volume = {
        "key": name,
        "name": name,
        "driver": args.driver,
        "driver_opts": pairs(args.opt),
        "labels": pairs(args.label),
    }
    if not any(v["name"] == name for v in context.client.call("volumes")):
        context.client.call("volume_create", {"volume": volume, "labels": pairs(args.label)})
    print(name, file=context.stdout)
    return 0


def find(context: Context, name: str) -> dict[str, Any]:
    for volume in context.client.call("volumes"):
        if volume["name"] == name:
            result: dict[str, Any] = volume
            return result
    raise NotFoundError(f"no such volume: {name}")


def add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="")
    parser.add_argument("names", nargs="+", metavar="VOLUME")


def run_inspect(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import render

    found = []
    for name in args.names:
        v = find(context, name)
        found.append(
            {
                "CreatedAt": words.rfc3339(v["created"]),
                "Driver": v["driver"],
                "Labels": v["labels"],
                "Mountpoint": v["mountpoint"],
                "Name": v["name"],
                "Options": v["options"],
                "Scope": "local",
            }
        )
    if args.format and args.format != "json":
        for item in found:
            print(render(args.format, item), file=context.stdout)
    else:
        print(json.dumps(found, indent=4), file=context.stdout)
    return 0


def add_rm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="no error when there is none")
    parser.add_argument("names", nargs="+", metavar="VOLUME")


def run_rm(context: Context, args: argparse.Namespace) -> int:
    def remove(name: str) -> None:
        try:
            context.client.call("volume_remove", {"name": name})
        except OrchestraError as error:
            if not (args.force and "no such volume" in error.brief.lower()):
                raise

    return each(context, args.names, remove)


def add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true", help="named volumes too, not only anonymous ones")
    parser.add_argument("-f", "--force", action="store_true", help="ask nothing")
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help="label, label!")


def run_prune(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.system import confirm, labelled

    what = "all volumes" if args.all else "anonymous volumes"
    confirm(context, f"This will remove {what} not used by a container.", force=args.force)
    removed = []
    for volume in context.client.call("volumes"):
        if not labelled(volume["labels"], args.filter):
            continue
        if not volume["used_by"] and (args.all or volume["anonymous"]):
            context.client.call("volume_remove", {"name": volume["name"]})
            removed.append(volume["name"])
    if removed:
        print("\n".join(["Deleted Volumes:", *removed]), file=context.stdout)
    return 0


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="", help="file to write (standard output)")
    parser.add_argument("name", metavar="VOLUME")


def run_export(context: Context, args: argparse.Namespace) -> int:
    if not args.output:
        if os.isatty(1):
            raise UsageError(
                "will not write a tar to a terminal", hint="give -o FILE, or redirect the output"
            )
        context.stdout.flush()
        context.call_into_output("volume_export", {"name": args.name})
        return 0
    path = os.path.join(context.cwd, args.output)
    with open(f"{path}.part", "wb") as stream:
        try:
            context.client.call("volume_export", {"name": args.name}, fds=[stream.fileno()])
            os.replace(stream.name, path)
        except BaseException:
            os.unlink(stream.name)
            raise
    return 0


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="VOLUME")
    parser.add_argument("file", nargs="?", default="-", help="a tar (standard input)")


def run_import(context: Context, args: argparse.Namespace) -> int:
    if args.file == "-":
        context.client.call("volume_import", {"name": args.name}, fds=[0])
        return 0
    try:
        with open(os.path.join(context.cwd, args.file), "rb") as stream:
            context.client.call("volume_import", {"name": args.name}, fds=[stream.fileno()])
    except OSError as error:
        raise OrchestraError(f"cannot read {args.file}: {error.strerror}") from error
    return 0
