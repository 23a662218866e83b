"""``commit SERVICE [NAME[:TAG]]``: an image from a container's changes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import one_container

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    add_commit_options(parser)
    parser.add_argument("--index", type=int, default=0, help="number of the replica")
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("image", nargs="?", default="", metavar="REPOSITORY[:TAG]")


def add_commit_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--author", default="", help="who made it")
    add("-m", "--message", default="", help="what it is")
    add(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="a Dockerfile instruction to apply",
    )
    add(
        "-p",
        "--pause",
        action="store_true",
        default=True,
        help="pause while committing (--pause=false: do not)",
    )


def run(context: Context, args: Namespace) -> int:
    info = one_container(context, args.service, args.index, running=False)
    return commit_to(context, args, info["id"])


def commit_to(context: Context, args: Namespace, ref: str) -> int:
    image = context.client.call(
        "commit",
        {
            "ref": ref,
            "image": args.image,
            "author": args.author,
            "message": args.message,
            "changes": args.change,
            "pause": args.pause,
        },
    )
    print(image, file=context.stdout)
    return 0
