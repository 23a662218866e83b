"""``plan``: what ``up`` would do and why, as text or JSON. Touches nothing."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import image_options, project_data
from orchestra.cli.verbs import up

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    up.add_converge(parser)
    parser.add_argument("--no-deps", action="store_true", help="leave dependencies alone")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def run(context: Context, args: Namespace) -> int:
    up.check_converge(context, args)
    project = context.load(args.services)
    options = up.reconcile_options(context, args, project)
    plan = context.call(
        "plan", {"project": project_data(project), "options": options, "images": image_options(args)}
    )
    if args.format == "json":
        plan.pop("text")
        print(json.dumps(plan, indent=2), file=context.stdout)
        return 0
    for warning in plan["warnings"]:
        context.warn(warning)
    context.stdout.write(plan["text"])
    return 0
