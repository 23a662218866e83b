"""``attach SERVICE``: this terminal on a running container's stdio."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import one_container

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    add_attach_options(parser)
    parser.add_argument("--index", type=int, default=0, help="number of the replica")
    parser.add_argument("service", metavar="SERVICE")


def add_attach_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--no-stdin", action="store_true", help="do not pass input")
    add("--sig-proxy", action="store_true", default=True, help="pass signals on (--sig-proxy=false: do not)")
    add("--detach-keys", default="", help="keys that detach (ctrl-p,ctrl-q)")


def run(context: Context, args: Namespace) -> int:
    return attach_to(context, args, one_container(context, args.service, args.index)["id"])


def attach_to(context: Context, args: Namespace, ref: str) -> int:
    """Attach to a running container; its exit code, 0 when detached."""
    from orchestra.cli.execution import attach

    config = context.client.call("inspect", {"ref": ref})["Config"]
    code = attach(
        context,
        ref,
        start=False,
        stdin=not args.no_stdin and bool(config.get("OpenStdin")),
        tty=bool(config.get("Tty")),
        keys=args.detach_keys,
        forward=args.sig_proxy,
    )
    return 0 if code is None else code
