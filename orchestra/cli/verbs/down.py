"""``down``: stop and remove containers and networks; volumes and images on request."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orchestra.cli import dryrun
from orchestra.cli.projects import all_profiles, project_data, timeout_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-v", "--volumes", action="store_true", help="remove named volumes of the file, and anonymous ones")
    add("--remove-orphans", action="store_true", help="remove containers of services the file does not have")
    add("-t", "--timeout", type=float, default=None, metavar="SECONDS", help="stop timeout")
    add(
        "--rmi",
        choices=["all", "local"],
        default="",
        help="remove images: all, or only those without a name of their own",
    )
    add("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    with all_profiles(context):
        name, project = context.load_or_name()
    orphans = args.remove_orphans or context.truth("COMPOSE_REMOVE_ORPHANS")
    plan = context.call(
        "down",
        {
            "name": name,
            "project": project_data(project) if project else None,
            "services": args.services,
            "volumes": args.volumes,
            "remove_orphans": orphans,
            "timeout": timeout_of(args),
            "rmi": args.rmi,
            "dry_run": context.options.dry_run,
            "parallel": context.parallel(),
        },
    )
    if context.options.dry_run:
        images = [f"remove image {name}: --rmi {args.rmi}" for name in plan["images"]]
        text = plan["text"].removesuffix("nothing to do\n") if images else plan["text"]
        return dryrun.lines(context, [*text.splitlines(), *images])
    return 0
