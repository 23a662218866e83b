"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container on disk, and the host's resolver
(their contents: network/hosts.py).

They live beside the container's bundle and are bind mounted; a rewrite keeps the inode, so a running
container sees it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from orchestra.network.hosts import ResolverSettings, parse_resolv_conf


@functools.lru_cache(maxsize=8)
def _parsed(place: str, *_look: int) -> ResolverSettings:
    """Read once for each look (inode, time, size) of the file."""
    return parse_resolv_conf(Path(place).read_text("utf-8", "replace"))


def host_resolver() -> ResolverSettings:
    """What the host uses; systemd-resolved's stub is looked through."""
    for place in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            info = os.stat(place)
            found = _parsed(place, info.st_ino, info.st_mtime_ns, info.st_size)
        except OSError:
            continue
        if found.nameservers and found.nameservers != ("127.0.0.53",):
            return found
    return ResolverSettings()


def write_all(folder: str, contents: Mapping[str, str], *, owner: tuple[int, int] | None = None) -> None:
    """Writes each file in place (0644, of ``owner``: uid and gid, else root), keeping its inode."""
    for name, text in contents.items():
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(f"{folder}/{name}", flags, 0o644)
        try:
            os.write(descriptor, text.encode())
            os.fchmod(descriptor, 0o644)
            if owner:
                os.fchown(descriptor, *owner)
        finally:
            os.close(descriptor)
