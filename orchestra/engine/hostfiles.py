"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container, as text.

They live in the container's own directory and are bind mounted; a rewrite keeps the inode, so a
running container sees it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
EMBEDDED = "127.0.0.11"


def hosts(names: Sequence[str], addresses: Iterable[str], extra: Sequence[str], *, gateway: str) -> str:
    """``extra`` are ``host=address`` lines; ``host-gateway`` stands for ``gateway``."""
    lines = [_LOCAL]
    for entry in extra:
        name, address = split_extra_host(entry)
        if address == "host-gateway":
            if not gateway:
                continue
            address = gateway
        lines.append(f"{address}\t{name}\n")
    words = " ".join(dict.fromkeys(name for name in names if name))
    lines += [f"{address}\t{words}\n" for address in addresses if words]
    return "".join(lines)


def split_extra_host(entry: str) -> tuple[str, str]:
    """``name=address`` or ``name:address`` (an IPv6 address may stand in brackets)."""
    separator = "=" if "=" in entry else ":"
    name, _, address = entry.partition(separator)
    return name.strip(), address.strip().removeprefix("[").removesuffix("]")


def resolv_conf(servers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    lines = [f"nameserver {server}" for server in servers]
    words = [one for one in search if one and one != "."]
    if words:
        lines.append(f"search {' '.join(words)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def parse_resolv_conf(text: str) -> dict[str, list[str]]:
    """Keys nameserver, search and options."""
    found: dict[str, list[str]] = {"nameserver": [], "search": [], "options": []}
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if not words:
            continue
        if words[0] == "nameserver" and len(words) > 1:
            found["nameserver"].append(words[1])
        elif words[0] in ("search", "domain"):
            found["search"] = words[1:]
        elif words[0] == "options":
            found["options"] += words[1:]
    return found


def host_resolv_conf() -> dict[str, list[str]]:
    """What the host uses; systemd-resolved's stub is looked through."""
    for place in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            found = parse_resolv_conf(Path(place).read_text("utf-8", "replace"))
        except OSError:
            continue
        if found["nameserver"] and found["nameserver"] != ["127.0.0.53"]:
            return found
    return {"nameserver": [], "search": [], "options": []}


def write_all(folder: Path, contents: Mapping[str, str]) -> None:
    """Writes each file in place (0644), keeping its inode."""
    for name, text in contents.items():
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            data = text.encode()
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, data, 0)
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)
