"""The nftables driver: one table ``inet <scope>``, replaced as a whole in one transaction.

What the table does (``ruleset`` is pure text; everything hangs on sets and maps, so that rules do not grow):

- a bridge reaches the outside with the host's address (masquerade); other bridges and the outside reach a
  container only through a published port;
- an internal network reaches nothing but itself and its own gateway address;
- published ports: DNAT for packets to any (or one) address of the host, from outside, from containers and
  from the host itself, 127.0.0.1 and ::1 included; hairpin and loopback traffic is masqueraded so that
  answers return;
- 127.0.0.0/8 stays closed: ``route_localnet`` is on for a bridge with published ports, so packets *from* a
  bridge *to* 127.0.0.0/8 are dropped before anything else, and from no link but ``lo`` are they published.

Never touches what is not ours.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Sequence

from orchestra.errors import OrchestraError
from orchestra.network.firewall import Bridge
from orchestra.network.model import Forward

NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
"""Protocol numbers: nft looks names up in /etc/protocols, which a minimal Debian does not have."""


class NftFirewall:
    name = "nft"

    def __init__(self, table: str, program: str = "nft") -> None:
        self.table = table
        self._program = program
        self._lock = threading.Lock()
        self._loaded: str | None = None

    def sync(self, bridges: Sequence[Bridge], forwards: Sequence[Forward], guarded: Sequence[str]) -> None:
        text = ruleset(self.table, bridges, forwards, guarded)
        with self._lock:
            if text != self._loaded:
                self._loaded = None
                self._run(text)
                self._loaded = text

    def remove(self) -> None:
        with self._lock:
            self._loaded = None
            self._run(f"table inet {self.table}\ndelete table inet {self.table}\n")

    def _run(self, text: str) -> None:
        try:
            done = subprocess.run(
                [self._program, "-f", "-"],
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OrchestraError(f"cannot run {self._program}: {error}", hint="install nftables") from None
        if done.returncode:
            lines = tuple(line for line in done.stderr.splitlines() if line.strip())[:12]
            raise OrchestraError("nft refused the firewall rules", details=lines)


def ruleset(
    table: str, bridges: Iterable[Bridge], forwards: Iterable[Forward], guarded: Iterable[str] = ()
) -> str:
    """The nft script that makes the table; it only deletes it when there is no bridge. The same input in any
    order gives the same text."""
    bridges = sorted(bridges, key=lambda bridge: bridge.link)
    head = f"table inet {table}\ndelete table inet {table}\n"
    if not bridges:
        return head
    parts = [*_sets(bridges, guarded), *_maps(bridges, list(forwards)), _CHAINS]
    return f"{head}table inet {table} {{\n" + "".join(parts) + "}\n"


def _sets(bridges: Sequence[Bridge], guarded: Iterable[str]) -> list[str]:
    def links(some: Iterable[Bridge]) -> list[str]:
        return [f'"{bridge.link}"' for bridge in some]

    nets = [(bridge.link, cidr) for bridge in bridges for cidr in bridge.subnets]
    talking = [f'"{bridge.link}" . "{bridge.link}"' for bridge in bridges if bridge.icc]
    inside = [(bridge.link, gateway) for bridge in bridges if bridge.internal for gateway in bridge.gateways]
    return [
        _set("bridges", "ifname", links(bridges)),
        _set("internal", "ifname", links(b for b in bridges if b.internal)),
        _set("masqueraded", "ifname", links(b for b in bridges if b.masquerade and not b.internal)),
        _set(
            "local4",
            "ifname . ipv4_addr",
            [f'"{link}" . {net}' for link, net in nets if ":" not in net],
            True,
        ),
        _set("local6", "ifname . ipv6_addr", [f'"{link}" . {net}' for link, net in nets if ":" in net], True),
        _set("talking", "ifname . ifname", talking),
        _set("guarded", "ifname", sorted(f'"{link}"' for link in guarded)),
        _set("gateways4", "ifname . ipv4_addr", [f'"{link}" . {gw}' for link, gw in inside if ":" not in gw]),
        _set("gateways6", "ifname . ipv6_addr", [f'"{link}" . {gw}' for link, gw in inside if ":" in gw]),
    ]


def _maps(bridges: Sequence[Bridge], forwards: Sequence[Forward]) -> list[str]:
    """host4/host6: for one address of the host; any4/any6: for all of them; open4/open6: what may come in."""
    links = {bridge.network: bridge.link for bridge in bridges if not bridge.internal}
    entries: dict[str, dict[str, str]] = {name: {} for name in ("host4", "any4", "host6", "any6")}
    doors: dict[str, set[str]] = {"open4": set(), "open6": set()}
    for forward in sorted(forwards, key=lambda forward: (forward.port, forward.network)):
        port, link = forward.port, links.get(forward.network)
        if link is None:
            continue
        for version, address, everywhere in (("4", forward.ipv4, "0.0.0.0"), ("6", forward.ipv6, "::")):
            if not address or (port.host_ip and (":" in port.host_ip) != (version == "6")):
                continue
            key = f"{NUMBERS[port.protocol]} . {port.published}"
            if port.host_ip in ("", everywhere):
                entries[f"any{version}"].setdefault(key, f"{address} . {port.target}")
            else:
                entries[f"host{version}"].setdefault(f"{port.host_ip} . {key}", f"{address} . {port.target}")
            doors[f"open{version}"].add(f'"{link}" . {address} . {NUMBERS[port.protocol]} . {port.target}')
    service = "inet_proto . inet_service"
    parts = []
    for version in "46":
        ip = f"ipv{version}_addr"
        for name, kind in ((f"host{version}", f"{ip} . {service}"), (f"any{version}", service)):
            items = [f"{key} : {value}" for key, value in entries[name].items()]
            parts.append(_set(name, f"{kind} : {ip} . inet_service", items, word="map"))
        parts.append(_set(f"open{version}", f"ifname . {ip} . {service}", sorted(doors[f"open{version}"])))
    return parts


def _set(name: str, kind: str, items: Iterable[str], interval: bool = False, *, word: str = "set") -> str:
    elements = ", ".join(items)
    body = f"type {kind};{' flags interval;' if interval else ''}"
    body += f" elements = {{ {elements} }}" if elements else ""
    return f"  {word} {name} {{ {body} }}\n"


_CHAINS = """\
  chain raw {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }
  chain publish {
    dnat ip to ip daddr . meta l4proto . th dport map @host4
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6
    dnat ip6 to meta l4proto . th dport map @any6
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 return
    fib daddr type local meta l4proto { 6, 17, 132 } jump publish
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local meta l4proto { 6, 17, 132 } jump publish
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    oifname @bridges ip6 saddr ::1 masquerade
    oifname . ip saddr @local4 ct status dnat masquerade
    oifname . ip6 saddr @local6 ct status dnat masquerade
    iifname @masqueraded oifname != @bridges masquerade
    iifname @masqueraded oifname @bridges ct status dnat masquerade
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname @guarded oifname @guarded ct state new drop
    iifname != @bridges oifname != @bridges accept
    iifname . oifname @talking accept
    ct state established,related accept
    iifname @internal drop
    oifname @internal drop
    oifname . ip daddr . meta l4proto . th dport @open4 ct status dnat accept
    oifname . ip6 daddr . meta l4proto . th dport @open6 ct status dnat accept
    oifname @bridges drop
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname @internal jump internal_input
  }
  chain internal_input {
    ct state established,related accept
    iifname . ip daddr @gateways4 accept
    iifname . ip6 daddr @gateways6 accept
    meta l4proto 58 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
    drop
  }
"""
