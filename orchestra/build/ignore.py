"""``.dockerignore``: which files of a context do not count, by docker's own matching rules.

Pure. Patterns are relative to the context's root; ``*`` and ``?`` stop at ``/``, ``**`` does not; a
pattern matches a path or any directory above it; ``!`` takes an exception; the last match decides.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from orchestra.build.problems import BuildError


@dataclass(frozen=True, slots=True)
class Pattern:
    text: str
    expression: re.Pattern[str]
    exception: bool


class IgnoreRules:
    """``lines`` as they stand in a ``.dockerignore``, comments apart."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.patterns = tuple(pattern for line in lines if (pattern := _pattern(line)))
        self.has_exceptions = any(pattern.exception for pattern in self.patterns)

    @classmethod
    def parse(cls, text: str) -> IgnoreRules:
        """The rules of a whole ``.dockerignore``."""
        lines = text.removeprefix("\ufeff").splitlines()
        return cls(line.strip() for line in lines if not line.startswith("#"))

    def matches(self, path: str) -> bool:
        """Whether ``path`` (relative, ``/`` between parts) is ignored."""
        ignored = False
        parents = _parents(path)
        for pattern in self.patterns:
            if pattern.exception == ignored and any(map(pattern.expression.fullmatch, parents)):
                ignored = not pattern.exception
        return ignored

    def prunes(self, path: str) -> bool:
        """Whether nothing below the ignored directory ``path`` can be taken back by an exception."""
        if not self.has_exceptions:
            return True
        return not any(pattern.exception and _may_be_below(pattern.text, path) for pattern in self.patterns)


def _pattern(line: str) -> Pattern | None:
    exception = line.startswith("!")
    text = line[1:].strip() if exception else line
    if not text:
        return None
    text = posixpath.normpath(text).lstrip("/")
    if text in ("", "."):
        return None
    try:
        return Pattern(text, re.compile(translate(text), re.DOTALL), exception)
    except re.error:
        raise BuildError(f"invalid pattern {line[:100]!r}") from None


def translate(pattern: str) -> str:
    """A pattern of Go's path matching, with ``**``, as a regular expression."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        if pattern.startswith("**", position):
            position += 2
            if pattern.startswith("/", position):
                position += 1
                out.append("(?:.*/)?")
            elif position >= len(pattern):
                out.append(".*" if not out or pattern[position - 3 : position - 2] != "/" else ".+")
            else:
                out.append(".*")
            continue
        if letter == "*":
            out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "[":
            end = _class_end(pattern, position)
            out.append(_class(pattern[position + 1 : end]))
            position = end
        elif letter == "\\" and position + 1 < len(pattern):
            position += 1
            out.append(re.escape(pattern[position]))
        else:
            out.append(re.escape(letter))
        position += 1
    return "".join(out)


def _class_end(pattern: str, position: int) -> int:
    end = position + 1
    while end < len(pattern):
        if pattern[end] == "\\":
            end += 1
        elif pattern[end] == "]" and end > position + 1:
            return end
        end += 1
    raise BuildError(f"invalid pattern {pattern[:100]!r}: [ is not closed")


def _class(text: str) -> str:
    negated = text.startswith("^")
    inner = text[1:] if negated else text
    inner = inner.replace("[", "\\[").replace("&&", "&\\&").replace("||", "|\\|").replace("~~", "~\\~")
    return f"(?!/)[{'^' if negated else ''}{inner}]"


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _may_be_below(pattern: str, path: str) -> bool:
    """Whether ``pattern`` may match something below the directory ``path``."""
    wanted, have = pattern.split("/"), path.split("/")
    for mine, theirs in zip(wanted, have, strict=False):
        if mine == "**":
            return True
        try:
            if not re.fullmatch(translate(mine), theirs, re.DOTALL):
                return False
        except re.error:
            return True
    return True
