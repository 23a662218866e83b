"""``orchestra logout [SERVER]``: forget the credentials of a registry."""

from __future__ import annotations

import argparse
from typing import Any

HELP = "Log out of a registry"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("server", nargs="?", default="docker.io", metavar="SERVER")


def run(context: Any, args: argparse.Namespace) -> int:
    from orchestra.images.registry.login import logout

    if logout(args.server, environ=context.environ):
        print(f"Removed the credentials of {args.server}")
    else:
        print(f"Not logged in to {args.server}")
    return 0
