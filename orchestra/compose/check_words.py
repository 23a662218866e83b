"""Warnings about words that docker compose lets pass although no engine knows them: capabilities,
signals, restart policies, image references, host names and the like.
"""

from __future__ import annotations

import re

from orchestra.compose.diagnostics import Problems
from orchestra.compose.suggest import nearest
from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, scalar_text

CAPABILITIES = frozenset(
    (
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "SYSLOG",
        "WAKE_ALARM",
        "ALL",
    )
)
SIGNALS = frozenset(
    (
        "HUP",
        "INT",
        "QUIT",
        "ILL",
        "TRAP",
        "ABRT",
        "IOT",
        "BUS",
        "FPE",
        "KILL",
        "USR1",
        "SEGV",
        "USR2",
        "PIPE",
        "ALRM",
        "TERM",
        "STKFLT",
        "CHLD",
        "CLD",
        "CONT",
        "STOP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "XCPU",
        "XFSZ",
        "VTALRM",
        "PROF",
        "WINCH",
        "IO",
        "POLL",
        "PWR",
        "SYS",
    )
)
_RESTART = ("no", "always", "on-failure", "unless-stopped")
_IMAGE = (
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
_HOST = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?"
_MAC = r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}"


def warn(name: str, service: Mapping, problems: Problems) -> None:
    """Record the warnings of one service."""
    items = service.items
    for key, look in _LOOKS.items():
        node = items.get(key)
        if isinstance(node, Scalar):
            _one(node, look(scalar_text(node.value)), ("services", name, key), problems)
    for key in ("cap_add", "cap_drop"):
        node = items.get(key)
        for index, item in enumerate(node.items if isinstance(node, Sequence) else ()):
            if isinstance(item, Scalar):
                _one(item, _capability(scalar_text(item.value)), ("services", name, key, index), problems)
    _ports(name, items.get("ports"), problems)
    _labels(name, service, problems)


def _one(node: Scalar, found: tuple[str, str | None] | None, path: Path, problems: Problems) -> None:
    if found is not None and node.value not in (None, ""):
        problems.warn(found[0], node.location, path, hint=found[1])


def _near(word: str, known: frozenset[str] | tuple[str, ...]) -> str | None:
    found = nearest(word, sorted(known))
    return f"did you mean {found}?" if found else None


def _capability(word: str) -> tuple[str, str | None] | None:
    bare = word.upper().removeprefix("CAP_")
    return None if bare in CAPABILITIES else (f"unknown capability {word}", _near(bare, CAPABILITIES))


def _signal(word: str) -> tuple[str, str | None] | None:
    bare = word.upper().removeprefix("SIG")
    if bare in SIGNALS or re.fullmatch(r"RTM(IN|AX)([+-][0-9]{1,2})?", bare):
        return None
    if word.isdecimal() and 0 < int(word[:4]) < 65:
        return None
    return f"unknown signal {word}", _near(bare, SIGNALS)


def _restart(word: str) -> tuple[str, str | None] | None:
    policy, _, count = word.partition(":")
    if policy in _RESTART and (not count or (policy == "on-failure" and count.isdecimal())):
        return None
    return f"unknown restart policy {word}", _near(
        policy, _RESTART
    ) or f"one of {', '.join(_RESTART)} or on-failure:N"


def _is_simple(word: str) -> bool:
    """Whether a reference is plainly good (lower-case pieces, perhaps a tag), without the large pattern."""
    name, colon, tag = word.partition(":")
    if not word.isascii() or name != name.lower() or len(tag) > 128:
        return False
    if colon and not tag.replace(".", "a").replace("-", "a").isalnum():
        return False
    pieces = name.replace("/", "-").replace(".", "-").split("-")
    return all(piece.isalnum() for piece in pieces) and not (tag and tag[0] in ".-")


def _image(word: str) -> tuple[str, str | None] | None:
    if _is_simple(word) or re.fullmatch(_IMAGE, word):
        return None
    hint = "names are lower case" if re.fullmatch(_IMAGE, word.lower()) else None
    return f"{word!r} is no valid image reference", hint


def _hostname(word: str) -> tuple[str, str | None] | None:
    return None if re.fullmatch(_HOST, word) else (f"{word!r} is no valid host name", None)


def _mac(word: str) -> tuple[str, str | None] | None:
    return None if re.fullmatch(_MAC, word) else (f"{word!r} is no MAC address like 02:42:ac:11:00:02", None)


def _network_mode(word: str) -> tuple[str, str | None] | None:
    if word in ("none", "host", "bridge", "default") or word.startswith(("service:", "container:")):
        return None
    return f"unknown network_mode {word}", "one of none, host, bridge, service:NAME or container:NAME"


_LOOKS = {
    "image": _image,
    "restart": _restart,
    "stop_signal": _signal,
    "hostname": _hostname,
    "domainname": _hostname,
    "mac_address": _mac,
    "network_mode": _network_mode,
}


def _ports(name: str, node: Node | None, problems: Problems) -> None:
    for index, port in enumerate(node.items if isinstance(node, Sequence) else ()):
        if not isinstance(port, Mapping):
            continue
        protocol, target = port.items.get("protocol"), port.items.get("target")
        if isinstance(protocol, Scalar) and scalar_text(protocol.value).lower() not in (
            "tcp",
            "udp",
            "sctp",
            "",
        ):
            problems.warn(
                f"unknown protocol {protocol.value}", protocol.location, ("services", name, "ports", index)
            )
        number = scalar_text(target.value) if isinstance(target, Scalar) else ""
        if number.isdecimal() and not 0 < int(number) < 65536:
            problems.warn(f"port {number} does not exist", port.location, ("services", name, "ports", index))


def _labels(name: str, service: Mapping, problems: Problems) -> None:
    labels = service.items.get("labels")
    keys = (
        list(labels.items)
        if isinstance(labels, Mapping)
        else [scalar_text(item.value).partition("=")[0] for item in labels.items if isinstance(item, Scalar)]
        if isinstance(labels, Sequence)
        else []
    )
    for key in keys:
        if key.startswith("com.docker.compose."):
            place = (
                labels.key_location(key) if isinstance(labels, Mapping) else service.key_location("labels")
            )
            problems.warn(
                f"the label {key} has a reserved prefix and is overwritten",
                place,
                ("services", name, "labels", key),
            )
