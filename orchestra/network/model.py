"""Networks, endpoints and published ports as frozen values: what the engine hands to ``Networks``.

A network's addresses are chosen once, at its creation (``ipam.choose_subnets``), and recorded with it; an
endpoint's when its container is created or started (``ipam.choose_address``). Nothing here touches the host.
Addresses and subnets are canonical text, as ``ipaddress`` prints them.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

OPTION_BRIDGE_NAME = "com.docker.network.bridge.name"
OPTION_MTU = "com.docker.network.driver.mtu"
OPTION_ICC = "com.docker.network.bridge.enable_icc"
OPTION_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
OPTION_HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
OPTION_PREFIX = "com.docker.network.container_iface_prefix"
OPTION_SYSCTLS = "com.docker.network.endpoint.sysctls"


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address pool of a network. ``gateway`` is '' when the network has none. ``ip_range`` narrows
    where free addresses are taken from; ``aux`` are addresses that are never given out."""

    cidr: str
    gateway: str = ""
    ip_range: str = ""
    aux: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return 6 if ":" in self.cidr else 4

    @property
    def prefix(self) -> int:
        return int(self.cidr.rpartition("/")[2])

    def contains(self, address: str) -> bool:
        if (":" in address) != (":" in self.cidr):
            return False
        first, mask = _span(self.cidr)
        return int.from_bytes(packed(address), "big") & mask == first


def packed(address: str) -> bytes:
    """The bytes of an address in network order; ValueError for what is none."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return ipaddress.ip_address(address).packed  # with a zone; or it says what is wrong


@functools.lru_cache(maxsize=256)
def _span(cidr: str) -> tuple[int, int]:
    """(first address, mask) as numbers."""
    network = network_of(cidr)
    return int(network.network_address), int(network.netmask)


@functools.lru_cache(maxsize=256)
def network_of(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Parsed; each start asks for the same few."""
    return ipaddress.ip_network(cidr)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network as it is to be on the host. ``driver``: bridge, macvlan, ipvlan, host or none."""

    id: str
    name: str
    driver: str = "bridge"
    internal: bool = False
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    attachable: bool = False

    @property
    def ipv6(self) -> bool:
        return any(subnet.version == 6 for subnet in self.subnets)

    @property
    def ipv4(self) -> bool:
        return any(subnet.version == 4 for subnet in self.subnets)

    @property
    def cidrs(self) -> tuple[str, ...]:
        return tuple(subnet.cidr for subnet in self.subnets)

    @property
    def gateways(self) -> tuple[str, ...]:
        return tuple(subnet.gateway for subnet in self.subnets if subnet.gateway)

    def subnet_of(self, address: str) -> Subnet | None:
        """The pool an address belongs to."""
        return next((subnet for subnet in self.subnets if subnet.contains(address)), None)

    def gateway(self, version: int) -> str:
        """The gateway of the first pool of that IP version, or ''."""
        return next((s.gateway for s in self.subnets if s.version == version and s.gateway), "")

    def flag(self, option: str, *, default: bool) -> bool:
        """A true/false driver option."""
        text = self.options.get(option, "").strip().lower()
        return text in ("true", "1", "t", "yes") if text else default

    def to_dict(self) -> dict[str, Any]:
        """JSON data for the store; :meth:`from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpec:
        fields = dict(data)
        fields["subnets"] = tuple(Subnet(**subnet) for subnet in fields.get("subnets", ()))
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One interface of a container. ``interface_name`` '' means the next free ethN; ``mac`` '' means one
    made from the address. The default route goes through the endpoint of :func:`gateway_endpoint`.
    ``sysctls`` are ``net.`` keys with IFNAME standing for the interface's name. ``announce``: whether it tells
    its neighbours its MAC when it comes up; that reaches every port of the bridge."""

    container_id: str
    network: NetworkSpec
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    interface_name: str = ""
    aliases: tuple[str, ...] = ()
    link_local_ips: tuple[str, ...] = ()
    gw_priority: int = 0
    sysctls: tuple[tuple[str, str], ...] = ()
    announce: bool = True

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


@dataclass(frozen=True, slots=True, order=True)
class PortSpec:
    """A published port with its host port chosen. ``host_ip`` '' means all addresses of the host (both
    versions); '0.0.0.0' and '::' all of one version."""

    host_ip: str
    published: int
    target: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "0.0.0.0"
        return f"{host}:{self.published}->{self.target}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Forward:
    """A published port of a running container: where the firewall sends it. ``network`` is the id of the
    network whose addresses are used (see :func:`gateway_endpoint`)."""

    port: PortSpec
    network: str
    ipv4: str = ""
    ipv6: str = ""


def gateway_endpoint(endpoints: Iterable[EndpointSpec]) -> EndpointSpec | None:
    """The endpoint that gets the default route and the published ports: not internal, of the highest
    ``gw_priority``, then the first by network name. None if every network is internal."""
    outward = ("bridge", "macvlan", "ipvlan")
    able = [e for e in endpoints if not e.network.internal and e.network.driver in outward]
    return min(able, key=lambda e: (-e.gw_priority, e.network.name), default=None)


def forwards(endpoints: Iterable[EndpointSpec], ports: Iterable[PortSpec]) -> tuple[Forward, ...]:
    """The ports of a container as the firewall needs them; empty without a bridge that leads out."""
    able = gateway_endpoint(e for e in endpoints if e.network.driver == "bridge")
    if able is None:
        return ()
    return tuple(Forward(port, able.network.id, able.ipv4, able.ipv6) for port in ports)
