"""Build image configurations (OCI image spec, config.md) and change them as Dockerfile instructions do."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestra.errors import UsageError
from orchestra.images.digest import Digest
from orchestra.images.manifest import Platform, canonical_json

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NANOSECOND = 1_000_000_000


def timestamp(seconds: float | None) -> str:
    """RFC 3339 as image configurations have it."""
    moment = datetime.fromtimestamp(seconds or 0, UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{moment.microsecond:06d}Z" if moment.microsecond else f"{text}Z"


@dataclass(slots=True)
class Settings:
    """The ``config`` object of an image, under construction. ``None`` keeps a key out."""

    user: str = ""
    exposed_ports: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: list[str] = field(default_factory=list)
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    shell: list[str] | None = None
    healthcheck: dict[str, Any] | None = None
    on_build: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Settings:
        return cls(
            user=data.get("User") or "",
            exposed_ports=list(data.get("ExposedPorts") or ()),
            env=split_env(data.get("Env") or ()),
            entrypoint=_copied(data.get("Entrypoint")),
            cmd=_copied(data.get("Cmd")),
            volumes=list(data.get("Volumes") or ()),
            working_dir=data.get("WorkingDir") or "",
            labels=dict(data.get("Labels") or {}),
            stop_signal=data.get("StopSignal") or "",
            shell=_copied(data.get("Shell")),
            healthcheck=copy.deepcopy(data.get("Healthcheck")),
            on_build=list(data.get("OnBuild") or ()),
        )

    def to_dict(self) -> dict[str, Any]:
        full: dict[str, Any] = {
            "User": self.user,
            "ExposedPorts": {port: {} for port in sorted(self.exposed_ports)},
            "Env": [f"{key}={value}" for key, value in self.env.items()],
            "Entrypoint": self.entrypoint,
            "Cmd": self.cmd,
            "Healthcheck": self.healthcheck,
            "Volumes": {path: {} for path in sorted(self.volumes)},
            "WorkingDir": self.working_dir,
            "Labels": dict(sorted(self.labels.items())),
            "StopSignal": self.stop_signal,
            "Shell": self.shell,
            "OnBuild": self.on_build,
        }
        return {key: value for key, value in full.items() if value}

    def apply(self, instruction: str) -> None:
        """One Dockerfile instruction as ``--change`` takes it: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
        LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR."""
        word, _, rest = instruction.strip().partition(" ")
        rest = rest.strip()
        change = _CHANGES.get(word.upper())
        if change is None:
            known = ", ".join(sorted(_CHANGES))
            raise UsageError(f"cannot change an image by {word!r}", hint=f"one of {known}")
        if not rest:
            raise UsageError(f"{word.upper()} needs a value")
        change(self, rest)


def _copied(value: Iterable[str] | None) -> list[str] | None:
    return None if value is None else list(value)


def split_env(pairs: Iterable[str]) -> dict[str, str]:
    """``KEY=value`` texts as a mapping; the last wins."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        found[key] = value
    return found


def command_words(text: str, shell: list[str] | None = None) -> list[str]:
    """A JSON list as it is, else a shell command (``/bin/sh -c text``)."""
    if text.lstrip().startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return [*(["/bin/sh", "-c"] if shell is None else shell), text]


def key_values(text: str, what: str) -> dict[str, str]:
    """``a=1 b="two words"`` or the old ``key value``."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{what} {text!r}: {error}") from None
    if words and "=" not in words[0]:
        key, _, value = text.partition(" ")
        return {key: value.strip()}
    if not words or not all("=" in word for word in words):
        raise UsageError(f"{what} {text!r} is not KEY=VALUE")
    return split_env(words)


def port(text: str) -> str:
    """``8080`` → ``8080/tcp``, checked."""
    number, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    low, _, high = number.partition("-")
    good = all(p.isdigit() and 0 < int(p) < 65536 for p in ([low, high] if high else [low]))
    if not good or protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid port {text!r}", hint="expected PORT, PORT/udp or FIRST-LAST")
    return f"{number}/{protocol}"


def ports(text: str) -> list[str]:
    """All ports of one word; a range is written out."""
    checked = port(text)
    number, _, protocol = checked.partition("/")
    low, _, high = number.partition("-")
    if not high:
        return [checked]
    if int(high) < int(low):
        raise UsageError(f"invalid port range {text!r}")
    return [f"{n}/{protocol}" for n in range(int(low), int(high) + 1)]


def duration(text: str) -> int:
    """A duration like ``1m30s`` in nanoseconds."""
    units = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": _NANOSECOND, "m": 60 * _NANOSECOND}
    units["h"] = 3600 * _NANOSECOND
    import re

    total = 0.0
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+", text):
        raise UsageError(f"invalid duration {text!r}", hint="for example 30s or 1m30s")
    for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text):
        total += float(number) * units[unit]
    return int(total)


def healthcheck(text: str) -> dict[str, Any]:
    """``[--interval=… --timeout=… --start-period=… --start-interval=… --retries=…] CMD …`` or ``NONE``."""
    names = {
        "--interval": "Interval", "--timeout": "Timeout", "--start-period": "StartPeriod",
        "--start-interval": "StartInterval", "--retries": "Retries",
    }  # fmt: skip
    found: dict[str, Any] = {}
    rest = text.strip()
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        option, equals, value = word.partition("=")
        if option not in names or not equals:
            raise UsageError(f"unknown health check option {option!r}", hint=", ".join(sorted(names)))
        if option == "--retries":
            if not value.isdigit():
                raise UsageError(f"invalid number of retries {value!r}")
            found["Retries"] = int(value)
        else:
            found[names[option]] = duration(value)
        rest = rest.strip()
    word, _, command = rest.partition(" ")
    if word.upper() == "NONE" and not command:
        return {"Test": ["NONE"]}
    if word.upper() == "CMD":
        rest = command.strip()
    if not rest:
        raise UsageError("a health check needs a command")
    words = command_words(rest, [])
    test = ["CMD", *words] if rest.startswith("[") and words != [rest] else ["CMD-SHELL", rest]
    return {"Test": test, **found}


def _words_or_json(text: str) -> list[str]:
    if text.startswith("["):
        return command_words(text, [])
    return text.split()


def _change_volume(settings: Settings, text: str) -> None:
    settings.volumes += [path for path in _words_or_json(text) if path not in settings.volumes]


def _change_expose(settings: Settings, text: str) -> None:
    for word in text.split():
        settings.exposed_ports += [p for p in ports(word) if p not in settings.exposed_ports]


def _change_entrypoint(settings: Settings, text: str) -> None:
    settings.entrypoint = command_words(text, settings.shell)


def _change_cmd(settings: Settings, text: str) -> None:
    settings.cmd = command_words(text, settings.shell)


def _change_workdir(settings: Settings, text: str) -> None:
    import posixpath

    settings.working_dir = posixpath.normpath(posixpath.join(settings.working_dir or "/", text))


def _change_shell(settings: Settings, text: str) -> None:
    words = command_words(text, [])
    if words == [text]:
        raise UsageError(f"SHELL {text!r} is not a JSON list")
    settings.shell = words


_CHANGES = {
    "CMD": _change_cmd,
    "ENTRYPOINT": _change_entrypoint,
    "ENV": lambda s, text: s.env.update(key_values(text, "ENV")),
    "EXPOSE": _change_expose,
    "HEALTHCHECK": lambda s, text: setattr(s, "healthcheck", healthcheck(text)),
    "LABEL": lambda s, text: s.labels.update(key_values(text, "LABEL")),
    "ONBUILD": lambda s, text: s.on_build.append(text),
    "SHELL": _change_shell,
    "STOPSIGNAL": lambda s, text: setattr(s, "stop_signal", text),
    "USER": lambda s, text: setattr(s, "user", text),
    "VOLUME": _change_volume,
    "WORKDIR": _change_workdir,
}


def new_config(
    settings: Settings,
    diff_ids: Iterable[Digest],
    *,
    created: float | None,
    history: Iterable[Mapping[str, Any]] = (),
    platform: Platform | None = None,
    author: str = "",
) -> dict[str, Any]:
    """A whole image configuration."""
    where = platform or Platform.host()
    config: dict[str, Any] = {"created": timestamp(created)}
    if author:
        config["author"] = author
    config |= {"architecture": where.architecture, "os": where.os}
    if where.variant:
        config["variant"] = where.variant
    config["config"] = settings.to_dict()
    config["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    config["history"] = [dict(step) for step in history]
    return config


def history_step(
    created: float | None, created_by: str, *, empty_layer: bool = False, comment: str = "", author: str = ""
) -> dict[str, Any]:
    step: dict[str, Any] = {"created": timestamp(created), "created_by": created_by}
    if author:
        step["author"] = author
    if comment:
        step["comment"] = comment
    if empty_layer:
        step["empty_layer"] = True
    return step


def config_bytes(config: Mapping[str, Any]) -> bytes:
    return canonical_json(config)
