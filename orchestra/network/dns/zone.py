"""Who is called what on which network: the names all containers of the engine answer to.

``Directory`` is shared by the engine (which puts containers in and takes them out) and the DNS server
(which asks), in different threads. A ``View`` is what one container may see of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A container on one network. ``names``: its name first, then service name, aliases, short id. Without
    addresses (a container that does not run) its names are known but have no answer."""

    network: str
    network_name: str
    names: tuple[str, ...]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What a container sees: ``networks`` (ids) in the order they are searched, ``links`` (alias → name), the
    ``servers`` unknown names go to (none: the host's), and whether they go anywhere at all (``forward``;
    a container on internal networks alone asks nobody)."""

    networks: tuple[str, ...]
    links: Mapping[str, str] = field(default_factory=dict)
    servers: tuple[str, ...] = ()
    forward: bool = True


class Directory:
    """All names, by network. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, tuple[NameRecord, ...]] = {}
        self._names: dict[
            str, dict[str, dict[str, tuple[str, ...]]]
        ] = {}  # network → name → container → addresses
        self._reverse: dict[str, dict[str, tuple[str, str]]] = {}  # network → address → (container, name)
        self._turn = 0

    def put(self, container_id: str, records: Iterable[NameRecord]) -> None:
        """Replaces what is known of the container."""
        records = tuple(records)
        with self._lock:
            self._drop(container_id)
            self._records[container_id] = records
            for record in records:
                self._add(container_id, record)

    def remove(self, container_id: str) -> None:
        with self._lock:
            self._drop(container_id)

    def lookup(self, view: View, name: str) -> list[str] | None:
        """The addresses of a name, another one first each time; None if nobody is called that. The first
        network of the view that knows the name decides."""
        name = name.rstrip(".").lower()
        target = view.links.get(name)
        with self._lock:
            for wanted in (target, name) if target else (name,):
                found = self._find(view.networks, wanted.lower())
                if found is not None:
                    return found
        return None

    def reverse(self, view: View, address: str) -> str | None:
        """The name of the container with that address."""
        with self._lock:
            for network in view.networks:
                found = self._reverse.get(network, {}).get(address)
                if found:
                    return found[1]
        return None

    def _find(self, networks: Sequence[str], name: str) -> list[str] | None:
        known = False
        for network in networks:
            holders = self._names.get(network, {}).get(name)
            if holders is None:
                continue
            known = True
            groups = [addresses for addresses in holders.values() if addresses]
            if groups:
                self._turn += 1
                start = self._turn % len(groups)
                return [address for group in groups[start:] + groups[:start] for address in group]
        return [] if known else None

    def _add(self, container_id: str, record: NameRecord) -> None:
        names = self._names.setdefault(record.network, {})
        for name in record.names:
            for full in (name.lower(), f"{name}.{record.network_name}".lower()):
                names.setdefault(full, {})[container_id] = record.addresses
        reverse = self._reverse.setdefault(record.network, {})
        for address in record.addresses:
            reverse[address] = (
                container_id,
                f"{record.names[0]}.{record.network_name}" if record.names else "",
            )

    def _drop(self, container_id: str) -> None:
        for record in self._records.pop(container_id, ()):
            names = self._names.get(record.network, {})
            for name in record.names:
                for full in (name.lower(), f"{name}.{record.network_name}".lower()):
                    holders = names.get(full, {})
                    holders.pop(container_id, None)
                    if not holders:
                        names.pop(full, None)
            reverse = self._reverse.get(record.network, {})
            for address in record.addresses:
                if reverse.get(address, ("",))[0] == container_id:
                    del reverse[address]
            if not names:
                self._names.pop(record.network, None)
                self._reverse.pop(record.network, None)
