"""Whose user namespace a container gets that shares namespaces of others. Pure.

A namespace belongs to the user namespace that it was made in, and only there has root rights over it. The
container joins the user namespace of whom it shares processes with, else network, else ipc and so on. What
then belongs to another one still works for a network (without the rights of CAP_NET_*; sysfs is the other
container's) and for a host name, for ipc where both have the same ids; the rest is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestra.engine.userns import Range
from orchestra.errors import ConflictError

_ORDER = ("pid", "network", "ipc", "cgroup", "uts")
_WORDS = {
    "pid": "processes",
    "network": "network",
    "ipc": "ipc namespace",
    "cgroup": "cgroup namespace",
    "uts": "host name",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """A container whose namespace of ``kind`` is shared. ``space`` names its user namespace ('' the host's),
    ``ids`` are (uid, gid, size) of that."""

    ref: str
    name: str
    kind: str
    space: str = ""
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """``user_of``: whose user namespace is joined ('' for a new one). ``foreign``: kinds of namespaces that
    belong to another user namespace."""

    user_of: str = ""
    foreign: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


ALONE = Placement()


def place(name: str, found: Range, peers: Iterable[Peer], *, sized: bool = False) -> Placement:
    """For a container that gets a user namespace (``sized``: with at least ``found.size`` ids). Raises
    ConflictError for what the kernel would refuse."""
    ordered = sorted(peers, key=lambda peer: _ORDER.index(peer.kind))
    chosen = next((peer for peer in ordered if peer.space), None)
    if chosen and sized and found.size > chosen.ids[2]:
        raise ConflictError(
            f"{name} wants {found.size} ids, and the user namespace of {chosen.name}, whose {_WORDS[chosen.kind]} "
            f"it shares, has {chosen.ids[2]}",
            hint=f"give {chosen.name} as many with userns_mode auto:size={found.size}",
        )
    foreign, warnings = set(), []
    for peer in ordered:
        if chosen and peer.space == chosen.space:
            continue
        _check(name, peer, chosen)
        foreign.add(peer.kind)
        if peer.kind == "network":
            warnings.append(
                f"the network of {peer.name} belongs to another user namespace: "
                "capabilities have no effect on it (no raw sockets, no changes)"
            )
    return Placement(chosen.ref if chosen else "", frozenset(foreign), tuple(warnings))


def _check(name: str, peer: Peer, chosen: Peer | None) -> None:
    same_ids = bool(chosen and peer.ids and chosen.ids == peer.ids)
    if peer.kind in ("network", "uts") or (peer.kind == "ipc" and same_ids):
        return
    if not peer.space:
        raise ConflictError(
            f"{name} wants a user namespace, and {peer.name}, whose {_WORDS[peer.kind]} it shares, has none",
            hint=f'set userns_mode of {peer.name} to the same, or this one\'s to "host"',
        )
    owner = f"that of {chosen.name}, whose {_WORDS[chosen.kind]} it shares too" if chosen else "its own"
    raise ConflictError(
        f"{name} cannot share the {_WORDS[peer.kind]} of {peer.name}: it belongs to another user namespace than {owner}",
        hint='share all with one container, or set userns_mode to "host"',
    )


__all__ = ["ALONE", "Peer", "Placement", "place"]
