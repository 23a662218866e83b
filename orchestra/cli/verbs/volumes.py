"""``volumes``: the project's volumes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import project_name

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only names")
    parser.add_argument("--format", default="", help="table, json or a template")
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    from orchestra.cli.render.template import show

    name, project = project_name(context)
    found = context.client.call("volumes", {"project": name})
    if args.services and project is not None:
        keys = {
            m.source
            for s in args.services
            if s in project.services
            for m in project.services[s].volumes
            if m.type == "volume"
        }
        real = {project.volumes[key].name for key in keys if key in project.volumes}
        found = [volume for volume in found if volume["name"] in real]
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
    if not show(context, args.format, rows, {}):
        context.table(["DRIVER", "VOLUME NAME"], [[row["Driver"], row["Name"]] for row in rows])
    return 0
