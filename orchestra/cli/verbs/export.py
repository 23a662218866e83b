"""``export SERVICE``: a container's file system as a tar."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.projects import one_container
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="", help="file to write (standard output)")
    parser.add_argument("--index", type=int, default=0, help="number of the replica")
    parser.add_argument("service", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    info = one_container(context, args.service, args.index, running=False)
    export_to(context, info["id"], args.output)
    return 0


def export_to(context: Context, ref: str, output: str) -> None:
    """Write the tar to a file (whole or not at all) or to standard output (never a terminal)."""
    if not output:
        if os.isatty(1):
            raise UsageError(
                "will not write a tar to a terminal", hint="give -o FILE, or redirect the output"
            )
        context.call_into_output("export", {"ref": ref})
        return
    part = f"{output}.part"
    try:
        fd = os.open(
            os.path.join(context.cwd, part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise OrchestraError(f"cannot write {output}: {error.strerror}") from error
    try:
        context.client.call("export", {"ref": ref}, fds=[fd])
        os.replace(os.path.join(context.cwd, part), os.path.join(context.cwd, output))
    except BaseException:
        os.unlink(os.path.join(context.cwd, part))
        raise
    finally:
        os.close(fd)
