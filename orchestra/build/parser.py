"""From logical lines to instructions. Pure; every error has line and column.

``parse`` gives all instructions in order; which belong to which stage is stages.py's matter. Variables
are left as they are.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass

from orchestra.build import instructions as ins
from orchestra.build.lexer import Line, Source, heredoc_marks, read_lines
from orchestra.build.problems import DockerfileError
from orchestra.build.words import Word, WordError, split

_MOUNT_KEYS = {
    "bind": {"target", "dst", "destination", "source", "src", "from", "rw", "readwrite", "ro", "readonly"},
    "cache": {"id", "target", "dst", "destination", "source", "src", "from", "sharing", "mode", "uid", "gid",
              "ro", "readonly", "rw", "readwrite"},
    "tmpfs": {"target", "dst", "destination", "size"},
    "secret": {"id", "target", "dst", "destination", "source", "src", "required", "mode", "uid", "gid", "env"},
    "ssh": {"id", "target", "dst", "destination", "required", "mode", "uid", "gid"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Parsed:
    source: Source
    instructions: tuple[ins.Instruction, ...]


def parse(text: str, file: str = "Dockerfile") -> Parsed:
    """All instructions of a Dockerfile."""
    source = read_lines(text, file)
    return Parsed(source, tuple(parse_line(line, source.escape) for line in source.lines))


def parse_trigger(text: str, origin: str) -> ins.Instruction:
    """An ONBUILD trigger out of an image, which stands in no file."""
    source = read_lines(text, origin)
    if len(source.lines) != 1:
        raise DockerfileError(f"invalid ONBUILD trigger {text[:80]!r} in {origin}")
    return parse_line(source.lines[0], source.escape)


def parse_line(line: Line, escape: str = "\\") -> ins.Instruction:
    word = line.text.split(None, 1)[0]
    handler = _HANDLERS.get(word.upper())
    if handler is None:
        close = difflib.get_close_matches(word.upper(), _HANDLERS, 1)
        hint = f"did you mean {close[0]}?" if close else None
        raise line.error(f"unknown instruction {word[:40]!r}", 0, hint)
    rest = line.text[len(word) :]
    offset = len(word) + len(rest) - len(rest.lstrip())
    scanner = _Scanner(line, word.upper(), line.text[offset:], offset, escape)
    try:
        return handler(scanner)
    except WordError as error:
        raise line.error(error.brief, offset + error.offset) from None


class _Scanner:
    """The arguments of one instruction."""

    def __init__(self, line: Line, name: str, rest: str, offset: int, escape: str) -> None:
        self.line = line
        self.name = name
        self.rest = rest
        self.offset = offset
        self.escape = escape
        self.flags: list[tuple[str, str, int]] = []

    def error(self, brief: str, offset: int | None = None, hint: str | None = None) -> DockerfileError:
        return self.line.error(brief, self.offset if offset is None else offset, hint)

    def take_flags(self, *known: str) -> None:
        """Strip leading ``--name[=value]`` words."""
        while self.rest.startswith("--"):
            word = split(self.rest, self.escape, self.offset)[0]
            name, equals, value = word.text[2:].partition("=")
            if not name and not equals:
                break
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                raise self.error(f"{self.name} has no flag --{name}", word.offset,
                                 f"did you mean --{close[0]}?" if close else None)  # fmt: skip
            self.flags.append((name, _unquoted(value) if equals else "true", word.offset))
            cut = len(word.text)
            remaining = self.rest[cut:]
            blank = len(remaining) - len(remaining.lstrip())
            self.rest = remaining.lstrip()
            self.offset += cut + blank

    def flag(self, name: str, default: str = "") -> str:
        found = [value for key, value, _ in self.flags if key == name]
        if len(found) > 1:
            raise self.error(f"flag --{name} stands twice")
        return found[0] if found else default

    def all_flags(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value, _ in self.flags if key == name)

    def truth(self, name: str) -> bool:
        value = self.flag(name, "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise self.error(f"--{name} is true or false, not {value!r}")
        return value in ("true", "1")

    def words(self) -> list[Word]:
        return split(self.rest, self.escape, self.offset)

    def need(self) -> str:
        if not self.rest.strip():
            raise self.error(f"{self.name} needs an argument", 0)
        return self.rest

    def json_words(self) -> tuple[str, ...] | None:
        """The arguments as a JSON list of texts, if they are one."""
        if not self.rest.lstrip().startswith("["):
            return None
        try:
            value = json.loads(self.rest)
        except (ValueError, RecursionError):
            return None
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        return None

    def command(self) -> ins.Command:
        words = self.json_words()
        if words is not None:
            return ins.Command(words=words)
        return ins.Command(shell=self.rest)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """``a=1 b=2``, or the old ``key rest of line``."""
        text = self.need()
        words = self.words()
        if "=" not in words[0].text:
            key = words[0].text
            value = text[len(key) :].strip()
            if not value:
                raise self.error(f"{self.name} {key} has no value", words[0].offset, f"write {key}=value")
            return ((key, value),)
        found = []
        for word in words:
            key, equals, value = word.text.partition("=")
            if not equals or not key:
                raise self.error(f"{word.text[:60]!r} is not KEY=VALUE", word.offset)
            found.append((key, value))
        return tuple(found)


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value


def _from(scan: _Scanner) -> ins.Instruction:
    scan.take_flags("platform")
    scan.need()
    words = scan.words()
    if len(words) == 1:
        return ins.From(scan.line, words[0].text, "", scan.flag("platform"))
    if len(words) != 3 or words[1].text.upper() != "AS":
        raise scan.error("FROM takes IMAGE [AS NAME]", words[1].offset)
    name = words[2].text.lower()
    if not name[:1].isalpha() or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise scan.error(
            f"invalid stage name {words[2].text[:60]!r}", words[2].offset, "letters, digits, - _ ."
        )
    return ins.From(scan.line, words[0].text, name, scan.flag("platform"))


def _arg(scan: _Scanner) -> ins.Instruction:
    scan.need()
    found: list[tuple[str, str | None]] = []
    for word in scan.words():
        key, equals, value = word.text.partition("=")
        if not key.replace("_", "a").isalnum() or key[0].isdigit():
            raise scan.error(f"invalid argument name {key[:60]!r}", word.offset)
        found.append((key, value if equals else None))
    return ins.Arg(scan.line, tuple(found))


def _run(scan: _Scanner) -> ins.Instruction:
    scan.take_flags("mount", "network", "security")
    if not scan.rest.strip():
        raise scan.error("RUN needs a command", 0)
    network, security = scan.flag("network"), scan.flag("security")
    if network not in ("", "default", "none", "host"):
        raise scan.error(f"--network is default, none or host, not {network!r}")
    if security not in ("", "sandbox", "insecure"):
        raise scan.error(f"--security is sandbox or insecure, not {security!r}")
    mounts = tuple(_mount(scan, text) for text in scan.all_flags("mount"))
    return ins.Run(scan.line, scan.command(), scan.line.heredocs, mounts, network, security)


def _mount(scan: _Scanner, text: str) -> ins.Mount:
    import csv

    place = next(offset for name, value, offset in scan.flags if name == "mount" and value == text)
    options: list[tuple[str, str]] = []
    for part in next(csv.reader([text]), []):
        key, equals, value = part.partition("=")
        options.append((key.strip().lower(), _unquoted(value) if equals else "true"))
    kind = next((value for key, value in options if key == "type"), "bind")
    if kind not in _MOUNT_KEYS:
        raise scan.error(f"unknown mount type {kind!r}", place, f"one of {', '.join(sorted(_MOUNT_KEYS))}")
    rest = [(key, value) for key, value in options if key != "type"]
    for key, _ in rest:
        if key not in _MOUNT_KEYS[kind]:
            raise scan.error(f"a {kind} mount has no option {key!r}", place)
    mount = ins.Mount(kind, tuple(rest))
    if kind in ("bind", "cache", "tmpfs") and not mount.get("target", "dst", "destination"):
        raise scan.error(f"a {kind} mount needs target=", place)
    if mount.get("sharing", default="shared") not in ("shared", "private", "locked"):
        raise scan.error("sharing is shared, private or locked", place)
    return mount


def _copy(scan: _Scanner) -> ins.Instruction:
    add = scan.name == "ADD"
    own = ("checksum", "keep-git-dir", "unpack") if add else ("from", "parents")
    scan.take_flags("chown", "chmod", "link", "exclude", *own)
    scan.need()
    words = scan.json_words()
    plain = [Word(text, scan.offset) for text in words] if words is not None else scan.words()
    docs = {match.group(0): doc for (_, match), doc in zip(
        heredoc_marks(scan.line.text, scan.escape), scan.line.heredocs, strict=True)}  # fmt: skip
    sources = [word for word in plain if word.text not in docs]
    if not plain or len(plain) < 2 or plain[-1].text in docs:
        raise scan.error(f"{scan.name} needs at least one source and a target", 0)
    unpack = scan.truth("unpack") if add and scan.flag("unpack") else None
    quote = words is not None
    texts = tuple(_protected(word.text) if quote else word.text for word in sources)
    return ins.Copy(
        scan.line, texts[:-1], texts[-1], tuple(docs.values()), add,
        source_stage=scan.flag("from") if not add else "", chown=scan.flag("chown"), chmod=scan.flag("chmod"),
        link=scan.truth("link"), parents=scan.truth("parents") if not add else False,
        exclude=scan.all_flags("exclude"), checksum=scan.flag("checksum") if add else "", unpack=unpack,
        keep_git_dir=scan.truth("keep-git-dir") if add else False,
    )  # fmt: skip


def _protected(text: str) -> str:
    """A word of a JSON list, so that blanks in it survive later expansion (variables still count)."""
    return '"' + text.replace('"', '\\"') + '"' if any(c in text for c in " \t'\"") else text


def _list(scan: _Scanner) -> tuple[str, ...]:
    scan.need()
    words = scan.json_words()
    return words if words is not None else tuple(word.text for word in scan.words())


def _healthcheck(scan: _Scanner) -> ins.Instruction:
    scan.take_flags("interval", "timeout", "start-period", "start-interval", "retries")
    scan.need()
    options = tuple((name, value) for name, value, _ in scan.flags)
    word = scan.words()[0]
    kind = word.text.upper()
    if kind == "NONE":
        if len(scan.words()) > 1 or options:
            raise scan.error("HEALTHCHECK NONE takes no arguments", word.offset)
        return ins.HealthCheck(scan.line, (), None)
    if kind != "CMD":
        raise scan.error(f"HEALTHCHECK takes CMD or NONE, not {word.text[:40]!r}", word.offset)
    scan.rest = scan.rest[len(word.text) :].lstrip()
    if not scan.rest:
        raise scan.error("HEALTHCHECK CMD needs a command", word.offset)
    return ins.HealthCheck(scan.line, options, scan.command())


def _shell(scan: _Scanner) -> ins.Instruction:
    words = scan.json_words()
    if not words:
        raise scan.error("SHELL takes a JSON list", hint='for example SHELL ["/bin/bash", "-c"]')
    return ins.Shell(scan.line, words)


def _onbuild(scan: _Scanner) -> ins.Instruction:
    scan.need()
    word = scan.rest.split(None, 1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise scan.error(f"{word} cannot be a trigger")
    if word not in _HANDLERS:
        raise scan.error(f"unknown instruction {word[:40]!r}")
    bodies = "".join(
        f"\n{doc.content}{doc.name}" for doc in scan.line.heredocs
    )  # a heredoc travels with its trigger
    return ins.OnBuild(scan.line, scan.rest + bodies)


def _one(scan: _Scanner) -> str:
    return scan.need().strip()


_HANDLERS: dict[str, Callable[[_Scanner], ins.Instruction]] = {
    "FROM": _from,
    "ARG": _arg,
    "RUN": _run,
    "CMD": lambda scan: ins.Cmd(scan.line, scan.command()),
    "ENTRYPOINT": lambda scan: ins.Entrypoint(scan.line, scan.command()),
    "COPY": _copy,
    "ADD": _copy,
    "ENV": lambda scan: ins.Env(scan.line, scan.pairs()),
    "LABEL": lambda scan: ins.Label(scan.line, scan.pairs()),
    "WORKDIR": lambda scan: ins.Workdir(scan.line, _one(scan)),
    "USER": lambda scan: ins.User(scan.line, _one(scan)),
    "EXPOSE": lambda scan: ins.Expose(scan.line, _list(scan)),
    "VOLUME": lambda scan: ins.Volume(scan.line, _list(scan)),
    "STOPSIGNAL": lambda scan: ins.StopSignal(scan.line, _one(scan)),
    "HEALTHCHECK": _healthcheck,
    "SHELL": _shell,
    "ONBUILD": _onbuild,
    "MAINTAINER": lambda scan: ins.Maintainer(scan.line, _one(scan)),
}
