"""``cp SERVICE:PATH PATH`` and back: files between containers and this machine."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import containers, one_container
from orchestra.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    add_cp_options(parser)
    parser.add_argument("--index", type=int, default=0, help="number of the replica")
    parser.add_argument("--all", action="store_true", help="into every container of the service")
    parser.add_argument("source", metavar="SOURCE", help="SERVICE:PATH, a path here, or - for a tar")
    parser.add_argument("target", metavar="TARGET", help="SERVICE:PATH, a path here, or - for a tar")


def add_cp_options(parser: ArgumentParser) -> None:
    parser.add_argument("-a", "--archive", action="store_true", help="keep owners")
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what a link points to")


def split_ref(word: str) -> tuple[str, str]:
    """``service:path`` → both; a path alone → ('', path)."""
    if word.startswith((".", "/")) or ":" not in word:
        return "", word
    name, _, path = word.partition(":")
    return name, path


def run(context: Context, args: Namespace) -> int:
    from orchestra.cli.copy import copy_from, copy_to

    service, path = split_ref(args.source)
    other, target = split_ref(args.target)
    if bool(service) == bool(other):
        raise UsageError(
            "copying between services is not supported" if service else "one side must be SERVICE:PATH",
            hint="orchestra cp SERVICE:PATH PATH, or orchestra cp PATH SERVICE:PATH",
        )
    if service:
        copy_from(
            context,
            one_container(context, service, args.index, running=False)["id"],
            path,
            target,
            follow=args.follow_link,
            archive=args.archive,
        )
        return 0
    if args.all:
        _, found = containers(context, [other], oneoff=True)
    else:
        found = [one_container(context, other, args.index, running=False)]
    if not found:
        raise NotFoundError(f'service "{other}" has no container')
    for info in found:
        copy_to(context, args.source, info["id"], target, follow=args.follow_link, archive=args.archive)
    return 0
