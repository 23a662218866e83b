"""Which subnets a network gets and which address a container: pure choices over what is already taken.

Free subnets come from pools, each cut into subnets of one size, in order; whatever overlaps something busy
(routes and addresses of the host, networks of this engine) is skipped. Addresses are given out in order
after the last one, so that a freed address rests before it is used again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestra.compose.model import IpamPool
from orchestra.errors import ConflictError, OrchestraError
from orchestra.network.model import NetworkSpec, Subnet, network_of, packed

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Pool:
    """``base`` is cut into subnets of ``size`` bits of prefix."""

    base: str
    size: int


DEFAULT_POOLS: tuple[Pool, ...] = (
    *(Pool(f"172.{number}.0.0/16", 20) for number in range(17, 32)),
    Pool("192.168.0.0/16", 24),
)


def make_pool(base: str, size: int) -> Pool:
    """Checked: ValueError says what is wrong."""
    network = ipaddress.ip_network(base)
    if not network.prefixlen <= size <= network.max_prefixlen - 2:
        raise ValueError(f"subnets of /{size} cannot be cut from {base}")
    return Pool(str(network), size)


def choose_subnets(
    network: str,
    requests: Sequence[IpamPool],
    busy: Collection[str],
    *,
    ipv4: bool = True,
    ipv6: bool = False,
    pools: Sequence[Pool] = DEFAULT_POOLS,
) -> tuple[Subnet, ...]:
    """The subnets of the network named ``network``: what was asked for, and one free subnet for each wanted
    IP version nothing was asked for. ``busy`` are subnets as text; a requested one that overlaps one of
    them is a ConflictError."""
    taken = [ipaddress.ip_network(cidr, strict=False) for cidr in busy]
    chosen: list[Subnet] = []
    pending: list[IpamPool] = []
    for request in requests:
        if not request.subnet:
            pending.append(request)
            continue
        net = _requested(network, request)
        clash = next((other for other in taken if _overlap(net, other)), None)
        if clash is not None:
            raise ConflictError(
                f"network {network}: subnet {net} overlaps {clash}, which is in use on this machine",
                hint="choose another subnet, or remove what uses that one",
            )
        chosen.append(_subnet(network, net, request))
        taken.append(net)
    if not (ipv4 or ipv6 or chosen):
        raise OrchestraError(f"network {network} has neither IPv4 nor IPv6")
    wanted = [version for version, on in ((4, ipv4), (6, ipv6)) if on]
    for version in wanted:
        if not any(subnet.version == version for subnet in chosen):
            free = _free4(network, taken, pools) if version == 4 else _free6(network, taken)
            request = pending.pop(0) if version == 4 and pending else IpamPool()
            chosen.append(_subnet(network, free, request))
            taken.append(free)
    return tuple(chosen)


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _requested(network: str, request: IpamPool) -> IPNetwork:
    try:
        return ipaddress.ip_network(request.subnet, strict=False)
    except ValueError as error:
        raise OrchestraError(f"network {network}: invalid subnet {request.subnet!r}: {error}") from None


def _subnet(network: str, net: IPNetwork, request: IpamPool) -> Subnet:
    gateway = request.gateway or str(
        net.network_address + 1 if net.num_addresses > 1 else net.network_address
    )
    checks = [("gateway", gateway), *(("aux address", text) for text in request.aux_addresses.values())]
    for what, text in checks:
        if _address(network, what, text) not in net:
            raise OrchestraError(f"network {network}: {what} {text} is not in subnet {net}")
    if request.ip_range:
        try:
            inner: IPNetwork = ipaddress.ip_network(request.ip_range, strict=False)
        except ValueError as error:
            raise OrchestraError(
                f"network {network}: invalid ip_range {request.ip_range!r}: {error}"
            ) from None
        if inner.version != net.version or not inner.subnet_of(net):  # type: ignore[arg-type]
            raise OrchestraError(f"network {network}: ip_range {inner} is not within subnet {net}")
        return Subnet(str(net), _canonical(gateway), str(inner), dict(request.aux_addresses))
    return Subnet(str(net), _canonical(gateway), "", dict(request.aux_addresses))


def _canonical(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _address(network: str, what: str, text: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise OrchestraError(f"network {network}: invalid {what} {text!r}") from None


def _free4(network: str, taken: Iterable[IPNetwork], pools: Sequence[Pool]) -> IPNetwork:
    busy = [net for net in taken if net.version == 4 and net.prefixlen > 0]
    for pool in pools:
        base = ipaddress.ip_network(pool.base)
        if base.version != 4:
            continue
        for net in base.subnets(new_prefix=pool.size):
            if not any(net.overlaps(other) for other in busy):
                return net
    raise OrchestraError(
        f"no free subnet left for network {network}",
        hint="remove unused networks (`orchestra network prune`) or give it a subnet under `ipam:`",
    )


def _free6(network: str, taken: Iterable[IPNetwork]) -> IPNetwork:
    """A unique local /64 (RFC 4193) made from the network's name."""
    busy = [net for net in taken if net.version == 6 and net.prefixlen > 0]
    for attempt in range(1000):
        bits = hashlib.sha256(f"{network}/{attempt}".encode()).digest()[:7]
        packed = b"\xfd" + bits + b"\0" * 8
        net = ipaddress.IPv6Network((packed, 64))
        if not any(net.overlaps(other) for other in busy):
            return net
    raise OrchestraError(f"no free IPv6 subnet left for network {network}")


def choose_address(
    network: NetworkSpec, version: int, taken: Container[str], *, wanted: str = "", after: str = ""
) -> str:
    """A free address of that IP version, or '' when the network has no such subnet. ``wanted`` is a fixed
    address; ``after`` the one given out last."""
    if wanted:
        return _fixed(network, wanted, taken)
    subnets = [subnet for subnet in network.subnets if subnet.version == version]
    for subnet in subnets:
        blocked = {subnet.gateway, *(_canonical(text) for text in subnet.aux.values())}
        for address in _candidates(subnet, after):
            if address not in taken and address not in blocked:
                return address
    if subnets:
        raise ConflictError(
            f"network {network.name} has no free IPv{version} address left in {subnets[0].cidr}"
        )
    return ""


def _fixed(network: NetworkSpec, wanted: str, taken: Container[str]) -> str:
    address = str(_address(network.name, "address", wanted))
    subnet = network.subnet_of(address)
    if subnet is None:
        raise OrchestraError(
            f"address {address} is not in a subnet of network {network.name}",
            details=(f"its subnets: {', '.join(network.cidrs) or 'none'}",),
            hint="give the network a fitting `subnet` under `ipam:`",
        )
    if address in taken or address == subnet.gateway:
        raise ConflictError(f"address {address} is already in use on network {network.name}")
    return address


def _candidates(subnet: Subnet, after: str) -> Iterator[str]:
    """The host addresses of the pool: those after ``after`` first, then from the start."""
    pool = network_of(subnet.ip_range or subnet.cidr)
    whole = network_of(subnet.cidr)
    first, last = int(pool.network_address), int(pool.broadcast_address)
    if whole.prefixlen < whole.max_prefixlen - 1:
        first = max(first, int(whole.network_address) + 1)
        last = min(last, int(whole.broadcast_address) - (whole.version == 4))
    make = _text4 if whole.version == 4 else _text6
    start = first
    if after and (":" in after) == (whole.version == 6):
        number = int.from_bytes(packed(after), "big")
        start = number + 1 if first <= number < last else first
    for number in range(start, last + 1):
        yield make(number)
    for number in range(first, start):
        yield make(number)


def _text4(number: int) -> str:
    return socket.inet_ntoa(number.to_bytes(4, "big"))


def _text6(number: int) -> str:
    return str(ipaddress.IPv6Address(number))
