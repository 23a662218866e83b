"""``create``: converge without starting anything."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.verbs import up

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    up.add_converge(parser)


def run(context: Context, args: Namespace) -> int:
    up.check_converge(context, args)
    project = context.load(args.services)
    args.no_start = True
    context.hush(args)
    options = up.reconcile_options(context, args, project)
    if context.options.dry_run:
        return up.show_plan(context, project, options, args)
    context.call("up", up.up_args(context, args, project, options))
    return 0
