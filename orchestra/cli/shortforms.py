"""Short forms of the command line (``-v``, ``-p``, ``--mount`` …) as model values in data form."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context

PROPAGATION = ("rprivate", "private", "rshared", "shared", "rslave", "slave")


def mount(context: Context, word: str) -> dict[str, Any]:
    """``-v [SOURCE:]TARGET[:OPTIONS]``. Raises UsageError."""
    parts = word.split(":")
    if len(parts) == 1:
        source, target, modes = "", parts[0], ""
    elif len(parts) == 2 and parts[1] and not parts[1].startswith("/") and parts[0].startswith("/"):
        source, target, modes = "", parts[0], parts[1]
    else:
        source, target, modes = parts[0], parts[1], ",".join(parts[2:])
    if not target.startswith("/"):
        raise UsageError(f"invalid volume {word!r}: the target must be an absolute path")
    found: dict[str, Any] = {"target": os.path.normpath(target), "source": source, "type": "volume"}
    words = [part for part in modes.split(",") if part]
    if source.startswith((".", "/", "~")):
        found["type"] = "bind"
        found["source"] = os.path.normpath(os.path.join(context.cwd, os.path.expanduser(source)))
        propagation = next((w for w in words if w in PROPAGATION), "")
        found["bind"] = {
            "propagation": propagation,
            "create_host_path": True,
            "selinux": next((w for w in words if w in "zZ"), ""),
            "idmap": "idmap" in words,
        }
    elif source and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", source):
        raise UsageError(
            f"invalid volume name {source!r}", hint="use letters, digits, _ . - (a path starts with / or .)"
        )
    else:
        found["volume"] = {"nocopy": "nocopy" in words}
    found["read_only"] = "ro" in words
    unknown = [
        w
        for w in words
        if w
        not in ("ro", "rw", "z", "Z", "nocopy", "idmap", "cached", "delegated", "consistent", *PROPAGATION)
    ]
    if unknown:
        raise UsageError(f"invalid volume {word!r}: unknown mode {unknown[0]}")
    return found


_MOUNT_KEYS = {
    "": ("type", "source", "src", "target", "dst", "destination", "readonly", "ro", "consistency"),
    "bind": ("bind-propagation", "bind-recursive", "bind-nonrecursive", "bind-create-src"),
    "volume": ("volume-nocopy", "volume-subpath"),
    "tmpfs": ("tmpfs-size", "tmpfs-mode"),
    "image": ("image-subpath",),
}
_YES, _NO = ("", "1", "t", "true"), ("0", "f", "false")


def mount_option(context: Context, word: str) -> dict[str, Any]:
    """``--mount type=bind,source=…,target=…``. Raises UsageError."""
    values: dict[str, str] = {}
    for part in word.split(","):
        key, _, value = part.partition("=")
        values[key.strip().lower()] = value
    kind = values.get("type", "volume")
    target = values.get("target") or values.get("dst") or values.get("destination") or ""
    source = values.get("source") or values.get("src") or ""
    if not target.startswith("/"):
        raise UsageError(f"invalid mount {word!r}: target must be an absolute path")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise UsageError(f"invalid mount {word!r}: unknown type {kind}")
    unknown = [key for key in values if key not in (*_MOUNT_KEYS[""], *_MOUNT_KEYS[kind])]
    if unknown:
        raise UsageError(
            f"invalid mount {word!r}: {unknown[0]} is no option of a {kind} mount",
            hint="volumes with a driver, options or labels are made by volume create first"
            if unknown[0].startswith("volume-")
            else None,
        )
    found: dict[str, Any] = {
        "type": kind,
        "target": os.path.normpath(target),
        "source": source,
        "read_only": any(_switch(values, name, word) for name in ("readonly", "ro")),
    }
    if kind == "bind":
        if not source:
            raise UsageError(f"invalid mount {word!r}: a bind needs a source")
        found["source"] = os.path.normpath(os.path.join(context.cwd, os.path.expanduser(source)))
        found["bind"] = _bind_options(values, word)
    elif kind == "volume":
        found["volume"] = {
            "nocopy": _switch(values, "volume-nocopy", word),
            "subpath": values.get("volume-subpath", ""),
        }
    elif kind == "tmpfs":
        size, mode = values.get("tmpfs-size"), values.get("tmpfs-mode")
        if mode and not re.fullmatch("[0-7]{1,5}", mode):
            raise UsageError(f"invalid mount {word!r}: tmpfs-mode {mode} is no octal number")
        found["tmpfs"] = {"size": byte_size(size) if size else None, "mode": int(mode, 8) if mode else None}
    else:
        found["image_subpath"] = values.get("image-subpath", "")
    return found


def _bind_options(values: dict[str, str], word: str) -> dict[str, Any]:
    propagation, recursive = values.get("bind-propagation", ""), values.get("bind-recursive", "")
    if propagation and propagation not in PROPAGATION:
        raise UsageError(f"invalid mount {word!r}: unknown propagation {propagation}")
    if recursive not in ("", "enabled", "disabled", "writable", "readonly"):
        raise UsageError(f"invalid mount {word!r}: bind-recursive is enabled, disabled, writable or readonly")
    if _switch(values, "bind-nonrecursive", word):
        recursive = "disabled"
    return {
        "propagation": propagation,
        "recursive": recursive,
        "create_host_path": _switch(values, "bind-create-src", word),
    }


def _switch(values: dict[str, str], name: str, word: str) -> bool:
    text = values.get(name, "false").lower()
    if text not in (*_YES, *_NO):
        raise UsageError(f"invalid mount {word!r}: {name} is true or false, not {text}")
    return text in _YES


def port(word: str) -> list[dict[str, Any]]:
    """``-p [IP:][PUBLISHED:]TARGET[/PROTOCOL]`` with ranges. Raises UsageError."""
    body, slash, protocol = word.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise UsageError(f"invalid port {word!r}: unknown protocol {protocol}")
    host = ""
    if body.startswith("["):
        host, bracket, body = body[1:].partition("]")
        if not bracket:
            raise UsageError(f"invalid port {word!r}: missing ]")
        body = body.removeprefix(":")
        published, _, target = body.rpartition(":")
    else:
        rest, _, target = body.rpartition(":")
        host, _, published = rest.rpartition(":")
    if host:
        import ipaddress

        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise UsageError(f"invalid port {word!r}: {host} is not an IP address") from None
    first, last = _range(target, word)
    if not published:
        return [
            {"target": n, "published": "", "host_ip": host, "protocol": protocol}
            for n in range(first, last + 1)
        ]
    low, high = _range(published, word)
    if high - low == last - first:
        return [
            {"target": first + i, "published": str(low + i), "host_ip": host, "protocol": protocol}
            for i in range(last - first + 1)
        ]
    if first == last:
        return [{"target": first, "published": published, "host_ip": host, "protocol": protocol}]
    raise UsageError(f"invalid port {word!r}: ranges of different length")


def _range(text: str, word: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if not match:
        raise UsageError(f"invalid port {word!r}", hint="write [IP:][HOST:]CONTAINER[/tcp|udp]")
    first, last = int(match.group(1)), int(match.group(2) or match.group(1))
    if not 0 <= first <= last <= 65535:
        raise UsageError(f"invalid port {word!r}: ports go from 0 to 65535")
    return first, last


def byte_size(text: str) -> int:
    """``512m``, ``1.5g``. Raises UsageError."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([kmgtp]?)i?b?", text.strip().lower())
    if not match:
        raise UsageError(f"invalid size {text!r}", hint="write for example 512m or 1.5g")
    return int(float(match.group(1)) * 1024 ** (" kmgtp".index(match.group(2) or " ")))


def environment_file(context: Context, name: str) -> dict[str, str]:
    """The variables of an env file, in compose's grammar. Raises OrchestraError."""
    from orchestra.compose.dotenv import DotenvError, parse
    from orchestra.errors import Location

    path = os.path.join(context.cwd, os.path.expanduser(name))
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except OSError as error:
        raise OrchestraError(f"cannot read env file {name}: {error.strerror}") from error
    try:
        return {key: value for key, (value, _line) in parse(text, context.environ.get).items()}
    except DotenvError as error:
        raise OrchestraError(error.message, location=Location(name, error.line)) from error
