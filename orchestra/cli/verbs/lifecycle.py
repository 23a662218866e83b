"""stop, start, restart, rm, kill, pause and unpause of a project's containers."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace

from orchestra.cli import dryrun
from orchestra.cli.projects import all_profiles, project_data, timeout_of
from orchestra.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context


def _services(parser: ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def _timeout(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-t", "--timeout", type=float, default=None, metavar="SECONDS", help="seconds before SIGKILL"
    )


def add_stop(parser: ArgumentParser) -> None:
    _timeout(parser)
    _services(parser)


def add_start(parser: ArgumentParser) -> None:
    parser.add_argument("--wait", action="store_true", help="wait until services are running or healthy")
    parser.add_argument("--wait-timeout", type=float, default=0, metavar="SECONDS", help="the longest wait")
    _services(parser)


def add_restart(parser: ArgumentParser) -> None:
    _timeout(parser)
    parser.add_argument("--no-deps", action="store_true", help="leave services that depend on these alone")
    _services(parser)


def add_rm(parser: ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="ask nothing")
    parser.add_argument("-s", "--stop", action="store_true", help="stop the containers first")
    parser.add_argument("-v", "--volumes", action="store_true", help="remove anonymous volumes too")
    parser.add_argument("-a", "--all", action="store_true", help=SUPPRESS)  # one-off ones go in any case
    _services(parser)


def add_kill(parser: ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="SIGKILL", help="signal by name or number (SIGKILL)")
    parser.add_argument(
        "--remove-orphans", action="store_true", help="remove containers of services the file does not have"
    )
    _services(parser)


def add_pause(parser: ArgumentParser) -> None:
    _services(parser)


add_unpause = add_pause


def _ask(context: Context, verb: str, args: Namespace, **more: Any) -> int:
    """stop, start, restart and rm: the daemon plans and executes; with ``--dry-run`` it only plans."""
    with all_profiles(context):
        name, project = context.load_or_name()
    data = project_data(project) if project else None
    request = {"verb": verb, "name": name, "project": data, "services": args.services, **more}
    dry_run = context.options.dry_run
    plan = context.call("lifecycle", {**request, "dry_run": dry_run, "parallel": context.parallel()})
    return dryrun.show(context, plan) if dry_run else 0


def run_stop(context: Context, args: Namespace) -> int:
    return _ask(context, "stop", args, timeout=timeout_of(args))


def run_start(context: Context, args: Namespace) -> int:
    code = _ask(context, "start", args)
    if (args.wait or args.wait_timeout) and not context.options.dry_run:
        project = context.load(args.services)
        context.call(
            "up",
            {
                "project": project_data(project),
                "images": {},
                "wait_timeout": args.wait_timeout or None,
                "options": {"services": args.services, "no_recreate": True, "wait": True},
            },
        )
    return code


def run_restart(context: Context, args: Namespace) -> int:
    return _ask(context, "restart", args, timeout=timeout_of(args), no_deps=args.no_deps)


def run_rm(context: Context, args: Namespace) -> int:
    with all_profiles(context):
        name, _ = context.load_or_name()
    found = context.client.call("containers", {"project": name})
    wanted = [c for c in found if not args.services or c["service"] in args.services]
    if not args.stop:
        wanted = [c for c in wanted if c["state"] in ("created", "exited", "dead")]
    if not wanted:
        print("No stopped containers", file=context.stderr)
        return 0
    if not args.force and not context.options.dry_run:
        _confirm(context, wanted)
    return _ask(context, "rm", args, stop=args.stop, volumes=args.volumes)


def _confirm(context: Context, wanted: list[dict[str, Any]]) -> None:
    import sys

    names = ", ".join(sorted(c["name"] for c in wanted))
    print(f"Going to remove {names}\nAre you sure? [yN] ", end="", file=context.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise UsageError("not removed", hint="answer y, or give --force")


def _each(context: Context, verb: str, args: Namespace, **more: Any) -> int:
    """kill, pause and unpause: on every container that is in the state for it."""
    with all_profiles(context):
        name, project = context.load_or_name()
    data = project_data(project) if project else None
    request = {"verb": verb, "name": name, "project": data, "services": args.services, **more}
    found = context.call("each", {**request, "dry_run": context.options.dry_run})
    if context.options.dry_run:
        return dryrun.lines(context, [f"{verb} {container}" for container in found])
    return 0


def run_kill(context: Context, args: Namespace) -> int:
    code = _each(context, "kill", args, signal=args.signal)
    if args.remove_orphans:
        remove_orphans(context)
    return code


def remove_orphans(context: Context) -> None:
    """Containers of services that the file does not have."""
    with all_profiles(context):
        name, project = context.load_or_name()
    if project is None:
        return
    known = {*project.services, *project.disabled}
    found = context.client.call("containers", {"project": name})
    for container in (c for c in found if c["service"] not in known):
        if context.options.dry_run:
            dryrun.lines(context, [f"remove {container['name']}: orphan"])
            continue
        context.client.call("container_do", {"verb": "remove", "ref": container["id"], "force": True})


def run_pause(context: Context, args: Namespace) -> int:
    return _each(context, "pause", args)


def run_unpause(context: Context, args: Namespace) -> int:
    return _each(context, "unpause", args)
