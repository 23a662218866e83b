"""Host ports of running containers: chosen, held, given back.

A fixed port is checked against the ports of other containers and against the host's sockets before
anything is started; a free one comes from the host's ephemeral range, upwards, so that it is seldom
one that was just given back.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable

from orchestra.compose.model import Port
from orchestra.errors import ConflictError, OrchestraError
from orchestra.network.model import PortSpec
from orchestra.store.records import PortRecord
from orchestra.store.store import Store

FreeOnHost = Callable[[str, int, str], bool]
_ANY = ("", "0.0.0.0", "::")
PROTOCOLS = ("tcp", "udp", "sctp")


def check(ports: Iterable[Port]) -> None:
    """Raises for a port that no machine could publish."""
    for port in ports:
        if port.protocol not in PROTOCOLS:
            raise OrchestraError(f'invalid protocol "{port.protocol}" of port {port.target}')
        span(port)
        if port.host_ip:
            try:
                ipaddress.ip_address(port.host_ip.strip("[]"))
            except ValueError:
                raise OrchestraError(f'invalid host ip "{port.host_ip}" of port {port.target}') from None


def span(port: Port) -> range | None:
    """The host ports that may be used; None for any free one."""
    if port.published in ("", "0"):
        return None
    first, _, last = port.published.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise OrchestraError(f'invalid published port "{port.published}"')
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] < 1 or found[-1] > 65535:
        raise OrchestraError(f'invalid published port "{port.published}": must be in 1-65535')
    return found


class PortBook:
    """Thread-safe. ``name_of`` gives a container's name for messages."""

    def __init__(self, store: Store, free_on_host: FreeOnHost, name_of: Callable[[str], str]) -> None:
        self._store = store
        self._free = free_on_host
        self._name_of = name_of
        self._lock = threading.Lock()
        self._held: dict[str, tuple[PortSpec, ...]] = {}
        self._next = 0
        for record in store.ports():
            spec = PortSpec(record.host_ip, record.published, record.target, record.protocol)
            self._held[record.container] = (*self._held.get(record.container, ()), spec)

    def held(self, container_id: str) -> tuple[PortSpec, ...]:
        with self._lock:
            return self._held.get(container_id, ())

    def claim(self, container_id: str, ports: Iterable[Port]) -> tuple[PortSpec, ...]:
        """All of the container's ports, or ConflictError and none."""
        wanted = list(ports)
        if not wanted and container_id not in self._held:
            return ()
        with self._lock:
            found: list[PortSpec] = []
            others = [(key, one) for key, held in self._held.items() if key != container_id for one in held]
            for port in wanted:
                found.append(self._choose(port, others, found))
            self._held[container_id] = tuple(found)
            self._save(container_id)
            return tuple(found)

    def release(self, container_id: str) -> bool:
        """Whether there were any."""
        with self._lock:
            if not self._held.pop(container_id, ()):
                return False
            self._save(container_id)
            return True

    def _save(self, container_id: str) -> None:
        self._store.set_ports(
            container_id,
            [
                PortRecord(one.protocol, one.host_ip, one.published, one.target, container_id)
                for one in self._held.get(container_id, ())
            ],
        )

    def _choose(self, port: Port, others: list[tuple[str, PortSpec]], own: list[PortSpec]) -> PortSpec:
        host_ip = port.host_ip.strip("[]")
        choices = span(port)
        if choices is None:
            choices = self._ephemeral()
        single = len(choices) == 1
        for number in choices:
            spec = PortSpec(host_ip, number, port.target, port.protocol)
            holder = next((key for key, one in others if overlaps(one, spec)), None)
            if holder is None and any(overlaps(one, spec) for one in own):
                holder = ""
            if holder is not None:
                if single:
                    raise _conflict(
                        spec, f"container {self._name_of(holder)}" if holder else "the same container"
                    )
                continue
            if self._free(host_ip, number, port.protocol):
                return spec
            if single:
                raise _conflict(spec, _holder(spec))
        raise ConflictError(f"no free host port for {port.published or 'any'}:{port.target}/{port.protocol}")

    def _ephemeral(self) -> range:
        low, high = _local_range()
        start = low + self._next % max(1, high - low)
        self._next += 1
        return range(start, high + 1)


def overlaps(left: PortSpec, right: PortSpec) -> bool:
    if (left.published, left.protocol) != (right.published, right.protocol):
        return False
    if left.host_ip == right.host_ip or "" in (left.host_ip, right.host_ip):
        return True
    same_version = (":" in left.host_ip) == (":" in right.host_ip)
    return same_version and (left.host_ip in _ANY or right.host_ip in _ANY)


def _conflict(spec: PortSpec, holder: str) -> ConflictError:
    host = spec.host_ip or "0.0.0.0"
    error = ConflictError(
        f"host port {host}:{spec.published}/{spec.protocol} is already in use by {holder}",
        hint="stop what uses it, or publish another port",
    )
    error.attribute = "ports"  # type: ignore[attr-defined]  # where the compose file says it
    return error


def _holder(spec: PortSpec) -> str:
    """Which program of the host has the port, if that can be told."""
    from orchestra.network.ports import holder

    return holder(spec.protocol, spec.published) or "another program on this machine"


def _local_range() -> tuple[int, int]:
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = (int(word) for word in file.read().split())
    except (OSError, ValueError):
        return 32768, 60999
    return low, high
