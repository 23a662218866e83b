"""The engine's networks: records, addresses, endpoints, names, published ports.

The firewall and the names are always derived whole from the containers that run (``sync``), so that a
missed step mends itself with the next one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestra.backend import NetworkInfo, NetworkUse
from orchestra.compose.model import Network
from orchestra.engine import settings
from orchestra.engine.batch import Batch
from orchestra.engine.container import Container, Joined
from orchestra.engine.namespaces import mode_of, shared_with
from orchestra.engine.parts import Parts
from orchestra.errors import ConflictError, NotFoundError
from orchestra.labels import PROJECT
from orchestra.network import ipam
from orchestra.network.dns.server import DnsServer, Sockets, listen
from orchestra.network.dns.zone import NameRecord, View
from orchestra.network.manager import Networks
from orchestra.network.model import EndpointSpec, Forward, NetworkSpec, forwards, packed
from orchestra.store.records import LeaseRecord, NetworkRecord

BUILTIN = ("host", "none")
DEFAULT = "bridge"
CREATING = "creating"  # in the record of a network whose links are being made


class Nets:
    """See the module's docstring. Thread-safe."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = Networks(parts.paths, pools=settings.pools)
        self.dns = DnsServer()
        self._lock = threading.RLock()
        self._dns_lock = threading.Lock()
        self._specs: dict[str, NetworkSpec] = {}  # by name
        self._created: dict[str, float] = {}
        self._taken: dict[str, dict[str, str]] = {}  # network id → address → container
        self._last: dict[str, str] = {}
        self._highest: dict[
            str, int
        ] = {}  # of addresses ever given, in networks that we have made; see _known
        self._firewall = Batch(self._sync_firewall)
        self._ready: set[str] = set()
        self._unfinished: list[NetworkSpec] = []
        for record in parts.store.networks():
            if record.data.get(CREATING):
                spec = {key: value for key, value in record.data.items() if key != CREATING}
                self._unfinished.append(NetworkSpec.from_dict(spec))
                continue
            self._specs[record.name] = NetworkSpec.from_dict(record.data)
            self._created[record.name] = record.created
        self._recorded: set[str] = set()  # containers with leases in the store
        for lease in parts.store.leases():
            self._recorded.add(lease.container)
            self._taken.setdefault(lease.network, {})[lease.address] = lease.container

    # networks

    def create(self, network: Network, labels: Mapping[str, str]) -> NetworkInfo:
        driver = network.driver or "bridge"
        with self._lock:
            if network.name in self._specs or network.name in BUILTIN:
                raise ConflictError(f"network with name {network.name} already exists")
            spec = NetworkSpec(
                secrets.token_hex(32),
                network.name,
                driver,
                network.internal,
                (),
                dict(network.driver_opts),
                dict(labels),
                network.attachable,
            )
            busy = [cidr for other in self._specs.values() for cidr in other.cidrs]
            created = self.parts.clock.now()
            store = self.parts.store
            # the intent first: a daemon that is killed now leaves no link that nobody knows
            store.add_network(NetworkRecord(spec.id, spec.name, created, {**spec.to_dict(), CREATING: True}))
            try:
                spec = self.host.create(
                    spec,
                    pools=network.ipam,
                    ipv4=network.enable_ipv4 is not False,
                    ipv6=bool(network.enable_ipv6),
                    busy=busy,
                )
                store.set_network_data(spec.id, spec.to_dict())
            except BaseException:
                self.host.remove(spec)
                store.remove_network(spec.id)
                raise
            self._specs[spec.name], self._created[spec.name] = spec, created
            self._highest |= {f"{spec.id}/{version}": 0 for version in (4, 6)}
            self._ready.add(spec.id)
        self._firewall.run()
        self.parts.hub.publish("network", "create", spec.id, {"name": spec.name, "type": driver, **labels})
        return self.info(spec)

    def warnings(self, network: Network) -> list[str]:
        spec = self._specs.get(network.name)
        return self.host.warnings(spec) if spec else []

    def remove(self, ref: str) -> None:
        with self._lock:
            spec = self.find(ref)
            users = [c.name for c in self.parts.registry.all() if c.running and spec.name in c.state.networks]
            if users:
                raise ConflictError(
                    f"network {spec.name} is in use by {', '.join(sorted(users))}",
                    hint="stop or disconnect these containers first",
                )
            self._ready.discard(spec.id)
            self.host.remove(spec)  # before its record: killed in between, it can be removed again
            self.parts.store.remove_network(spec.id)
            del self._specs[spec.name]
            self._taken.pop(spec.id, None)
            for version in (4, 6):
                self._highest.pop(f"{spec.id}/{version}", None)
        self._firewall.run()
        self.parts.hub.publish("network", "destroy", spec.id, {"name": spec.name, **spec.labels})

    def find(self, ref: str) -> NetworkSpec:
        """By name, id or unique prefix of an id."""
        with self._lock:
            found = self._specs.get(ref)
            if found is not None:
                return found
            near = [spec for spec in self._specs.values() if ref and spec.id.startswith(ref)]
        if len(near) != 1:
            raise (
                NotFoundError(f"no such network: {ref}")
                if not near
                else ConflictError(f"network id {ref} is ambiguous")
            )
        return near[0]

    def listed(self, project: str | None = None) -> list[NetworkInfo]:
        with self._lock:
            specs = list(self._specs.values())
        return [self.info(spec) for spec in specs if project is None or spec.labels.get(PROJECT) == project]

    def info(self, spec: NetworkSpec) -> NetworkInfo:
        inside = {
            c.id: (place.ipv4 or place.ipv6)
            for c in self.parts.registry.all()
            if c.running and (place := c.state.networks.get(spec.name))
        }
        return NetworkInfo(
            spec.id,
            spec.name,
            spec.driver,
            spec.internal,
            spec.cidrs,
            spec.gateways,
            dict(spec.labels),
            dict(spec.options),
            self._created.get(spec.name, 0.0),
            inside,
        )

    def ensure(self, name: str) -> NetworkSpec:
        """The network, its links there (they are gone after a reboot); ``bridge`` is made when first used."""
        with self._lock:
            if name == DEFAULT and name not in self._specs:
                self.create(Network(DEFAULT, DEFAULT), {})
            spec = self._specs.get(name)
            if spec is None:
                raise NotFoundError(
                    f"network {name} not found", hint=f"create it: orchestra network create {name}"
                )
            if spec.id not in self._ready:
                if not self.host.exists(spec):
                    self.host.create(spec)
                self._ready.add(spec.id)
            return spec

    # a container's places

    def claim(self, container: Container) -> list[EndpointSpec]:
        """Addresses for all the container's networks (kept until :meth:`release`)."""
        spec = container.spec
        if mode_of(spec.namespaces, "network"):
            return []
        found: list[EndpointSpec] = []
        with self._lock:
            try:
                for use in spec.networks:
                    if use.network not in BUILTIN:
                        found.append(self._claim(container, use))
            except BaseException:
                self._forget_leases(container.id)
                raise
            self._save_leases(container.id, found)
        return found

    def _claim(self, container: Container, use: NetworkUse) -> EndpointSpec:
        network = self.ensure(use.network)
        taken = self._taken.setdefault(network.id, {})
        others = _Others(taken, container.id)
        fixed = use.attachment
        before = container.state.networks.get(use.network)
        addresses, known = [], False
        for version, wanted, old in (
            (4, fixed.ipv4_address, before.ipv4 if before else ""),
            (6, fixed.ipv6_address, before.ipv6 if before else ""),
        ):
            if not wanted and old and old not in others and network.subnet_of(old):
                wanted = old
            address = ipam.choose_address(
                network, version, others, wanted=wanted, after=self._last.get(f"{network.id}/{version}", "")
            )
            if address:
                taken[address] = container.id
                known = self._known(f"{network.id}/{version}", address) or known
                if not wanted:
                    self._last[f"{network.id}/{version}"] = address
            addresses.append(address)
        mac = fixed.mac_address or (
            container.spec.service.mac_address if use is container.spec.networks[0] else ""
        )
        return EndpointSpec(
            container.id,
            network,
            addresses[0],
            addresses[1],
            mac,
            fixed.interface_name,
            use.aliases,
            fixed.link_local_ips,
            fixed.gw_priority,
            announce=known or bool(mac or fixed.link_local_ips) or network.driver != "bridge",
        )

    def _known(self, key: str, address: str) -> bool:
        """Whether somebody may have had the address before, so that neighbours or the bridge may look for it where
        it is no more: unless it is above all that were given in a network which is new in this daemon's life."""
        number = int.from_bytes(packed(address), "big")
        highest = self._highest.get(key, number)
        if number <= highest:
            return True
        self._highest[key] = number
        return False

    def _save_leases(self, container_id: str, endpoints: Sequence[EndpointSpec]) -> None:
        leases = [
            LeaseRecord(e.network.id, address, container_id) for e in endpoints for address in e.addresses
        ]
        if not leases and container_id not in self._recorded:
            return
        self.parts.store.set_leases(container_id, leases, none_yet=container_id not in self._recorded)
        self._recorded.add(container_id)

    def _forget_leases(self, container_id: str) -> bool:
        held = False
        for taken in self._taken.values():
            for address in [a for a, holder in taken.items() if holder == container_id]:
                del taken[address]
                held = True
        return held

    def release(self, container: Container) -> None:
        """The container has stopped: its addresses are free, its names have no answer."""
        with self._lock:
            held = self._forget_leases(container.id)
            if held or container.id in self._recorded:
                self.parts.store.set_leases(container.id, ())
                self._recorded.discard(container.id)
        self.dns.forget(container.id)
        self.dns.directory.remove(container.id)

    def attach(self, container: Container, pid: int, endpoints: Sequence[EndpointSpec]) -> dict[str, Joined]:
        """Plug a fresh network namespace in; serves names there."""
        listening: list[Sockets] = []
        made = self.host.attach(pid, endpoints, also=lambda: listening.append(listen()))
        self.name(container, pid, made, listening[0] if listening else None)
        return {e.network.name: Joined(e.network.id, e.ipv4, e.ipv6, e.mac, e.interface_name) for e in made}

    def name(
        self,
        container: Container,
        pid: int,
        endpoints: Sequence[EndpointSpec],
        sockets: Sockets | None = None,
    ) -> None:
        """Make the container's names known and answer its questions (on ``sockets``, if they are there already)."""
        if not endpoints:
            return
        spec = container.spec
        records = [
            NameRecord(
                e.network.id,
                e.network.name,
                tuple(dict.fromkeys((spec.name, *e.aliases, container.id[:12]))),
                e.addresses,
            )
            for e in endpoints
        ]
        with self._dns_lock:
            self.dns.start()
        self.dns.directory.put(container.id, records)
        links = {alias: target for use in spec.networks for alias, target in use.links.items()}
        forward = any(not e.network.internal for e in endpoints)
        view = View(tuple(e.network.id for e in endpoints), links, tuple(spec.service.dns), forward)
        self.dns.serve(container.id, pid, view, sockets)

    def endpoints(self, container: Container) -> list[EndpointSpec]:
        """Those of a running container, from its state."""
        found = []
        for use in container.spec.networks:
            place, network = container.state.networks.get(use.network), self._specs.get(use.network)
            if place is not None and network is not None:
                found.append(
                    EndpointSpec(
                        container.id,
                        network,
                        place.ipv4,
                        place.ipv6,
                        place.mac,
                        place.interface,
                        use.aliases,
                        use.attachment.link_local_ips,
                        use.attachment.gw_priority,
                    )
                )
        return found

    # connecting live

    def connect(self, container: Container, use: NetworkUse) -> None:
        with container.lock:
            if any(other.network == use.network for other in container.spec.networks):
                raise ConflictError(
                    f"container {container.name} is already connected to network {use.network}"
                )
            if mode_of(container.spec.namespaces, "network"):
                raise ConflictError(
                    f"container {container.name} shares another network namespace and cannot be connected"
                )
            present = self.endpoints(container)
            self.parts.registry.change_spec(
                container, replace(container.spec, networks=(*container.spec.networks, use))
            )
            if container.running:
                with self._lock:
                    made = self._claim(container, use)
                    self._save_leases(container.id, [*present, made])
                (made,) = self.host.attach(container.state.pid, [made], present=present)
                container.state.networks[use.network] = Joined(
                    made.network.id, made.ipv4, made.ipv6, made.mac, made.interface_name
                )
                self.name(container, container.state.pid, [*present, made])
                self.parts.registry.save(container)
                self._firewall.run()
        self.parts.hub.publish(
            "network", "connect", self.find(use.network).id, {"name": use.network, "container": container.id}
        )

    def disconnect(self, container: Container, ref: str) -> None:
        spec = self.find(ref)
        with container.lock:
            if not any(use.network == spec.name for use in container.spec.networks):
                raise NotFoundError(f"container {container.name} is not connected to network {spec.name}")
            remaining = [e for e in self.endpoints(container) if e.network.name != spec.name]
            leaving = next((e for e in self.endpoints(container) if e.network.name == spec.name), None)
            uses = tuple(use for use in container.spec.networks if use.network != spec.name)
            self.parts.registry.change_spec(container, replace(container.spec, networks=uses))
            if container.running and leaving is not None:
                self.host.detach(container.state.pid, leaving, remaining)
                with self._lock:
                    for address in leaving.addresses:
                        self._taken.get(spec.id, {}).pop(address, None)
                    self._save_leases(container.id, remaining)
                self.name(container, container.state.pid, remaining)
                if not remaining:
                    self.dns.directory.remove(container.id)
            container.state.networks.pop(spec.name, None)
            self.parts.registry.save(container)
        self._firewall.run()
        self.parts.hub.publish(
            "network", "disconnect", spec.id, {"name": spec.name, "container": container.id}
        )

    # the firewall

    def sync(self) -> None:
        """The packet rules for what runs now (concurrent calls share one run)."""
        self._firewall.run()

    def _sync_firewall(self) -> None:
        with self._lock:
            specs = [spec for spec in self._specs.values() if spec.id in self._ready]
        published: list[Forward] = []
        ports = self.parts.extra["ports"]
        for container in self.parts.registry.all():
            if ports.held(container.id):
                source = container.extra_endpoints or self.endpoints(container)
                published += forwards(source, ports.held(container.id))
        if specs:
            self.host.sync_firewall(specs, published)
        else:
            self.host.remove_firewall()

    def recover(self) -> None:
        """After a daemon's death: networks whose links are there are used on as they are."""
        for spec in self._unfinished:  # a creation that was killed is undone
            self.host.remove(spec)
            self.parts.store.remove_network(spec.id)
        self._unfinished.clear()
        with self._lock:
            for spec in self._specs.values():
                if self.host.exists(spec):
                    self._ready.add(spec.id)

    def quiet(self) -> bool:
        """Whether there is nothing that needs the firewall."""
        with self._lock:
            return not self._specs

    def close(self) -> None:
        self.dns.stop()
        self.host.close()


class _Others:
    """The addresses that others than ``me`` hold."""

    def __init__(self, taken: Mapping[str, str], me: str) -> None:
        self._taken, self._me = taken, me

    def __contains__(self, address: object) -> bool:
        return self._taken.get(str(address), self._me) != self._me


def host_mode(container: Container) -> bool:
    return mode_of(container.spec.namespaces, "network") == "host"


def joined_container(container: Container) -> str:
    return shared_with(container.spec.namespaces, "network")


__all__ = ["Nets", "host_mode", "joined_container"]
