"""A Dockerfile's text as logical lines: directives, comments, continuations, heredocs, with positions.

Pure. A logical line is what an instruction is parsed from; every offset in it leads back to line and
column of the file (:meth:`Line.at`). Which words are heredocs is decided here, since their bodies are no
lines; what an instruction does with them is the parser's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestra.build.problems import DockerfileError
from orchestra.errors import Location

SIZE_LIMIT = 4 << 20
_DIRECTIVE = re.compile(r"\s*#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_DIRECTIVES = {"escape", "syntax", "check"}
_WITH_HEREDOCS = re.compile(r"(?:ONBUILD\s+)?(RUN|COPY|ADD)\s", re.IGNORECASE)
_HEREDOC = re.compile(
    r"(?P<fd>\d*)<<(?P<strip>-?)(?P<quote>[\"']?)(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)(?P=quote)"
)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """``expand``: the delimiter was not quoted. ``delimiter`` ends it in the source."""

    name: str
    content: str
    expand: bool
    strip: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """``marks``: (offset in ``text``, line, column) where each piece of the file begins."""

    text: str
    file: str
    marks: tuple[tuple[int, int, int], ...]
    heredocs: tuple[Heredoc, ...] = ()

    def at(self, offset: int = 0) -> Location:
        found = self.marks[0]
        for mark in self.marks:
            if mark[0] > offset:
                break
            found = mark
        return Location(self.file, found[1], found[2] + offset - found[0])

    def error(self, brief: str, offset: int = 0, hint: str | None = None) -> DockerfileError:
        return DockerfileError(brief, location=self.at(offset), hint=hint)


@dataclass(frozen=True, slots=True)
class Source:
    """A whole Dockerfile."""

    lines: tuple[Line, ...]
    escape: str = "\\"
    directives: Mapping[str, str] = field(default_factory=dict)


def read_lines(text: str, file: str = "Dockerfile") -> Source:
    """All logical lines of ``text``."""
    if len(text) > SIZE_LIMIT:
        raise DockerfileError(f"more than {SIZE_LIMIT} characters", location=Location(file))
    raw = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives = _directives(raw, file)
    reader = _Reader(raw, file, directives.get("escape", "\\"))
    return Source(tuple(reader.lines()), reader.escape, directives)


def _directives(raw: list[str], file: str) -> dict[str, str]:
    """Those at the very top; the first line that is none ends them."""
    found: dict[str, str] = {}
    for number, text in enumerate(raw, 1):
        if number == 1 and text.startswith("#!"):
            continue
        match = _DIRECTIVE.fullmatch(text)
        name = match[1].lower() if match else ""
        if match is None or name not in _DIRECTIVES:
            break
        if name in found:
            raise DockerfileError(f"directive {name} stands twice", location=Location(file, number, 1))
        if name == "escape" and match[2] not in ("\\", "`"):
            raise DockerfileError(
                f"invalid escape character {match[2][:20]!r}",
                location=Location(file, number, 1),
                hint="\\ or `",
            )
        found[name] = match[2]
    return found


class _Reader:
    def __init__(self, raw: list[str], file: str, escape: str) -> None:
        self._raw = raw
        self._file = file
        self.escape = escape
        mark = re.escape(escape)
        self._continues = re.compile(rf"(?:^|(?<!{mark})){mark}[ \t]*$")
        self._next = 0

    def lines(self) -> list[Line]:
        found = []
        while self._next < len(self._raw):
            line = self._logical()
            if line is not None:
                found.append(line)
        return found

    def _logical(self) -> Line | None:
        parts: list[str] = []
        marks: list[tuple[int, int, int]] = []
        length = 0
        while self._next < len(self._raw):
            text, number = self._raw[self._next], self._next + 1
            self._next += 1
            bare = text.lstrip()
            if bare.startswith("#") or not bare:
                if not parts:
                    return None
                continue  # comments and empty lines inside of a continued instruction do not count
            piece = text if parts else bare
            column = len(text) - len(piece) + 1
            match = self._continues.search(piece)
            if match:
                piece = piece[: match.start()]
            marks.append((length, number, column))
            parts.append(piece)
            length += len(piece)
            if not match:
                break
        whole = "".join(parts).rstrip() if parts else ""
        if not whole:
            return None
        line = Line(whole, self._file, tuple(marks))
        return Line(whole, self._file, line.marks, self._heredocs(line))

    def _heredocs(self, line: Line) -> tuple[Heredoc, ...]:
        if "<<" not in line.text or not _WITH_HEREDOCS.match(line.text):
            return ()
        return tuple(
            self._body(line, offset, match) for offset, match in heredoc_marks(line.text, self.escape)
        )

    def _body(self, line: Line, offset: int, match: re.Match[str]) -> Heredoc:
        body: list[str] = []
        while self._next < len(self._raw):
            text = self._raw[self._next]
            self._next += 1
            if match["strip"]:
                text = text.lstrip("\t")
            if text == match["name"]:
                content = "".join(f"{part}\n" for part in body)
                return Heredoc(match["name"], content, not match["quote"], bool(match["strip"]))
            body.append(text)
        raise line.error(f"heredoc {match['name']} has no end", offset, f"end it by a line {match['name']}")


def heredoc_marks(text: str, escape: str = "\\") -> list[tuple[int, re.Match[str]]]:
    """Where heredocs are announced in a line, outside of quotes."""
    found = []
    quote = ""
    position = 0
    while position < len(text):
        letter = text[position]
        if quote:
            if letter == escape and quote == '"':
                position += 1
            elif letter == quote:
                quote = ""
        elif letter == escape:
            position += 1
        elif letter in "\"'":
            quote = letter
        elif letter == "<" and text.startswith("<<", position) and not text.startswith("<<<", position):
            begin = position
            while begin and text[begin - 1].isdigit():
                begin -= 1
            match = _HEREDOC.match(text, begin)
            if match:
                found.append((begin, match))
                position = match.end()
                continue
        elif text.startswith("<<<", position):
            position += 3
            continue
        position += 1
    return found
