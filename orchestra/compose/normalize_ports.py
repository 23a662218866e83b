"""Short port texts as long entries: ``[HOST:][PUBLISHED:]TARGET[/PROTOCOL]`` with ranges."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse(text: str) -> list[dict[str, Any]]:
    """One entry a container port; raises ValueError with the words to show."""
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"unknown protocol {protocol!r} in port {text!r}: must be tcp, udp or sctp")
    host, published, target = _parts(body)
    if not target:
        raise ValueError(f"port {text!r} has no container port")
    if host:
        import ipaddress

        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise ValueError(f"invalid IP address {host!r} in port {text!r}") from None
    first, last = _range(target, "container port", text)
    common: dict[str, Any] = {"mode": "ingress"}
    if host:
        common["host_ip"] = host
    outer = _range(published, "host port", text) if published else None
    if outer is None:
        return [{**common, "target": port, "protocol": protocol} for port in range(first, last + 1)]
    if outer[1] - outer[0] == last - first:
        return [
            {**common, "target": port, "published": str(outer[0] + port - first), "protocol": protocol}
            for port in range(first, last + 1)
        ]
    if first != last:
        raise ValueError(f"the ranges {published} and {target} of port {text!r} differ in length")
    return [{**common, "target": first, "published": f"{outer[0]}-{outer[1]}", "protocol": protocol}]


def _parts(body: str) -> tuple[str, str, str]:
    """(host, published, target); an IPv6 host stands in brackets."""
    rest, _, target = body.rpartition(":")
    if not rest:
        return "", "", target
    host, _, published = rest.rpartition(":")
    if rest.startswith("[") and rest.endswith("]"):
        host, published = rest, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, published, target


def _range(text: str, what: str, whole: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if not _digits(low) or (dash and not _digits(high)):
        raise ValueError(f"invalid {what} {text!r} in port {whole!r}")
    first, last = int(low), int(high or low)
    if last < first or last > 65535:
        raise ValueError(f"invalid {what} {text!r} in port {whole!r}: ports go from 0 to 65535")
    return first, last


def _digits(text: str) -> bool:
    return 0 < len(text) < 6 and text.isascii() and text.isdecimal()
