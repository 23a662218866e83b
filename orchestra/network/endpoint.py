"""Interfaces of a container: made directly in its network namespace, in two netlink batches (ours and its own)
that need one visit of the namespace.

Costs (see the measurements in docs): a pair ~0.5 ms, addresses and routes ~0.2 ms. What is avoided: moving
a link between namespaces and deleting one (an RCU grace period each). Endpoints of a container that ends
are never deleted: they go with its namespace, a moment later; therefore host-side names are never used
twice, and the MAC follows the address.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestra.errors import ConflictError, OrchestraError, UnsupportedError
from orchestra.linux.netns import run_in
from orchestra.network import bridge, netlink
from orchestra.network.forwarding import write_sysctl
from orchestra.network.model import OPTION_ICC, OPTION_PREFIX, EndpointSpec, NetworkSpec, gateway_endpoint
from orchestra.paths import Paths

LOOPBACK = 1  # its index in every namespace
_NO_MAC = "02:00:00:00:00:00"


def open_netns(pid: int) -> int:
    """A descriptor of the process's network namespace."""
    try:
        return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OrchestraError(
            f"process {pid} has no network namespace to attach to: {error.strerror}"
        ) from None


def loopback_up(netns_fd: int) -> None:
    """All a container without networks gets."""

    def inside() -> None:
        with netlink.Netlink() as link:
            link.run([netlink.link_up(LOOPBACK)])

    run_in(netns_fd, inside)


def attach(
    paths: Paths,
    host: netlink.Netlink,
    netns_fd: int,
    endpoints: Sequence[EndpointSpec],
    *,
    present: Sequence[EndpointSpec] = (),
    also: Callable[[], object] | None = None,
) -> tuple[EndpointSpec, ...]:
    """Adds the endpoints; ``present`` are those the namespace has already. Returns them with the interface
    names and MACs they got. ``also`` is called in the namespace when they are up. On failure nothing of them
    is left."""
    taken = {"lo"}
    if present:
        taken = {name for _, name in run_in(netns_fd, socket.if_nameindex)}
    links = [_host_link(paths, host, e.network) for e in endpoints]
    named = _named(endpoints, taken)
    made: list[str] = []

    def inside() -> None:
        _configure(named, present)
        if also is not None:
            also()

    try:
        for endpoint, link in zip(named, links, strict=True):
            made.append(_outer_name(paths))
            _create(paths, host, endpoint, made[-1], link, netns_fd)
        run_in(netns_fd, inside)
    except BaseException:
        host.run([netlink.link_delete(name) for name in made])
        raise
    return named


def _host_link(paths: Paths, host: netlink.Netlink, network: NetworkSpec) -> int:
    """The index of the bridge or parent."""
    vlan = network.driver in ("macvlan", "ipvlan")
    name = bridge.parent_name(paths, network) if vlan else bridge.link_name(paths, network)
    try:
        return host.index(name)
    except OSError:
        raise OrchestraError(
            f"network {network.name} has lost its link {name}", hint="remove and create it anew"
        ) from None


def _outer_name(paths: Paths) -> str:
    stem = "ov" + paths.name[:6]
    return stem + bridge.short_number(int.from_bytes(os.urandom(8), "big"), bridge.LINK_LIMIT - len(stem))


def _named(endpoints: Sequence[EndpointSpec], used: set[str]) -> tuple[EndpointSpec, ...]:
    """Every endpoint with its interface name and MAC."""
    used = used | {endpoint.interface_name for endpoint in endpoints}
    named = []
    for endpoint in endpoints:
        name = endpoint.interface_name
        if not name:
            stem = endpoint.network.options.get(OPTION_PREFIX, "") or "eth"
            name = next(f"{stem}{n}" for n in range(len(used) + 1) if f"{stem}{n}" not in used)
            used.add(name)
        if len(name.encode()) > bridge.LINK_LIMIT or "/" in name or any(c.isspace() for c in name):
            raise OrchestraError(f"{name!r} is no valid interface name (at most {bridge.LINK_LIMIT} bytes)")
        address = next(iter(endpoint.addresses), "")
        mac = endpoint.mac or (netlink.mac_for(address) if address else "")
        named.append(replace(endpoint, interface_name=name, mac=mac))
    return tuple(named)


def _create(
    paths: Paths, host: netlink.Netlink, endpoint: EndpointSpec, outer: str, link: int, netns_fd: int
) -> None:
    network, name = endpoint.network, endpoint.interface_name
    mtu = bridge.mtu_of(network)
    try:
        netlink.mac_bytes(endpoint.mac or _NO_MAC)
    except ValueError:
        raise OrchestraError(f"invalid MAC address {endpoint.mac!r}") from None
    if network.driver in ("macvlan", "ipvlan"):
        mode = bridge.mode_of(network)
        requests = [
            netlink.link_add_macvlan(
                name,
                parent=link,
                mode=mode,
                mac=endpoint.mac,
                mtu=mtu,
                netns_fd=netns_fd,
                kind=network.driver,
            )
        ]
    else:
        group = bridge.group_of(paths, network)
        veth = netlink.link_add_veth(
            outer, master=link, group=group, mtu=mtu, peer=name, peer_mac=endpoint.mac, netns_fd=netns_fd
        )
        requests = [veth, netlink.link_port_up(outer, isolated=not network.flag(OPTION_ICC, default=True))]
    try:
        host.run(requests)
    except OSError as error:
        raise _refused(endpoint, error) from error


def _refused(endpoint: EndpointSpec, error: OSError) -> OrchestraError:
    network = endpoint.network
    if error.errno == errno.EEXIST:
        return ConflictError(f"the container has an interface {endpoint.interface_name} already")
    if error.errno == errno.EOPNOTSUPP:
        return UnsupportedError(f"network {network.name}: this kernel has no {network.driver} driver")
    return OrchestraError(f"cannot attach to network {network.name}: {error}")


def _configure(endpoints: Sequence[EndpointSpec], present: Sequence[EndpointSpec]) -> None:
    """Addresses, state and routes; runs inside the namespace."""
    requests = [netlink.link_up(LOOPBACK)]
    with netlink.Netlink() as link:
        found = {e.interface_name: link.index(e.interface_name) for e in (*present, *endpoints)}
        for endpoint in endpoints:
            index = found[endpoint.interface_name]
            notify = {"arp_notify": 1} if endpoint.announce else {}
            requests.append(netlink.link_configure(index, ipv6=bool(endpoint.ipv6), **notify))
            requests += [_address(index, endpoint, address) for address in endpoint.addresses]
            for address in endpoint.link_local_ips:
                requests.append(netlink.address_add(index, address, 64 if ":" in address else 16))
            requests.append(netlink.link_up(index))
            _apply_sysctls(endpoint)
        try:
            link.run(requests + _default_routes([*present, *endpoints], found))
        except OSError as error:
            raise OrchestraError(f"cannot configure the container's network: {error}") from error


def _address(index: int, endpoint: EndpointSpec, address: str) -> netlink.Request:
    subnet = endpoint.network.subnet_of(address)
    if subnet is None:
        raise OrchestraError(f"address {address} is not in a subnet of network {endpoint.network.name}")
    return netlink.address_add(index, address, subnet.prefix)


def _default_routes(endpoints: Sequence[EndpointSpec], index: Mapping[str, int]) -> list[netlink.Request]:
    """One default route an IP version, through the best endpoint that has a gateway."""
    requests = []
    for version in (4, 6):
        able = [e for e in endpoints if (e.ipv6 if version == 6 else e.ipv4)]
        best = gateway_endpoint(e for e in able if e.network.gateway(version) or e.network.driver == "ipvlan")
        if best is not None:
            gateway = "" if _layer3(best.network) else best.network.gateway(version)
            requests.append(netlink.route_default(index[best.interface_name], gateway, version))
    return requests


def _layer3(network: NetworkSpec) -> bool:
    return network.driver == "ipvlan" and bridge.mode_of(network) != "l2"


def _apply_sysctls(endpoint: EndpointSpec) -> None:
    """The endpoint's ``net.`` settings. /proc/sys shows the namespace of the thread that opens it."""
    if endpoint.ipv6 and endpoint.announce:
        write_sysctl(f"net/ipv6/conf/{endpoint.interface_name}/ndisc_notify", "1")
    for key, value in endpoint.sysctls:
        parts = ["IFNAME" if part == "IFNAME" else part for part in key.replace("/", ".").split(".")]
        if parts[0] != "net" or "IFNAME" not in parts or any(part in ("", "..") for part in parts):
            raise OrchestraError(f"endpoint sysctl {key!r} is not of the form net.<group>.IFNAME.<name>")
        path = "/".join(endpoint.interface_name if part == "IFNAME" else part for part in parts)
        try:
            write_sysctl(path, value)
        except OSError as error:
            raise OrchestraError(f"cannot set endpoint sysctl {key}={value}: {error.strerror}") from None


def detach(netns_fd: int, endpoint: EndpointSpec, remaining: Sequence[EndpointSpec]) -> None:
    """Takes one interface from a running container (slow: ~15 ms) and lets the best of the rest lead out."""

    def inside() -> None:
        with netlink.Netlink() as link:
            link.run([netlink.link_delete(endpoint.interface_name)])
            index = {e.interface_name: link.index(e.interface_name) for e in remaining}
            link.run(_default_routes(remaining, index))

    run_in(netns_fd, inside)
