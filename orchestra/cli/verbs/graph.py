"""``orchestra graph``: the dependency graph of services, networks and volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestra.errors import OrchestraError

if TYPE_CHECKING:
    import argparse

    from orchestra.cli.context import Context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="only these and what they depend on")
    parser.add_argument(
        "--format", choices=("text", "dot", "mermaid", "json", "svg"), default="text", help="output format"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")


def run(ctx: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.graph import RENDERERS
    from orchestra.graph import drawing

    text = RENDERERS[args.format](drawing(ctx.load(tuple(args.services))))
    if not args.output:
        ctx.stdout.write(text)
        return 0
    import os

    try:
        with open(os.path.join(ctx.cwd, args.output), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OrchestraError(f"cannot write {args.output}: {error.strerror}") from error
    return 0
