"""``info``: what this machine offers and what this engine holds."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="", help="json or a template")


def run(context: Context, args: Namespace) -> int:
    from orchestra.cli.render.template import render

    info: dict[str, Any] = context.client.call("info")
    if args.format == "json":
        print(json.dumps(info), file=context.stdout)
    elif args.format:
        print(render(args.format, info), file=context.stdout)
    else:
        _print(context, info, 0)
    return 0


def _print(context: Context, info: dict[str, Any], depth: int) -> None:
    for key, value in info.items():
        pad = "  " * depth
        if isinstance(value, dict):
            print(f"{pad}{key}:", file=context.stdout)
            _print(context, value, depth + 1)
        elif isinstance(value, list):
            print(f"{pad}{key}: {', '.join(map(str, value))}", file=context.stdout)
        else:
            print(f"{pad}{key}: {value}", file=context.stdout)
