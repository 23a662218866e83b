"""``port SERVICE PORT``: where a port is published."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import one_container
from orchestra.errors import NotFoundError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--protocol", default="tcp", choices=["tcp", "udp", "sctp"], help="protocol")
    parser.add_argument("--index", type=int, default=0, help="number of the replica")
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("port", metavar="PRIVATE_PORT", type=int)


def run(context: Context, args: Namespace) -> int:
    info = one_container(context, args.service, args.index, running=False)
    for url, target, published, protocol in info["publishers"]:
        if target == args.port and protocol == args.protocol and published:
            host = f"[{url}]" if ":" in url else url or "0.0.0.0"
            print(f"{host}:{published}", file=context.stdout)
            return 0
    raise NotFoundError(f"no port {args.port}/{args.protocol} for container {info['name']}")
