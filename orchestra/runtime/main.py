"""``orchestra-runtime``: the runtime as a command of its own, with the OCI command line.

Podman, containerd and people call it as they call runc or crun. Errors go to standard error and, with
``--log``, also into that file (``--log-format json``: one object a line). Commands that enter a container
run from a read-only copy of the interpreter (see ``linux.selfexe``).
"""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file, by ourselves
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import argparse
import importlib
from argparse import ArgumentParser

from orchestra.errors import OrchestraError, UnsupportedError, UsageError

_ENTERS = ("create", "run", "exec")
_LIFECYCLE = ("create", "run", "start", "kill", "delete", "pause", "resume", "exec")


class _Parser(ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{self.prog}: {message}")


def parser() -> ArgumentParser:
    top = _Parser(
        prog="orchestra-runtime",
        allow_abbrev=False,
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
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", parser_class=_Parser)
    _add_birth(verbs)
    _add_exec(verbs)
    _add_life(verbs)
    _add_looks(verbs)
    _add_update(verbs)
    return top


def _verb(
    verbs: argparse._SubParsersAction[_Parser], name: str, text: str, *, container: bool = True
) -> ArgumentParser:
    found: ArgumentParser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
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
            "--preserve-fds", type=int, default=0, metavar="N", help="pass descriptors 3 … 2+N on"
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
    verb.add_argument("--preserve-fds", type=int, default=0, metavar="N")
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


def _seconds(text: str) -> float:
    """``5``, ``5s``, ``200ms``, ``1m``"""
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("", 1.0)):
        if text.endswith(suffix):
            try:
                return float(text.removesuffix(suffix)) * factor
            except ValueError:
                break
    raise argparse.ArgumentTypeError(f"{text!r} is no time")


def run(arguments: list[str]) -> int:
    """The exit code. ``OrchestraError`` for the user."""
    options = parser().parse_args(arguments)
    if options.version:
        from orchestra import __version__

        print(f"orchestra-runtime version {__version__}\nspec: 1.2.1")
        return 0
    if not options.verb:
        raise UsageError("no command given", hint="orchestra-runtime --help lists them")
    if options.systemd_cgroup or options.cgroup_manager == "systemd":
        raise UnsupportedError(
            "--systemd-cgroup: cgroups managed by systemd are not supported",
            hint="use the cgroupfs manager (podman: --cgroup-manager=cgroupfs)",
        )
    if options.verb == "exec" and options.command[:1] == ["--"]:
        del options.command[0]
    if options.verb in _ENTERS:
        _protect(arguments)
    from orchestra.runtime.state import Store

    module = importlib.import_module(
        f"orchestra.runtime.{'lifecycle' if options.verb in _LIFECYCLE else 'inspecting'}"
    )
    return int(getattr(module, f"do_{options.verb}")(Store(options.root or _default_root()), options))


def _protect(arguments: list[str]) -> None:
    from orchestra.linux import selfexe

    selfexe.reexec([sys.executable, "-I", "-S", os.path.abspath(__file__), *arguments])


def _default_root() -> str:
    if os.geteuid() == 0:
        return "/run/orchestra-runtime"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "orchestra-runtime")


def main(arguments: list[str]) -> int:
    try:
        return run(arguments)
    except OrchestraError as error:
        _log(arguments, str(error))
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"orchestra-runtime: error: {error}{hint}\n")
        if "--debug" in arguments:
            raise
        return error.exit_code
    except OSError as error:
        place = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        text = f"{error.strerror or error}{place}"
        _log(arguments, text)
        sys.stderr.write(f"orchestra-runtime: error: {text}\n")
        if "--debug" in arguments:
            raise
        return 1
    except Exception as problem:  # a bug: whoever called us reads the log, the traceback is for people
        _log(arguments, f"internal error: {type(problem).__name__}: {problem}")
        raise


def _log(arguments: list[str], text: str) -> None:
    """Into the file of ``--log``, looked up by hand: the error may be one of the command line."""
    options: dict[str, str] = {}
    for index, word in enumerate(arguments):
        if not word.startswith("--"):
            continue
        key, separator, value = word.partition("=")
        options.setdefault(key, value if separator else "".join(arguments[index + 1 : index + 2]))
    if not options.get("--log"):
        return
    from orchestra.runtime import report

    report.write(options["--log"], options.get("--log-format", "text"), "error", text)


def entry() -> None:
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    entry()
