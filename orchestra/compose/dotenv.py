"""The grammar of ``.env``, env_file, label_file and ``include.env_file``.

Pure: text and a lookup in, ordered variables with their line numbers out. A line is ``KEY=value``,
``KEY: value``, ``export KEY=value``, or ``KEY`` alone (taken from the lookup, else left out).
Unquoted values end at `` #`` and are interpolated; double quotes span lines, know escapes and are
interpolated; single quotes are literal. Variables are looked up first, then among the file's own
earlier keys, then in ``earlier`` (files read before this one). ``parse_raw`` is the ``format: raw``: no quotes, comments or variables in values.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from orchestra.compose.interpolate import MAX_TOTAL, InvalidTemplate, Lookup, MissingVariable, substitute

_BLANKS = "\t\v\f\r \x85\xa0"
_EXPORT = re.compile(r"export[\t\v\f\r \x85\xa0]+")
_ESCAPE = re.compile(r'\\(?:[abcfnrtv$"\\]|0[0-7]{0,3})')
_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    '"': '"',
    "\\": "\\",
    "$": "$$",
    "c": "\\c",
}


class DotenvError(Exception):
    """``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


Missing = Callable[[str, int], None]


def parse(
    text: str, lookup: Lookup, missing: Missing | None = None, earlier: Lookup | None = None
) -> dict[str, tuple[str, int]]:
    """Key → (value, line), in the order of the file; ``missing`` hears of unset variables."""
    return _Parser(text, lookup, missing, earlier).run()


class _Parser:
    def __init__(self, text: str, lookup: Lookup, missing: Missing | None, earlier: Lookup | None) -> None:
        self.earlier = earlier
        self.text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        self.lookup = lookup
        self.missing = missing
        self.position = 0
        self.line = 1
        self.total = 0
        self.found: dict[str, tuple[str, int]] = {}

    def run(self) -> dict[str, tuple[str, int]]:
        while self._skip():
            line = self.line
            key, inherited = self._key()
            if inherited:
                value = self._variable(key)
                if value is not None:
                    self.found[key] = (value, line)
                continue
            self.found[key] = (self._value(), line)
        return self.found

    def _skip(self) -> bool:
        """Go to the next statement; False at the end of the text."""
        text = self.text
        while self.position < len(text):
            char = text[self.position]
            if char == "\n":
                self.line += 1
            elif char == "#":
                end = text.find("\n", self.position)
                self.position = len(text) if end < 0 else end
                continue
            elif char not in _BLANKS and not char.isspace():
                return True
            self.position += 1
        return False

    def _key(self) -> tuple[str, bool]:
        """The name, and whether it stands alone on its line."""
        text = self.text
        match = _EXPORT.match(text, self.position)
        start = match.end() if match else self.position
        for index in range(start, len(text)):
            char = text[index]
            if char in "=:\n":
                break
            if not (char in _BLANKS or char in "_-.[]" or char.isalpha() or char.isnumeric()):
                shown = text[start:].split("\n", 1)[0]
                raise DotenvError(self.line, f"unexpected character {char!r} in variable name {shown!r}")
        else:
            index = len(text)
            char = "\n"
        key = text[start:index].rstrip()
        if any(blank in key for blank in _BLANKS):
            raise DotenvError(self.line, f"variable name {key!r} holds a blank")
        if not key:
            raise DotenvError(self.line, "a value without a variable name")
        self.position = index + 1
        if char == "\n":
            self.line += 1
            return key, True
        while self.position < len(text) and text[self.position] in _BLANKS:
            self.position += 1
        return key, False

    def _value(self) -> str:
        text = self.text
        quote = text[self.position : self.position + 1]
        if quote in ("'", '"') and quote:
            return self._quoted(quote)
        end = text.find("\n", self.position)
        end = len(text) if end < 0 else end
        value = text[self.position : end].split(" #", 1)[0].rstrip()
        result = self._expand(value)
        self.position = end + 1
        self.line += 1
        return result

    def _quoted(self, quote: str) -> str:
        text, start = self.text, self.position
        index, opened = start + 1, self.line
        parts: list[str] = []
        while index < len(text):
            char = text[index]
            if char == "\\" and index + 1 < len(text):
                following = text[index + 1]
                parts.append(following if following == quote else char + following)
                self.line += following == "\n"
                index += 2
                continue
            if char == quote:
                self.position = index + 1
                value = "".join(parts)
                return self._expand(_ESCAPE.sub(_unescape, value)) if quote == '"' else value
            self.line += char == "\n"
            parts.append(char)
            index += 1
        shown = text[start:].split("\n", 1)[0]
        raise DotenvError(opened, f"unterminated quoted value {shown}")

    def _expand(self, value: str) -> str:
        if "$" not in value:
            return value
        missing: list[str] = []
        try:
            result = substitute(value, self._variable, missing)
        except InvalidTemplate as error:
            raise DotenvError(self.line, f"invalid interpolation format: {error}") from None
        except MissingVariable as error:
            raise DotenvError(self.line, str(error)) from None
        self.total += len(result)
        if self.total > MAX_TOTAL:
            raise DotenvError(self.line, "the values grow beyond all bounds")
        if self.missing is not None:
            for name in missing:
                self.missing(name, self.line)
        return result

    def _variable(self, name: str) -> str | None:
        value = self.lookup(name)
        if value is None and name in self.found:
            value = self.found[name][0]
        elif value is None and self.earlier is not None:
            value = self.earlier(name)
        return value


def _unescape(match: re.Match[str]) -> str:
    text = match.group()
    if text[1] == "0":
        digits = text[2:]
        if len(digits) != 3 or int(digits, 8) > 255:
            return text
        return chr(int(digits, 8))
    return _ESCAPES[text[1]]


def parse_raw(text: str, lookup: Lookup) -> dict[str, tuple[str, int]]:
    """The raw format: everything behind the first ``=`` is the value."""
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not key:
            raise DotenvError(number, "a value without a variable name")
        if any(char.isspace() for char in key):
            raise DotenvError(number, f"variable name {key!r} holds a blank")
        if equals:
            found[key] = (value, number)
        else:
            inherited = lookup(key)
            if inherited is not None:
                found[key] = (inherited, number)
    return found
