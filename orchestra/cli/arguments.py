"""The parser of a verb's words: argparse with the habits of docker's command line.

- A switch takes ``--flag=true`` and ``--flag=false``, too; other words behind ``=`` are refused.
- Options and words may be mixed (``logs web -f db``), except before a container's own command.
- Complaints are OrchestraErrors in docker's words: ``unknown flag``, ``flag needs an argument``.

It does not know the global options; ``main`` adds them.
"""

from __future__ import annotations

import argparse
import copy
import os
import re

from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

TRUTH = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
VALUE = re.compile(r"argument (\S+): invalid (\w+) value: '(.*)'", re.DOTALL)
KINDS = {"int": "not a whole number", "float": "not a number"}


class Parser(argparse.ArgumentParser):
    """``name`` is the verb with its group: ``container run``."""

    def __init__(self, name: str, summary: str) -> None:
        super().__init__(
            prog=f"orchestra {name}", description=summary, allow_abbrev=False, formatter_class=formatter
        )
        self.name = name

    def error(self, message: str) -> Any:
        brief, hint = self._in_our_words(message)
        raise OrchestraError(brief, hint=hint or f"see orchestra {self.name} --help")

    def described(self) -> list[argparse.Action]:
        """All arguments, each option with its words."""
        from orchestra.cli.helptexts import fill

        fill(self.name, self._actions)
        return self._actions

    def format_help(self) -> str:
        self.described()
        return super().format_help()

    def _in_our_words(self, message: str) -> tuple[str, str | None]:
        words = message.removeprefix("unrecognized arguments: ")
        if words != message:
            first = words.split()[0] if words.split() else words
            if not first.startswith("-"):
                return f"unexpected argument: {first}", None
            return f"unknown flag: {first.partition('=')[0]}", self._close(first.partition("=")[0])
        match = re.fullmatch(r"argument (\S+): expected (?:one|at least one) argument", message)
        if match:
            return f"flag needs an argument: {match[1]}", None
        match = VALUE.fullmatch(message)
        if match:
            return f'invalid argument "{match[3]}" for {match[1]}: {KINDS.get(match[2], match[2])}', None
        match = re.fullmatch(r"argument (\S+): ignored explicit argument '(.*)'", message, re.DOTALL)
        if match:
            return f'invalid argument "{match[2]}" for {match[1]}: not a boolean', None
        return message, None

    def _close(self, word: str) -> str | None:
        from difflib import get_close_matches

        close = get_close_matches(word, list(self._option_string_actions), 1)
        return f"did you mean {close[0]}?" if close else None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or str(action.metavar or action.dest)
            *others, last = map(str, action.choices)
            known = f"{', '.join(others)} or {last}" if others else last
            self.error(f'invalid argument "{value}" for {name}: must be {known}')

    def _parse_optional(self, arg_string: str) -> Any:
        """``--switch=false`` counts as a switch with another value."""
        name, sep, word = arg_string.partition("=")
        action = self._option_string_actions.get(name) if sep else None
        value = TRUTH.get(word.lower())
        if value is None or not isinstance(action, argparse._StoreTrueAction | argparse._StoreFalseAction):
            return super()._parse_optional(arg_string)
        changed = copy.copy(action)
        changed.const = value if action.const else not value
        found: Any = super()._parse_optional(name)
        if isinstance(found, list):
            return [(changed, *found[0][1:])]
        return (changed, *found[1:])

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, extra = self.parse_known_args(args, namespace)
        if not extra:
            return found
        if self._mixes() and not any(word.startswith("-") and word != "--" for word in extra):
            return self.parse_intermixed_args(args)
        self.error(f"unrecognized arguments: {' '.join(word for word in extra if word != '--')}")

    def _mixes(self) -> bool:
        """Whether words may follow later: some positional takes several, and none is a command."""
        kinds = [action.nargs for action in self._get_positional_actions()]
        return argparse.REMAINDER not in kinds and any(kind in ("*", "+") for kind in kinds)


def formatter(prog: str) -> argparse.HelpFormatter:
    """With a width: else argparse loads shutil, to ask for one, for each argument that it is told of."""
    return argparse.HelpFormatter(prog, width=max(20, columns() - 2))


def columns() -> int:
    """The width of the help: ``COLUMNS``, else the terminal's, else 80."""
    text = os.environ.get("COLUMNS", "")
    if text.isdigit() and int(text):
        return int(text)
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80
