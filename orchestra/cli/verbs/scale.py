"""``scale SERVICE=N…``: set numbers of replicas, changing nothing else."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli import dryrun
from orchestra.cli.projects import project_data, scales
from orchestra.errors import UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--no-deps", action="store_true", help="leave dependencies alone")
    parser.add_argument("scale", nargs="+", metavar="SERVICE=N")


def run(context: Context, args: Namespace) -> int:
    names = [word.partition("=")[0] for word in args.scale]
    project = context.load(names)
    wanted = scales(args.scale, project)
    if not wanted:
        raise UsageError("scale needs SERVICE=N")
    options = {"services": list(wanted), "scale": wanted, "no_deps": args.no_deps, "no_recreate": True}
    request = {"project": project_data(project), "options": options, "images": {}}
    if context.options.dry_run:
        return dryrun.show(context, context.call("plan", request))
    context.call("up", {**request, "parallel": context.parallel()})
    return 0
