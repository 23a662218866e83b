"""``completion bash|zsh|fish``: a script that completes verbs, groups, options and service names."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli.table import GROUPS, HIDDEN, VERBS

if TYPE_CHECKING:
    from orchestra.cli.context import Context

BASH = """_orchestra() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$(orchestra completion --words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _orchestra orchestra
"""
ZSH = """#compdef orchestra
_orchestra() {
    local -a found
    found=(${(f)"$(orchestra completion --words -- "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"})
    compadd -a found || _files
}
compdef _orchestra orchestra
"""
FISH = """complete -c orchestra -f -a '(orchestra completion --words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--words", action="store_true", help="the words that may follow")
    parser.add_argument("arguments", nargs="*")


def run(context: Context, args: Namespace) -> int:
    if args.words:
        for word in words(context, args.arguments):
            print(word, file=context.stdout)
        return 0
    scripts = {"bash": BASH, "zsh": ZSH, "fish": FISH}
    shell = args.arguments[0] if args.arguments else "bash"
    if shell not in scripts:
        from orchestra.errors import UsageError

        raise UsageError(f"no completion for {shell}", hint="there is bash, zsh and fish")
    context.stdout.write(scripts[shell])
    return 0


def words(context: Context, typed: list[str]) -> list[str]:
    """What may stand in the place of the last word of ``typed``."""
    from orchestra.cli.main import Globals, make_parser, split

    options = Globals()
    try:
        verb, rest = split(typed[:-1], options)
    except Exception:
        return []
    if not verb:
        return [*(name for name in VERBS if name not in HIDDEN), *GROUPS]
    if verb in GROUPS and not rest:
        return list(GROUPS[verb])
    target = GROUPS[verb].get(rest[0]) if verb in GROUPS else VERBS.get(verb)
    if target is None:
        return []
    if typed and typed[-1].startswith("-"):
        module_name, _, function = target.partition(":")
        module = importlib.import_module(f"orchestra.cli.verbs.{module_name}")
        parser = make_parser(verb)
        getattr(module, f"add_{function}" if function else "add_arguments")(parser)
        return sorted(parser._option_string_actions)
    if verb in GROUPS:
        return []
    try:
        context.options.file = options.file
        return sorted(context.load().services)
    except Exception:
        return []
