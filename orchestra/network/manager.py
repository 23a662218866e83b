"""``Networks``: what the engine asks of the host's network. All calls are synchronous and safe from any
thread.

Made on the host: one bridge a network (``oc…``), one veth an endpoint (``ov…``), one nftables table (``inet
<scope>``), and while networks lead out, IP forwarding (see ``forwarding``). Records nothing itself: specs
are the caller's to keep.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from orchestra.compose.model import IpamPool
from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.network import bridge, conntrack, endpoint, ipam, netlink, ports
from orchestra.network.firewall import Bridge, Firewall, find_nft
from orchestra.network.firewall.nft import NftFirewall
from orchestra.network.firewall.none import WARNING, NoFirewall
from orchestra.network.forwarding import Forwarding, host_lock, write_sysctl
from orchestra.network.model import (
    OPTION_BRIDGE_NAME,
    OPTION_HOST_BINDING,
    OPTION_ICC,
    OPTION_MASQUERADE,
    OPTION_MTU,
    OPTION_PREFIX,
    EndpointSpec,
    Forward,
    NetworkSpec,
    PortSpec,
)
from orchestra.paths import Paths

_IDLE_LINKS = 4
DRIVERS = ("bridge", "macvlan", "ipvlan", "host", "none")
KNOWN_OPTIONS = {
    "bridge": {
        OPTION_BRIDGE_NAME,
        OPTION_MTU,
        OPTION_ICC,
        OPTION_MASQUERADE,
        OPTION_HOST_BINDING,
        OPTION_PREFIX,
    },
    "macvlan": {"parent", "macvlan_mode", OPTION_MTU, OPTION_PREFIX},
    "ipvlan": {"parent", "ipvlan_mode", OPTION_MTU, OPTION_PREFIX},
}


class Networks:
    """One engine's networks. ``pools`` tells, for each new network, where subnets come from."""

    def __init__(
        self, paths: Paths, *, pools: Callable[[], Sequence[ipam.Pool]] = lambda: ipam.DEFAULT_POOLS
    ) -> None:
        self._paths = paths
        self._pools = pools
        program = find_nft()
        self.firewall: Firewall = NftFirewall(paths.scope, program) if program else NoFirewall()
        self._forwarding = Forwarding()
        self._lock = threading.Lock()
        # the kernel changes links one at a time: threads that wait for it there take processor time from each other
        self._attaching = threading.Lock()
        self._held: dict[str, list[socket.socket]] = {}
        self._udp: frozenset[Forward] = frozenset()
        self._links: list[netlink.Netlink] = []  # sockets of our own namespace that nobody uses at the moment

    # ---- networks ----------------------------------------------------------------------------------------

    def warnings(self, spec: NetworkSpec) -> list[str]:
        """What of the spec is not honoured, one line each."""
        lines = [] if self.firewall.name != "none" else [WARNING]
        known = KNOWN_OPTIONS.get(spec.driver, set())
        for option in sorted(spec.options):
            if option not in known:
                lines.append(f"network {spec.name}: driver option {option} is not supported and ignored")
        return lines

    def create(
        self,
        spec: NetworkSpec,
        *,
        pools: Sequence[IpamPool] = (),
        ipv4: bool = True,
        ipv6: bool = False,
        busy: Collection[str] = (),
    ) -> NetworkSpec:
        """Makes the network and returns its spec with the subnets chosen (if it had none). ``pools`` are the
        user's ipam settings, ``busy`` the subnets of this engine's other networks. A network that is there
        already (after a restart of the daemon) is completed: safe to repeat."""
        if spec.driver not in DRIVERS:
            raise UnsupportedError(
                f"network {spec.name}: unknown driver {spec.driver!r}", hint=f"one of {', '.join(DRIVERS)}"
            )
        if spec.driver in ("host", "none"):
            return spec
        bridge.mtu_of(spec)
        with host_lock():
            if not spec.subnets:
                # macvlan and ipvlan live in the subnet of their parent, which the host has a route to
                lan = spec.driver in ("macvlan", "ipvlan") and any(pool.subnet for pool in pools)
                taken = set(busy) if lan else {*busy, *self.busy_subnets()}
                chosen = ipam.choose_subnets(
                    spec.name, pools, taken, ipv4=ipv4, ipv6=ipv6, pools=self._pools()
                )
                spec = replace(spec, subnets=chosen)
            if spec.driver == "bridge":
                bridge.create_bridge(self._paths, spec)
                if not spec.internal:
                    self._forwarding.enable(self._foreign_links(), ipv6=spec.ipv6)
            else:
                bridge.create_parent(self._paths, spec)
        return spec

    def remove(self, spec: NetworkSpec) -> None:
        """Deletes the network's links; idempotent. The firewall follows with the next ``sync_firewall``."""
        if spec.driver in ("host", "none"):
            return
        with host_lock():
            bridge.remove_links(self._paths, spec)
            if not any(link.group >= bridge.OWN_GROUPS and link.kind == "bridge" for link in _links()):
                self._forwarding.restore()

    def exists(self, spec: NetworkSpec) -> bool:
        """Whether the network's link is on the host (it is not after a reboot)."""
        if spec.driver in ("host", "none"):
            return True
        vlan = spec.driver in ("macvlan", "ipvlan")
        name = bridge.parent_name(self._paths, spec) if vlan else bridge.link_name(self._paths, spec)
        try:
            socket.if_nametoindex(name)
        except OSError:
            return False
        return True

    def link_name(self, spec: NetworkSpec) -> str:
        """The bridge's name on the host."""
        return bridge.link_name(self._paths, spec)

    def busy_subnets(self) -> list[str]:
        """Subnets the host has routes or addresses in."""
        with netlink.Netlink() as link:
            routes = [route.destination for route in link.routes() if route.destination]
            return sorted({*routes, *(address for _, address in link.addresses())})

    def _foreign_links(self) -> list[str]:
        return sorted(link.name for link in _links() if link.group < bridge.OWN_GROUPS and link.name != "lo")

    # ---- endpoints ---------------------------------------------------------------------------------------

    def attach(
        self,
        pid: int,
        endpoints: Sequence[EndpointSpec],
        *,
        present: Sequence[EndpointSpec] = (),
        also: Callable[[], object] | None = None,
    ) -> tuple[EndpointSpec, ...]:
        """Plugs the process's network namespace into the networks and brings its loopback up. ``present``
        are the endpoints it has already (for ``network connect``). Returns the endpoints with their
        interface names and MACs; keep them for ``detach``. Endpoints of the drivers host and none are left
        out. ``also`` is called in the namespace when all is up (if any endpoint is left); what it raises undoes
        the endpoints."""
        wanted = [e for e in endpoints if e.network.driver not in ("host", "none")]
        fd = endpoint.open_netns(pid)
        try:
            if not wanted:
                endpoint.loopback_up(fd)
                return ()
            with self._attaching, self._link() as host:
                return endpoint.attach(self._paths, host, fd, wanted, present=present, also=also)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _link(self) -> Iterator[netlink.Netlink]:
        """A netlink socket of our own namespace; one that saw an error is not used again."""
        try:
            link = self._links.pop()
        except IndexError:
            link = netlink.Netlink()
        try:
            yield link
        except BaseException:
            link.close()
            raise
        if len(self._links) < _IDLE_LINKS:
            self._links.append(link)
        else:
            link.close()

    def detach(self, pid: int, leaving: EndpointSpec, remaining: Sequence[EndpointSpec] = ()) -> None:
        """Unplugs one endpoint of a running container. Not for containers that end: theirs go by
        themselves."""
        fd = endpoint.open_netns(pid)
        try:
            endpoint.detach(fd, leaving, remaining)
        finally:
            os.close(fd)

    # ---- firewall and ports ------------------------------------------------------------------------------

    def sync_firewall(self, networks: Iterable[NetworkSpec], published: Iterable[Forward]) -> None:
        """Makes the engine's table exactly that of these networks and published ports
        (``model.forwards``)."""
        bridges = [self._as_bridge(spec) for spec in networks if spec.driver == "bridge"]
        with self._lock:
            forwards = [self._bound(forward, bridges) for forward in published]
            self.firewall.sync([entry for entry, _ in bridges], forwards, self._forwarding.guarded())
            self._open_loopback(bridges, forwards)
            udp = frozenset(forward for forward in forwards if forward.port.protocol == "udp")
            conntrack.forget({forward.port for forward in udp ^ self._udp})
            self._udp = udp

    def _as_bridge(self, spec: NetworkSpec) -> tuple[Bridge, str]:
        entry = Bridge(
            spec.id,
            bridge.link_name(self._paths, spec),
            spec.internal,
            spec.flag(OPTION_MASQUERADE, default=True),
            spec.flag(OPTION_ICC, default=True),
            spec.gateways,
            spec.cidrs,
        )
        return entry, spec.options.get(OPTION_HOST_BINDING, "")

    def _bound(self, forward: Forward, bridges: Sequence[tuple[Bridge, str]]) -> Forward:
        """With the network's own default for the host address."""
        default = next((host for entry, host in bridges if entry.network == forward.network), "")
        if forward.port.host_ip or not default:
            return forward
        return replace(forward, port=replace(forward.port, host_ip=default))

    def _open_loopback(self, bridges: Sequence[tuple[Bridge, str]], forwards: Sequence[Forward]) -> None:
        """127.0.0.1 as a source may leave through bridges with published ports (the table guards the
        rest)."""
        publishing = {forward.network for forward in forwards}
        for entry, _ in bridges:
            if entry.network in publishing and not entry.internal:
                try:
                    write_sysctl(f"net/ipv4/conf/{entry.link}/route_localnet", "1")
                except OSError as error:
                    raise OrchestraError(
                        f"cannot open 127.0.0.1 for {entry.link}: {error.strerror}"
                    ) from None

    def remove_firewall(self) -> None:
        """Deletes the engine's table."""
        self.firewall.remove()

    def hold_ports(self, container_id: str, specs: Iterable[PortSpec]) -> None:
        """Takes the host ports, so that nobody else gets them. ConflictError names who has one; then none
        of the container's is taken."""
        held: list[socket.socket] = []
        try:
            for spec in specs:
                held += ports.reserve(spec)
        except BaseException:
            for bound in held:
                bound.close()
            raise
        self.release_ports(container_id)
        with self._lock:
            self._held[container_id] = held

    def release_ports(self, container_id: str) -> None:
        with self._lock:
            held = self._held.pop(container_id, [])
        for bound in held:
            bound.close()

    def port_is_free(self, spec: PortSpec) -> bool:
        return ports.port_is_free(spec)

    # ---- the host ----------------------------------------------------------------------------------------

    def host_addresses(self) -> list[str]:
        """The host's addresses that others may know (no loopback, link-local, or of our bridges)."""
        with netlink.Netlink() as link:
            ours = {other.index for other in link.links() if other.group >= bridge.OWN_GROUPS}
            found = [address.partition("/")[0] for index, address in link.addresses() if index not in ours]
        return [
            text for text in found if not text.startswith(("127.", "169.254.", "fe80:")) and text != "::1"
        ]

    def host_gateway(self, endpoints: Sequence[EndpointSpec]) -> list[str]:
        """What ``host-gateway`` means to a container with these endpoints: the host's address on its first
        bridge."""
        for entry in endpoints:
            if entry.network.driver == "bridge" and entry.network.gateways:
                return list(entry.network.gateways)
        return []

    def close(self) -> None:
        """Lets go of the held ports."""
        for container_id in list(self._held):
            self.release_ports(container_id)
        while self._links:
            self._links.pop().close()


def _links() -> list[netlink.Link]:
    with netlink.Netlink() as link:
        return link.links()
