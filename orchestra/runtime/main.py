"""``orchestra-runtime``: the runtime as a command of its own, with the OCI command line.

Podman, containerd and people call it as they call runc or crun. Errors go to standard error and, with
``--log``, also into that file (``--log-format json``: one object a line). Commands that enter a container
run from a read-only copy of the interpreter (see ``linux.selfexe``); they start it before anything else is
loaded, and no command loads or declares more than it needs: containerd runs four or five of them a container.
"""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file, by ourselves
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import importlib

from orchestra.errors import OrchestraError, UnsupportedError, UsageError

_ENTERS = ("create", "run", "exec")
_WITH_VALUE = ("--root", "--log", "--log-format", "--log-level", "--cgroup-manager", "--rootless")
_LIFECYCLE = ("create", "run", "start", "kill", "delete", "pause", "resume", "exec")


def verb_of(arguments: list[str]) -> str:
    """The command's name, found without knowing its options; '' for none or for
    help about all."""
    words = iter(arguments)
    for word in words:
        if word in ("-h", "--help"):
            break
        if not word.startswith("-"):
            return word
        if word in _WITH_VALUE:
            next(words, None)
    return ""


def run(arguments: list[str]) -> int:
    """The exit code. ``OrchestraError`` for the user."""
    verb = verb_of(arguments)
    if verb in _ENTERS:
        _protect(arguments)
    from orchestra.runtime.commandline import parser

    options = parser(verb).parse_args(arguments)
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
    from orchestra.runtime.state import Store

    module = importlib.import_module(
        f"orchestra.runtime.{'lifecycle' if options.verb in _LIFECYCLE else 'inspecting'}"
    )
    if verb in _ENTERS:
        module.check_preserved(options)
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
    except KeyboardInterrupt:
        return 130
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
