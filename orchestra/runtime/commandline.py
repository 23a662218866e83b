"""The command line of ``orchestra-runtime``: the words of runc and crun, as containerd and Podman use them."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Callable

from orchestra.errors import UsageError


class _Formatter(argparse.HelpFormatter):
    """Of a fixed width: asking for the terminal's loads a dozen modules, for every command."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)


class _Parser(ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        verb = self.prog.partition(" ")[2]
        raise UsageError(f"{verb}: {message}" if verb else message)


def parser(verb: str = "") -> ArgumentParser:
    """For this command only, or (without one) for all."""
    top = _Parser(
        prog="orchestra-runtime",
        allow_abbrev=False,
        formatter_class=_Formatter,
        description="Runs containers from OCI bundles: the runtime of orchestra.",
    )
    top.add_argument("--root", default="", metavar="DIR", help="where the state of containers is kept")
    top.add_argument("--log", default="", metavar="FILE", help="write errors into this file too")
    top.add_argument("--log-format", choices=("text", "json"), default="text")
    top.add_argument("--log-level", default="warning", metavar="LEVEL", help=argparse.SUPPRESS)
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.add_argument("--systemd-cgroup", action="store_true", help="not supported: refused")
    top.add_argument(
        "--cgroup-manager",
        choices=("cgroupfs", "systemd", "disabled"),
        default="cgroupfs",
        help="only cgroupfs is supported",
    )
    top.add_argument("--rootless", default="auto", help=argparse.SUPPRESS)
    top.add_argument("--version", "-v", action="store_true", help="print the version")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", parser_class=_Parser, prog=top.prog)
    for add, names in FAMILIES.items():
        if verb in names:
            add(verbs)
            return top
    for add in FAMILIES:
        add(verbs)
    return top


def _verb(
    verbs: argparse._SubParsersAction[_Parser], name: str, text: str, *, container: bool = True
) -> ArgumentParser:
    found: ArgumentParser = verbs.add_parser(
        name, help=text, description=text, allow_abbrev=False, formatter_class=_Formatter
    )
    if container:
        found.add_argument("id", metavar="CONTAINER")
    return found


def _add_birth(verbs: argparse._SubParsersAction[_Parser]) -> None:
    for name, text in (
        ("create", "Create a container; its program waits for start."),
        ("run", "Create a container and run it."),
    ):
        verb = _verb(verbs, name, text)
        verb.add_argument(
            "--bundle", "-b", default="", metavar="DIR", help="the bundle (default: the current directory)"
        )
        verb.add_argument(
            "--config", "-f", metavar="FILE", help="another file than config.json of the bundle"
        )
        verb.add_argument("--pid-file", metavar="FILE", help="write the init's pid into this file")
        verb.add_argument(
            "--console-socket", metavar="SOCKET", help="send the terminal's master to this socket"
        )
        verb.add_argument("--no-pivot", action="store_true", help="move the root instead of pivot_root")
        verb.add_argument("--no-new-keyring", action="store_true", help="keep the caller's session keyring")
        verb.add_argument(
            "--preserve-fds", type=_count, default=0, metavar="N", help="pass descriptors 3 … 2+N on"
        )
        if name == "run":
            verb.add_argument("--detach", "-d", action="store_true", help="do not wait for its end")
            verb.add_argument("--keep", action="store_true", help="keep the state after its end")
            verb.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)


def _add_exec(verbs: argparse._SubParsersAction[_Parser]) -> None:
    verb = _verb(verbs, "exec", "Run a further process in a container.")
    verb.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    verb.add_argument("--process", "-p", metavar="FILE", help="an OCI process object")
    verb.add_argument("--tty", "-t", action="store_true", help="give it a terminal")
    verb.add_argument("--detach", "-d", action="store_true", help="do not wait for its end")
    verb.add_argument("--pid-file", metavar="FILE")
    verb.add_argument("--console-socket", metavar="SOCKET")
    verb.add_argument("--preserve-fds", type=_count, default=0, metavar="N")
    verb.add_argument("--cwd", metavar="DIR")
    verb.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    verb.add_argument("--user", "-u", metavar="UID[:GID]")
    verb.add_argument("--additional-gids", "-g", action="append", type=int, default=[], metavar="GID")
    verb.add_argument("--cap", "-c", action="append", default=[], metavar="CAP")
    verb.add_argument("--no-new-privs", action="store_true")
    verb.add_argument("--ignore-paused", action="store_true", help=argparse.SUPPRESS)


def _add_life(verbs: argparse._SubParsersAction[_Parser]) -> None:
    _verb(verbs, "start", "Let the program of a created container run.")
    verb = _verb(verbs, "kill", "Send a signal to a container's init.")
    verb.add_argument("signal", nargs="?", default="TERM", metavar="SIGNAL")
    verb.add_argument("--all", "-a", action="store_true", help="to every process of the container")
    verb = _verb(verbs, "delete", "Remove what is left of a container.")
    verb.add_argument(
        "--force", "-f", action="store_true", help="kill it first; a container that is not there is fine"
    )
    _verb(verbs, "pause", "Suspend all processes of a container.")
    _verb(verbs, "resume", "Let a paused container go on.")


def _add_looks(verbs: argparse._SubParsersAction[_Parser]) -> None:
    _verb(verbs, "state", "Print the state of a container as JSON.")
    verb = _verb(verbs, "list", "List all containers of this root.", container=False)
    verb.add_argument("--format", "-f", choices=("table", "json"), default="table")
    verb.add_argument("--quiet", "-q", action="store_true", help="only the ids")
    verb = _verb(verbs, "ps", "List the processes of a container.")
    verb.add_argument("--format", "-f", choices=("table", "json"), default="table")
    verb.add_argument("arguments", nargs=argparse.REMAINDER, metavar="PS-ARGUMENT")
    verb = _verb(verbs, "events", "Print OOM kills and statistics of a container, a line of JSON each.")
    verb.add_argument("--stats", action="store_true", help="one line of statistics")
    verb.add_argument("--interval", type=_seconds, default=5.0, metavar="TIME")
    verb = _verb(verbs, "spec", "Write a config.json with the defaults.", container=False)
    verb.add_argument("--bundle", "-b", default="", metavar="DIR")
    verb.add_argument("--rootless", action="store_true", help="for a user without privileges")
    _verb(verbs, "features", "Print what this runtime can do, as JSON.", container=False)


def _add_update(verbs: argparse._SubParsersAction[_Parser]) -> None:
    verb = _verb(verbs, "update", "Change the limits of a container.")
    verb.add_argument("--resources", "-r", metavar="FILE", help="OCI resources as JSON (-: standard input)")
    for name in (
        "memory",
        "memory-reservation",
        "memory-swap",
        "cpu-share",
        "cpu-quota",
        "cpu-period",
        "cpu-burst",
        "cpu-idle",
        "cpu-rt-period",
        "cpu-rt-runtime",
        "cpuset-cpus",
        "cpuset-mems",
        "blkio-weight",
        "pids-limit",
    ):
        verb.add_argument(f"--{name}", metavar="VALUE")


FAMILIES: dict[Callable[[argparse._SubParsersAction[_Parser]], None], tuple[str, ...]] = {
    _add_birth: ("create", "run"),
    _add_exec: ("exec",),
    _add_life: ("start", "kill", "delete", "pause", "resume"),
    _add_looks: ("state", "list", "ps", "events", "spec", "features"),
    _add_update: ("update",),
}


def _count(text: str) -> int:
    """How many descriptors: there are never more than a process may have."""
    if text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= 1 << 20:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of descriptors")


def _seconds(text: str) -> float:
    """``5``, ``5s``, ``200ms``, ``1m``"""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
        if text.endswith(suffix):
            try:
                return float(text.removesuffix(suffix)) * factor
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is no time")
