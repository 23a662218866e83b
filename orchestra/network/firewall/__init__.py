"""What the firewall is told, and the protocol of its drivers: ``nft`` (real) and ``none`` (says so)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestra.network.model import Forward


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge as the firewall sees it. ``masquerade``: traffic to the outside gets the host's address;
    ``icc``: containers on it may speak to one another."""

    network: str
    link: str
    internal: bool = False
    masquerade: bool = True
    icc: bool = True
    gateways: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()


class Firewall(Protocol):
    """One engine's rules. Both calls are idempotent."""

    name: str

    def sync(self, bridges: Sequence[Bridge], forwards: Sequence[Forward], guarded: Sequence[str]) -> None:
        """Makes the rules exactly those for these bridges and published ports. ``guarded`` are links of the
        host between which nothing new is forwarded (see ``forwarding``)."""
        ...

    def remove(self) -> None: ...


def find_nft() -> str | None:
    """Where the program is; also looked for outside a user's PATH."""
    for folder in (*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin", "/usr/local/sbin"):
        path = os.path.join(folder, "nft")
        if folder and os.access(path, os.X_OK):
            return path
    return None
