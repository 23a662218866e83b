"""Words of an instruction: splitting with quotes, and ``$variable`` expansion as BuildKit does it.

Pure. Splitting keeps the quotes (a word is expanded, and loses them, when its stage is built).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_DEPTH = 40


class WordError(Exception):
    """``offset`` is in the text that was given."""

    def __init__(self, brief: str, offset: int = 0) -> None:
        super().__init__(brief)
        self.brief = brief
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    offset: int


def split(text: str, escape: str = "\\", offset: int = 0) -> list[Word]:
    """Words between blanks, quotes kept."""
    found: list[Word] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        end = _word_end(text, position, escape)
        found.append(Word(text[position:end], offset + position))
        position = end
    return found


def _word_end(text: str, position: int, escape: str) -> int:
    begin, quote = position, ""
    while position < len(text):
        letter = text[position]
        if letter == escape and quote != "'" and position + 1 < len(text):
            position += 1
        elif quote:
            if letter == quote:
                quote = ""
        elif letter in "\"'":
            quote, begin = letter, position
        elif letter.isspace():
            break
        position += 1
    if quote:
        raise WordError(f"quote {quote} is not closed", begin)
    return position


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """``text`` without its quotes and with its variables; what is not set is empty."""
    return _Expander(text, variables, escape, quotes=True).run()


def expand_text(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """The same for a heredoc's body, where quotes are plain letters."""
    return _Expander(text, variables, escape, quotes=False).run()


class _Expander:
    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool, depth: int = 0
    ) -> None:
        self.text = text
        self.variables = variables
        self.escape = escape
        self.quotes = quotes
        self.depth = depth
        self.position = 0
        if depth > _DEPTH:
            raise WordError("variables are nested too deeply")

    def run(self) -> str:
        out: list[str] = []
        while self.position < len(self.text):
            letter = self.text[self.position]
            if self.quotes and letter == "'":
                out.append(self._single())
            elif self.quotes and letter == '"':
                out.append(self._double())
            elif letter == "$":
                out.append(self._variable())
            elif letter == self.escape:
                out.append(self._escaped())
            else:
                out.append(letter)
                self.position += 1
        return "".join(out)

    def _escaped(self) -> str:
        following = self.text[self.position + 1 : self.position + 2]
        self.position += 2
        if self.quotes:
            return following
        return following if following in ("$", self.escape) and following else self.escape + following

    def _single(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise WordError("quote ' is not closed", self.position)
        inner = self.text[self.position + 1 : end]
        self.position = end + 1
        return inner

    def _double(self) -> str:
        begin = self.position
        self.position += 1
        out: list[str] = []
        while self.position < len(self.text):
            letter = self.text[self.position]
            if letter == '"':
                self.position += 1
                return "".join(out)
            if letter == "$":
                out.append(self._variable())
            elif letter == self.escape and self.text[self.position + 1 : self.position + 2] in (
                '"',
                "$",
                self.escape,
            ):
                out.append(self.text[self.position + 1])
                self.position += 2
            else:
                out.append(letter)
                self.position += 1
        raise WordError('quote " is not closed', begin)

    def _variable(self) -> str:
        begin = self.position
        self.position += 1
        if self.text[self.position : self.position + 1] == "{":
            return self._braced(begin)
        match = _NAME.match(self.text, self.position)
        if match is None:
            return "$"
        self.position = match.end()
        return self.variables.get(match[0], "")

    def _braced(self, begin: int) -> str:
        end = self._closing(begin)
        inner = self.text[begin + 2 : end]
        self.position = end + 1
        match = _NAME.match(inner)
        if match is None:
            raise WordError(f"invalid variable ${{{inner[:60]}}}", begin)
        name, rest = match[0], inner[match.end() :]
        if not rest:
            return self.variables.get(name, "")
        return self._modified(begin, name, rest)

    def _closing(self, begin: int) -> int:
        depth = 0
        position = begin + 1
        while position < len(self.text):
            letter = self.text[position]
            if letter == self.escape:
                position += 1
            elif letter == "{":
                depth += 1
            elif letter == "}":
                depth -= 1
                if not depth:
                    return position
            position += 1
        raise WordError("${ is not closed", begin)

    def _modified(self, begin: int, name: str, rest: str) -> str:
        colon = rest.startswith(":")
        operator, word = (rest[1:2], rest[2:]) if colon else (rest[:1], rest[1:])
        value = self.variables.get(name)
        present = bool(value) if colon else value is not None
        if operator == "-":
            return (value or "") if present else self._inner(word)
        if operator == "+":
            return self._inner(word) if present else ""
        if operator == "?":
            if present:
                return value or ""
            raise WordError(f"{name}: {self._inner(word) or 'is not set'}", begin)
        if colon or operator not in "#%/":
            raise WordError(f"unsupported modifier {rest[:20]!r} of variable {name}", begin)
        return self._trimmed(value or "", operator, word)

    def _inner(self, text: str) -> str:
        return _Expander(text, self.variables, self.escape, quotes=self.quotes, depth=self.depth + 1).run()

    def _trimmed(self, value: str, operator: str, word: str) -> str:
        twice = word.startswith(operator)
        word = word[1:] if twice else word
        if operator == "/":
            pattern, _, replacement = word.partition("/")
            found = re.compile(_glob(self._inner(pattern)))
            inserted = self._inner(replacement)
            return found.sub(lambda _match: inserted, value, count=0 if twice else 1)
        pattern = self._inner(word)
        lengths = range(len(value) + 1)
        matches = re.compile(_glob(pattern), re.DOTALL).fullmatch
        for length in reversed(lengths) if twice else lengths:
            part = value[:length] if operator == "#" else value[len(value) - length :]
            if matches(part):
                return value[length:] if operator == "#" else value[: len(value) - length]
        return value


def _glob(pattern: str) -> str:
    """A shell pattern as a regular expression."""
    translated = fnmatch.translate(pattern)
    inner = re.sub(r"^\(\?s:(.*)\)\\[Zz]$", r"\1", translated, flags=re.DOTALL)
    return inner
