"""The ``orchestra`` command: finds the verb, loads only that verb's module, turns errors into exit codes.

Exit codes: 0 good; 1 any error; 130 interrupted; 141 when nobody reads the output any more; ``exec``, ``run``,
``wait`` and ``up`` with ``--exit-code-from``/``--abort-on-container-exit`` give a container's own code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from orchestra.cli.table import ALIASES, GLOBALS, GROUPS, HIDDEN, REFUSED, SUMMARIES, VERBS
from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestra.cli.arguments import Parser
    from orchestra.cli.context import Context

VALUE_OPTIONS = {
    "-f": "file",
    "--file": "file",
    "-p": "project_name",
    "--project-name": "project_name",
    "--profile": "profile",
    "--env-file": "env_file",
    "--project-directory": "project_directory",
    "--workdir": "project_directory",
    "--progress": "progress",
    "--ansi": "ansi",
    "--parallel": "parallel",
    "--root": "root",
}
FLAG_OPTIONS = {
    "--dry-run": "dry_run",
    "--compatibility": "compatibility",
    "--all-resources": "all_resources",
    "--verbose": "verbose",
    "--debug": "debug",
    "--no-ansi": "no_ansi",
}
REPEATED = {"file", "profile", "env_file"}


class Globals:
    """Options that stand before (or behind) the verb."""

    def __init__(self) -> None:
        self.file: list[str] = []
        self.profile: list[str] = []
        self.env_file: list[str] = []
        self.project_name: str | None = None
        self.project_directory: str | None = None
        self.progress: str | None = None
        self.ansi: str | None = None
        self.parallel: str | None = None
        self.root: str | None = None
        self.dry_run = self.compatibility = self.all_resources = False
        self.verbose = self.debug = self.no_ansi = False

    def set(self, name: str, value: Any) -> None:
        if name in REPEATED:
            getattr(self, name).append(value)
        else:
            setattr(self, name, value)


def entry() -> None:
    """The console script. It ends without taking the interpreter apart, which costs 5 to 10 ms."""
    import gc

    gc.set_threshold(50_000, 20, 20)  # what a command makes, it keeps until its end
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))
    code = main(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = 141
        except OSError as error:
            if stream is sys.stdout:
                sys.stderr.write(f"error: cannot write the output: {(error.strerror or '').lower()}\n")
            code = code or 1
    os._exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code and never raises for a user's error."""
    options = Globals()
    context: Context | None = None
    try:
        verb, rest = split(argv, options)
        if verb in ("-h", "--help", "help", ""):
            return _help(rest)
        if verb in ("-v", "--version"):
            verb = "version"
        from orchestra.cli.context import Context

        context = Context.make(options, dict(os.environ))
        return _dispatch(context, verb, rest)
    except OrchestraError as error:
        return _report(error, options, context)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _silence()
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else "cannot write the output: "
        _silence(keep_errors=True)
        return _report(OrchestraError(f"{where}{(error.strerror or str(error)).lower()}"), options, context)
    except RecursionError:
        return _report(OrchestraError("the input is nested too deeply"), options, context)


def split(argv: Sequence[str], options: Globals) -> tuple[str, list[str]]:
    """Read the global options in front; returns the verb ('' when there is none) and the rest."""
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word in ("-h", "--help", "-v", "--version"):
            return word, words
        name, sep, value = word.partition("=")
        if name in VALUE_OPTIONS:
            if not sep:
                if not words:
                    raise OrchestraError(f"flag needs an argument: {name}", hint="see orchestra --help")
                value = words.pop(0)
            options.set(VALUE_OPTIONS[name], value)
        elif name in FLAG_OPTIONS:
            options.set(FLAG_OPTIONS[name], _truth(name, value) if sep else True)
        elif word[:2] in ("-f", "-p") and len(word) > 2 and not word.startswith("--"):
            options.set(VALUE_OPTIONS[word[:2]], word[2:])
        else:
            raise OrchestraError(
                f"unknown flag: {name}", hint=_suggest(name, [*VALUE_OPTIONS, *FLAG_OPTIONS])
            )
    return "", []


def _truth(name: str, text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise OrchestraError(f'invalid argument "{text}" for "{name}" flag: not a boolean')


def _dispatch(context: Context, verb: str, rest: list[str]) -> int:
    if verb in GROUPS:
        if not rest or rest[0] in ("-h", "--help"):
            return _group_help(verb)
        word = rest.pop(0)
        if word not in GROUPS[verb]:
            word = ALIASES.get(word, word)
        if word not in GROUPS[verb]:
            raise OrchestraError(
                f'unknown command "orchestra {verb} {word}"', hint=_suggest(word, GROUPS[verb])
            )
        return _run(context, GROUPS[verb][word], f"{verb} {word}", rest)
    if verb in REFUSED:
        why, hint = REFUSED[verb]
        raise OrchestraError(f"{verb} is not supported: {why}", hint=hint)
    if verb not in VERBS:
        raise OrchestraError(f'unknown command "orchestra {verb}"', hint=_suggest(verb, [*VERBS, *GROUPS]))
    return _run(context, VERBS[verb], verb, rest)


def _run(context: Context, target: str, name: str, rest: list[str]) -> int:
    import importlib

    module_name, _, function = target.partition(":")
    module = importlib.import_module(f"orchestra.cli.verbs.{module_name}")
    add = getattr(module, f"add_{function}" if function else "add_arguments")
    run = getattr(module, f"run_{function}" if function else "run")
    parser = make_parser(name)
    add(parser)
    _add_globals(parser)
    args = parser.parse_args(rest)
    for key in dict.fromkeys([*VALUE_OPTIONS.values(), *FLAG_OPTIONS.values()]):
        value = getattr(args, f"global_{key}", None)
        if value:
            for item in value if key in REPEATED else [value]:
                context.options.set(key, item)
    context.refresh()
    if context.options.dry_run:
        from orchestra.cli.dryrun import check

        check(name)
    code: int = run(context, args)
    context.stdout.flush()
    return code


def make_parser(name: str) -> Parser:
    """A parser whose complaints are OrchestraErrors."""
    from orchestra.cli.arguments import Parser

    return Parser(name, SUMMARIES.get(name, ""))


def parser_of(name: str, target: str) -> Parser:
    """The parser of a verb (``container run``), without the global options."""
    import importlib

    module_name, _, function = target.partition(":")
    module = importlib.import_module(f"orchestra.cli.verbs.{module_name}")
    parser = make_parser(name)
    getattr(module, f"add_{function}" if function else "add_arguments")(parser)
    return parser


def _add_globals(parser: argparse.ArgumentParser) -> None:
    """The global options behind the verb too, where the verb has no option of that name itself."""
    import argparse

    taken = set(parser._option_string_actions)
    group = parser.add_argument_group("global options")
    names: dict[str, list[str]] = {}
    for option, key in {**VALUE_OPTIONS, **FLAG_OPTIONS}.items():
        if option not in taken:
            names.setdefault(key, []).append(option)
    for key, options in names.items():
        if key in REPEATED:
            group.add_argument(*options, dest=f"global_{key}", action="append", help=argparse.SUPPRESS)
        elif key in FLAG_OPTIONS.values():
            group.add_argument(*options, dest=f"global_{key}", action="store_true", help=argparse.SUPPRESS)
        else:
            group.add_argument(*options, dest=f"global_{key}", help=argparse.SUPPRESS)


def _suggest(word: str, known: Any) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), 1)
    return f"did you mean {close[0]}?" if close else "see orchestra --help"


def _help(rest: list[str]) -> int:
    if rest and rest[0] in GROUPS:
        words = GROUPS[rest[0]]
        word = ALIASES.get(rest[1], rest[1]) if len(rest) > 1 and rest[1] not in words else "".join(rest[1:2])
        if word not in words:
            return _group_help(rest[0])
        parser_of(f"{rest[0]} {word}", words[word]).print_help()
        return 0
    if rest and rest[0] in VERBS:
        parser_of(rest[0], VERBS[rest[0]]).print_help()
        return 0
    out = ["Usage: orchestra [OPTIONS] COMMAND", "", "Compose files on plain Linux.", "", "Options:"]
    for names, value, text in GLOBALS:
        out.append(f"  {f'{names} {value}'.rstrip():<27}{text}")
    out += ["", "Commands:"]
    shown = [name for name in VERBS if name not in HIDDEN]
    out += [f"  {name:<14}{SUMMARIES.get(name, '')}" for name in shown]
    out += ["", "Groups:"]
    out += [f"  {name:<14}{', '.join(words)}" for name, words in GROUPS.items()]
    print("\n".join(out))
    return 0


def _group_help(group: str) -> int:
    print(f"Usage: orchestra {group} COMMAND\n\nCommands:")
    for word in GROUPS[group]:
        print(f"  {word:<14}{SUMMARIES.get(f'{group} {word}', '')}")
    return 0


def _report(error: OrchestraError, options: Globals, context: Context | None) -> int:
    if options.debug:
        import traceback

        traceback.print_exc()
    if context is not None:
        context.report(error)
    else:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
    return error.exit_code


def _silence(*, keep_errors: bool = False) -> None:
    """Nobody reads: keep the interpreter from complaining when it flushes at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout,) if keep_errors else (sys.stdout, sys.stderr):
        os.dup2(null, stream.fileno())
