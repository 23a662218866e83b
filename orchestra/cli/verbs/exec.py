"""``exec SERVICE COMMAND…``: a command in a running container."""

from __future__ import annotations

import argparse

from orchestra.cli import terminal
from orchestra.cli.projects import one_container
from orchestra.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_exec_options(parser)
    add = parser.add_argument
    add("--index", type=int, default=0, help="number of the replica")
    add_terminal_options(parser)
    add("service", metavar="SERVICE")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def add_terminal_options(parser: argparse.ArgumentParser) -> None:
    """Those that ``run`` has too."""
    add = parser.add_argument
    add("-T", "--no-tty", "--no-TTY", dest="no_tty", action="store_true", help="no terminal")
    add(
        "-i",
        "--interactive",
        action="store_true",
        default=True,
        help="pass standard input (-i=false: do not)",
    )
    add("-t", "--tty", action="store_true", help=argparse.SUPPRESS)


def add_exec_options(parser: argparse.ArgumentParser) -> None:
    """Those that ``container exec`` has too."""
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="run in the background")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE", help="set a variable")
    add("-u", "--user", default="", help="run as this user")
    add("-w", "--workdir", default="", help="run in this directory")
    add("--privileged", action="store_true", help="with all capabilities")


def spec_of(context: Context, args: argparse.Namespace, *, tty: bool) -> dict[str, Any]:
    """The options as an ExecSpec."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("no command given", hint="orchestra exec SERVICE COMMAND")
    return {
        "command": command,
        "environment": environment(context, args.env),
        "user": args.user,
        "working_dir": args.workdir,
        "privileged": args.privileged,
        "tty": tty,
        "size": list(terminal.size() or ()) or None if tty else None,
    }


def environment(context: Context, words: list[str]) -> dict[str, str]:
    """``KEY=VALUE`` words; ``KEY`` alone takes this command's own variable."""
    found = {}
    for word in words:
        key, sep, value = word.partition("=")
        if sep:
            found[key] = value
        elif key in context.environ:
            found[key] = context.environ[key]
    return found


def run(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.execution import run_exec

    info = one_container(context, args.service, args.index)
    tty = not args.no_tty and not args.detach and terminal.interactive()
    return run_exec(
        context, info["id"], spec_of(context, args, tty=tty), detach=args.detach, stdin=args.interactive
    )
