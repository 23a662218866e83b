"""The instructions of a Dockerfile as frozen values. Texts are as written: variables are not expanded."""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.build.lexer import Heredoc, Line


@dataclass(frozen=True, slots=True)
class Instruction:
    """``line`` gives positions; ``text`` is what the history of the image shows."""

    line: Line

    @property
    def text(self) -> str:
        return " ".join(self.line.text.split("\n"))


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    """``pairs``: name and default, None where there is none."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """``words`` of the exec form, or the ``shell`` text."""

    words: tuple[str, ...] | None = None
    shell: str = ""


@dataclass(frozen=True, slots=True)
class Mount:
    """One ``--mount`` of RUN; ``options`` are the ``key=value`` pairs besides the type."""

    kind: str
    options: tuple[tuple[str, str], ...]

    def get(self, *names: str, default: str = "") -> str:
        for key, value in self.options:
            if key in names:
                return value
        return default

    def flag(self, name: str) -> bool:
        return self.get(name, default="false").lower() in ("true", "1", "")

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self.options)


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = ""
    security: str = ""


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: Command


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    """COPY, and ADD where ``add``. ``heredocs`` are further sources."""

    sources: tuple[str, ...]
    target: str
    heredocs: tuple[Heredoc, ...] = ()
    add: bool = False
    source_stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    unpack: bool | None = None
    keep_git_dir: bool = False


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class HealthCheck(Instruction):
    """``options``: pairs like ("interval", "30s"); ``command`` None is NONE."""

    options: tuple[tuple[str, str], ...]
    command: Command | None


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnBuild(Instruction):
    trigger: str


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    author: str
