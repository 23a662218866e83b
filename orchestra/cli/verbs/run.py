"""``run SERVICE [COMMAND…]``: a one-off container of a service."""

from __future__ import annotations

import argparse
import shlex

from orchestra.cli import dryrun, terminal
from orchestra.cli.projects import image_options, project_data
from orchestra.cli.verbs.exec import add_terminal_options, environment
from orchestra.errors import NotFoundError, OrchestraError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="run in the background and print the name")
    add("--rm", action="store_true", help="remove the container when it stops")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="set a variable")
    add("--env-from-file", action="append", default=[], metavar="FILE", help="set the variables of a file")
    add("--entrypoint", default=None, help="instead of the image's entrypoint")
    add("-u", "--user", default="", help="run as this user")
    add("-w", "--workdir", default="", help="run in this directory")
    add(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="SOURCE:TARGET",
        help="mount a volume or a path",
    )
    add("-p", "--publish", action="append", default=[], metavar="PORT", help="publish a port")
    add("-P", "--service-ports", action="store_true", help="publish the service's ports")
    add("--no-deps", action="store_true", help="do not start dependencies")
    add("--name", default="", help="name of the container")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="set a label")
    add_terminal_options(parser)
    add("--build", action="store_true", help="build the image first")
    add(
        "--pull",
        choices=["always", "missing", "never", "policy"],
        default="policy",
        help="when to pull the image",
    )
    add("-q", "--quiet", action="store_true", help="without progress")
    add("--quiet-build", action="store_true", help="build without its steps")
    add("--quiet-pull", action="store_true", help="pull without its layers")
    add("--use-aliases", action="store_true", help="answer to the service's name on its networks")
    add("--cap-add", action="append", default=[], metavar="CAP", help="add a capability")
    add("--cap-drop", action="append", default=[], metavar="CAP", help="drop a capability")
    add("--remove-orphans", action="store_true", help="remove containers of services the file does not have")
    add("service", metavar="SERVICE")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def run(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.execution import attach, warn_new

    if args.publish and args.service_ports:
        raise UsageError("--service-ports and --publish are incompatible")
    context.hush(args)
    if args.quiet:
        context.options.progress = "quiet"
    project = context.load([args.service])
    if context.options.dry_run:
        return _would_run(context, args, project)
    if args.remove_orphans:
        from orchestra.cli.verbs.lifecycle import remove_orphans

        remove_orphans(context)
    tty = not args.no_tty and not args.detach and terminal.interactive()
    info = context.call(
        "run_create",
        {
            "project": project_data(project),
            "service": args.service,
            "images": image_options(args),
            "options": options(context, args, tty=tty),
        },
    )
    for warning in info["warnings"]:
        context.warn(warning)
    if args.detach:
        try:
            more = context.client.call("container_do", {"verb": "start", "ref": info["id"]})
            warn_new(context, more or (), info["warnings"])
        except OrchestraError:
            _discard(context, info["id"])
            raise
        print(info["name"], file=context.stdout)
        return 0
    try:
        code = attach(context, info["id"], start=True, stdin=args.interactive, tty=tty, told=info["warnings"])
    except OrchestraError:
        _discard(context, info["id"])
        raise
    return 0 if code is None else code


def _would_run(context: Context, args: argparse.Namespace, project: Project) -> int:
    """``--dry-run``: the dependencies' plan, and the one-off container."""
    service = project.services.get(args.service)
    if service is None:
        raise NotFoundError(f"no such service: {args.service}")
    words = []
    if service.depends_on and not args.no_deps:
        wanted = {"services": list(service.depends_on), "ignore_orphans": True}
        request = {"project": project_data(project), "options": wanted, "images": image_options(args)}
        plan = context.call("plan", request)
        words = plan["text"].removesuffix("nothing to do\n").splitlines()
    name = args.name or f"{project.name}-{service.name}-run-…"
    return dryrun.lines(context, [*words, f"create {name}: run", f"start {name}: run"])


def _discard(context: Context, ref: str) -> None:
    """A container that could not be started is of no use to anybody."""
    try:
        context.client.call("container_do", {"verb": "remove", "ref": ref, "force": True, "volumes": True})
    except OrchestraError:
        return


def options(context: Context, args: argparse.Namespace, *, tty: bool) -> dict[str, Any]:
    """The options as RunOptions."""
    from orchestra.cli.shortforms import environment_file, mount, port

    values = {}
    for name in args.env_from_file:
        values.update(environment_file(context, name))
    values.update(environment(context, args.env))
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    entrypoint = None if args.entrypoint is None else shlex.split(args.entrypoint)
    return {
        "command": command or None,
        "entrypoint": entrypoint,
        "environment": values,
        "user": args.user,
        "working_dir": args.workdir,
        "volumes": [mount(context, word) for word in args.volume],
        "publish": [item for word in args.publish for item in port(word)],
        "service_ports": args.service_ports,
        "use_aliases": args.use_aliases,
        "name": args.name,
        "labels": dict(word.partition("=")[::2] for word in args.label),
        "remove": args.rm,
        "tty": tty,
        "stdin_open": args.interactive,
        "cap_add": args.cap_add,
        "cap_drop": args.cap_drop,
        "no_deps": args.no_deps,
        "remove_orphans": args.remove_orphans,
    }
