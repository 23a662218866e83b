"""The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf of a container. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestra.errors import OrchestraError

DNS_ADDRESS = "127.0.0.11"

_LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """What a resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def hostname_file(hostname: str) -> str:
    return hostname + "\n"


def hosts_file(
    hostname: str,
    addresses: Sequence[str],
    *,
    domainname: str = "",
    extra_hosts: Iterable[str] = (),
    host_gateway: Sequence[str] = (),
) -> str:
    """``extra_hosts`` are ``name=address`` (or ``name:address``); the address ``host-gateway`` stands for
    the host as the container sees it: ``host_gateway``."""
    lines = [_LOCAL]
    for entry in extra_hosts:
        name, targets = _extra(entry, host_gateway)
        lines += [f"{target}\t{name}\n" for target in targets]
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}\n" for address in addresses]
    return "".join(lines)


def _extra(entry: str, host_gateway: Sequence[str]) -> tuple[str, Sequence[str]]:
    name, sep, address = entry.partition("=")
    if not sep:
        name, sep, address = entry.partition(":")
    name, address = name.strip(), address.strip().removeprefix("[").removesuffix("]")
    if address == "host-gateway":
        if not host_gateway:
            raise OrchestraError(
                f"extra host {name}: host-gateway has no address here",
                hint="host-gateway needs a bridge network",
            )
        return name, host_gateway
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise OrchestraError(f"extra host {entry!r}: {address!r} is not an address") from None
    if not name or any(character.isspace() for character in name):
        raise OrchestraError(f"extra host {entry!r} has no valid name")
    return name, (address,)


def resolv_conf(settings: ResolverSettings) -> str:
    lines = [f"nameserver {server}\n" for server in settings.nameservers]
    if settings.search:
        lines.append(f"search {' '.join(settings.search)}\n")
    if settings.options:
        lines.append(f"options {' '.join(settings.options)}\n")
    return "".join(lines)


def container_resolver(
    host: ResolverSettings,
    *,
    embedded: bool,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
) -> ResolverSettings:
    """What a container's resolv.conf says: our resolver where there is one (``embedded``), else the given
    or the host's servers. A search of ``.`` means none."""
    domains = tuple(search) or host.search
    domains = () if domains == (".",) else domains
    if not embedded:
        return ResolverSettings(tuple(dns) or host.nameservers, domains, tuple(options) or host.options)
    extra = tuple(options) or host.options
    if not any(option.startswith("ndots:") for option in extra):
        extra = (*extra, "ndots:0")
    return ResolverSettings((DNS_ADDRESS,), domains, extra)


def parse_resolv_conf(text: str) -> ResolverSettings:
    """Reads a resolv.conf(5); what it does not know it leaves out. The last search or domain wins."""
    servers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver" and len(words) > 1 and _is_address(words[1]):
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options += words[1:]
    return ResolverSettings(tuple(servers), search, tuple(options))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
