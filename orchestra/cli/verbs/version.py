"""``version``: of this program, as text, ``--short`` or JSON."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orchestra import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--short", action="store_true", help="only the number")
    parser.add_argument("-f", "--format", choices=["pretty", "json"], default="pretty", help="pretty or json")


def run(context: Context, args: Namespace) -> int:
    if args.short:
        text = __version__
    elif args.format == "json":
        text = f'{{"version":"v{__version__}"}}'
    else:
        text = f"orchestra version v{__version__}"
    print(text, file=context.stdout)
    return 0
