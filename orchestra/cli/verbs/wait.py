"""``wait SERVICE…``: until they stop; the status of the last one is the exit code."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import containers, project_data, project_name
from orchestra.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--down-project", action="store_true", help="take the project down when the first one stops"
    )
    parser.add_argument("services", nargs="+", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    if args.down_project and context.options.dry_run:
        raise UsageError("wait --down-project has no dry run")
    name, found = containers(context, args.services)
    if not found:
        raise NotFoundError(f'no containers for project "{name}"')
    code = 0
    for info in found:
        code = context.client.call("wait", {"ref": info["id"]})
        print(f'container "{info["name"]}" exited with status code {code}', file=context.stdout)
        if args.down_project:
            break
    if args.down_project:
        _, project = project_name(context)
        context.call(
            "down", {"name": name, "project": project_data(project) if project else None, "services": []}
        )
    return code
