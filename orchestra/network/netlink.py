"""rtnetlink by hand: the few messages a container's network needs, many in one send.

pyroute2 does all of this too, but its import costs ~220 ms and a link ~2 ms; this module is what the start
path uses. Requests are plain bytes (``link_add_veth`` …: pure, tested without root); ``Netlink`` sends a
batch of them and reports the first error. See rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestra.network.model import packed

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

IFF_UP = 1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_NET_NS_PID, IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 18, 19, 26, 27, 28
IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 8, 1
IFLA_INET_CONF = 1
DEVCONF_FORWARDING, DEVCONF_ARP_NOTIFY, DEVCONF_ROUTE_LOCALNET = 1, 22, 26
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING = 1, 5, 23
IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_VLAN_ID = 1, 1, 1
VETH_INFO_PEER = 1
NLA_F_NESTED = 0x8000

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 4, 0, 253, 1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}

_ATTRIBUTE = struct.Struct("=HH")
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_RTMSG = struct.Struct("=BBBBBBBBI")
_WORD = struct.Struct("=HHI")
_IFREQ = struct.Struct("=16si20x")
_SIOCGIFINDEX = 0x8933
_ANSWER = 16384  # more than any one answer to a request: a refusal has the request with it


@dataclass(frozen=True, slots=True)
class Request:
    """One message without its sequence number; ``what`` names it in errors."""

    type: int
    flags: int
    body: bytes
    what: str
    ignore: tuple[int, ...] = ()  # error numbers that count as success

    def pack(self, sequence: int, *, ack: bool = True) -> bytes:
        flags = self.flags | NLM_F_REQUEST | (NLM_F_ACK if ack else 0)
        return _HEADER.pack(16 + len(self.body), self.type, flags, sequence, 0) + self.body


class NetlinkError(OSError):
    """A refused request: ``errno`` and what was asked."""


# ---- attributes ------------------------------------------------------------------------------------------


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    size = len(data)
    return _ATTRIBUTE.pack(4 + size, kind) + data + b"\0" * (-size % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def word(kind: int, value: int) -> bytes:
    return _WORD.pack(8, kind, value)


_ONE_QUEUE = word(IFLA_NUM_TX_QUEUES, 1) + word(IFLA_NUM_RX_QUEUES, 1)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def mac_bytes(mac: str) -> bytes:
    """The six bytes of a MAC address; ValueError for anything else."""
    raw = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(raw) != 6:
        raise ValueError(f"not a MAC address: {mac}")
    return raw


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` (the last of a kind wins; stops at nonsense)."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


# ---- links -----------------------------------------------------------------------------------------------


def _ifinfo(*, index: int = 0, up: bool | None = None, family: int = 0) -> bytes:
    return _IFINFO.pack(family, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)


def _kind(kind: str, *data: bytes) -> bytes:
    parts = [attribute(IFLA_INFO_KIND, kind.encode())]
    if data:
        parts.append(nested(IFLA_INFO_DATA, *data))
    return nested(IFLA_LINKINFO, *parts)


def link_add_veth(
    name: str, *, master: int, group: int, mtu: int, peer: str, peer_mac: str, netns_fd: int
) -> Request:
    """A veth pair: ``name`` here as a port of ``master``, ``peer`` made directly in the other namespace
    (both down). Moving a link afterwards would wait for an RCU grace period (~12 ms). Each end has one queue
    each way, as it has by default; unless that is said, the kernel makes one a processor and takes them away."""
    inner = [_ifinfo(), text(IFLA_IFNAME, peer), word(IFLA_NET_NS_FD, netns_fd), _ONE_QUEUE]
    if peer_mac:
        inner.append(attribute(IFLA_ADDRESS, mac_bytes(peer_mac)))
    outer = [text(IFLA_IFNAME, name), word(IFLA_MASTER, master), word(IFLA_GROUP, group), _ONE_QUEUE]
    if mtu:
        inner.append(word(IFLA_MTU, mtu))
        outer.append(word(IFLA_MTU, mtu))
    body = _ifinfo() + b"".join(outer) + _kind("veth", nested(VETH_INFO_PEER, *inner))
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add veth {name}")


def link_port_up(name: str, *, isolated: bool = False) -> Request:
    """Brings a bridge port up, in hairpin mode (a container reaches itself through a published port) and
    without an IPv6 link-local address of its own. Isolated ports reach the bridge but not one another."""
    body = _ifinfo(up=True) + text(IFLA_IFNAME, name) + _port_settings(isolated=isolated)
    return Request(RTM_NEWLINK, 0, body, f"set {name} up")


@functools.cache
def _port_settings(*, isolated: bool) -> bytes:
    parts = [attribute(IFLA_BRPORT_MODE, b"\1")]
    if isolated:
        parts.append(attribute(IFLA_BRPORT_ISOLATED, b"\1"))
    slave = nested(IFLA_INFO_SLAVE_DATA, *parts)
    info = nested(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, b"bridge"), slave)
    return info + _af_spec(ipv6=False)


def link_add_bridge(name: str, *, mac: str, mtu: int, group: int) -> Request:
    data = (
        word(IFLA_BR_FORWARD_DELAY, 0),
        word(IFLA_BR_STP_STATE, 0),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    body = (
        _ifinfo()
        + text(IFLA_IFNAME, name)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + word(IFLA_GROUP, group)
    )
    if mtu:
        body += word(IFLA_MTU, mtu)
    body += _kind("bridge", *data)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add bridge {name}")


def link_add_macvlan(
    name: str, *, parent: int, mode: str, mac: str, mtu: int, netns_fd: int, kind: str = "macvlan"
) -> Request:
    """A macvlan or ipvlan on ``parent``, made directly in the other namespace."""
    if kind == "macvlan":
        data = word(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])
    else:
        data = attribute(IFLA_IPVLAN_MODE, struct.pack("=H", IPVLAN_MODES[mode]))
    body = _ifinfo() + text(IFLA_IFNAME, name) + word(IFLA_LINK, parent) + word(IFLA_NET_NS_FD, netns_fd)
    if mac and kind == "macvlan":
        body += attribute(IFLA_ADDRESS, mac_bytes(mac))
    if mtu:
        body += word(IFLA_MTU, mtu)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _kind(kind, data), f"add {kind} {name}")


def link_add_vlan(name: str, *, parent: int, tag: int, group: int) -> Request:
    data = attribute(IFLA_VLAN_ID, struct.pack("=H", tag))
    body = _ifinfo(up=True) + text(IFLA_IFNAME, name) + word(IFLA_LINK, parent) + word(IFLA_GROUP, group)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _kind("vlan", data), f"add vlan {name}")


def link_add_dummy(name: str, *, group: int) -> Request:
    body = _ifinfo(up=True) + text(IFLA_IFNAME, name) + word(IFLA_GROUP, group) + _kind("dummy")
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"add dummy {name}")


def _af_spec(*, ipv6: bool, **inet: int) -> bytes:
    """``ipv6=False`` keeps the link from making itself a link-local address; ``inet`` are DEVCONF values
    by ``forwarding``, ``arp_notify`` and ``route_localnet``."""
    keys = {
        "forwarding": DEVCONF_FORWARDING,
        "arp_notify": DEVCONF_ARP_NOTIFY,
        "route_localnet": DEVCONF_ROUTE_LOCALNET,
    }
    parts = []
    if inet:
        conf = [word(keys[name], value) for name, value in inet.items()]
        parts.append(nested(socket.AF_INET, nested(IFLA_INET_CONF, *conf)))
    if not ipv6:
        mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([ADDR_GEN_NONE]))
        parts.append(nested(socket.AF_INET6, mode))
    return nested(IFLA_AF_SPEC, *parts) if parts else b""


@functools.lru_cache(maxsize=64)  # a container's first interface has nearly always the same index
def link_configure(index: int, *, ipv6: bool, **inet: int) -> Request:
    """Per-link settings that must be there before it comes up."""
    body = _ifinfo(index=index) + _af_spec(ipv6=ipv6, **inet)
    return Request(RTM_SETLINK, 0, body, f"configure link {index}")


@functools.lru_cache(maxsize=64)
def link_up(index: int) -> Request:
    return Request(RTM_SETLINK, 0, _ifinfo(index=index, up=True), f"set link {index} up")


def link_delete(name: str) -> Request:
    body = _ifinfo() + text(IFLA_IFNAME, name)
    return Request(RTM_DELLINK, 0, body, f"delete link {name}", (errno.ENODEV,))


def link_delete_group(group: int) -> Request:
    """Deletes every link of the group at once: one grace period for all of them."""
    what = f"delete links of group {group}"
    return Request(RTM_DELLINK, 0, _ifinfo() + word(IFLA_GROUP, group), what, (errno.ENODEV,))


# ---- addresses and routes --------------------------------------------------------------------------------


def address_add(index: int, address: str, prefix: int) -> Request:
    """An address; an IPv6 one is usable at once (no duplicate address detection: we chose it)."""
    raw = packed(address)
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    body = _IFADDR.pack(family, prefix, 0, 0, index) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    if len(raw) == 16:
        body += word(IFA_FLAGS, IFA_F_NODAD)
    elif prefix < 31:
        broadcast = int.from_bytes(raw, "big") | (1 << 32 - prefix) - 1
        body += attribute(IFA_BROADCAST, broadcast.to_bytes(4, "big"))
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, f"add address {address}/{prefix}")


@functools.lru_cache(maxsize=64)
def route_default(index: int, gateway: str, version: int) -> Request:
    """A default route through ``gateway``, or straight out of the link when it is ''."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    scope = RT_SCOPE_UNIVERSE if gateway or version == 6 else RT_SCOPE_LINK
    body = _RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    body += word(RTA_OIF, index)
    if gateway:
        body += attribute(RTA_GATEWAY, packed(gateway))
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"add default route {gateway}")


# ---- the socket ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    index: int
    name: str
    kind: str = ""
    master: int = 0
    group: int = 0
    up: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One route of the main table; ``destination`` is '' for a default route."""

    destination: str
    index: int
    gateway: str


class Netlink:
    """A rtnetlink socket of the namespace the calling thread is in. Not for several threads at once."""

    def __init__(self) -> None:
        # the kernel binds it with the first message
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def index(self, name: str) -> int:
        """The index of a link; OSError when there is none of that name."""
        raw = name.encode()
        if len(raw) > 15:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
        answer = fcntl.ioctl(self._socket.fileno(), _SIOCGIFINDEX, _IFREQ.pack(raw, 0))
        return int(_IFREQ.unpack(answer)[1])

    def run(self, requests: Sequence[Request]) -> None:
        """Sends all requests at once and waits until the last is answered. The kernel carries out the rest
        even when one fails; the first failure is raised as NetlinkError. Only the last asks for an answer: of
        the others the kernel reports the failures, before that."""
        if not requests:
            return
        first = self._sequence + 1
        last = self._sequence = self._sequence + len(requests)
        pieces = [request.pack(first + n, ack=False) for n, request in enumerate(requests[:-1])]
        self._socket.send(b"".join((*pieces, requests[-1].pack(last))))
        waiting, failure = True, None
        while waiting:
            for kind, sequence, body in _messages(self._socket.recv(_ANSWER)):
                if kind != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                waiting = waiting and sequence != last
                number = -struct.unpack_from("=i", body)[0]
                request = requests[sequence - first]
                if number and number not in request.ignore and failure is None:
                    failure = NetlinkError(number, os.strerror(number), request.what)
        if failure is not None:
            raise failure

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer, sequence, data in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", data)[0]
                    raise NetlinkError(number, os.strerror(number), "list")
                yield data

    def links(self) -> list[Link]:
        found = []
        for data in self._dump(RTM_GETLINK, _ifinfo()):
            _, _, index, flags, _ = _IFINFO.unpack_from(data)
            parts = attributes(data[16:])
            info = attributes(parts.get(IFLA_LINKINFO, b""))
            found.append(
                Link(
                    index,
                    _string(parts.get(IFLA_IFNAME, b"")),
                    _string(info.get(IFLA_INFO_KIND, b"")),
                    _number(parts.get(IFLA_MASTER)),
                    _number(parts.get(IFLA_GROUP)),
                    bool(flags & IFF_UP),
                )
            )
        return found

    def addresses(self) -> list[tuple[int, str]]:
        """(link index, "address/prefix") of every address."""
        found = []
        for data in self._dump(RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            _, prefix, _, _, index = _IFADDR.unpack_from(data)
            parts = attributes(data[8:])
            raw = parts.get(IFA_LOCAL) or parts.get(IFA_ADDRESS)
            if raw:
                found.append((index, f"{ipaddress.ip_address(raw)}/{prefix}"))
        return found

    def routes(self) -> list[Route]:
        """The unicast routes of all tables but ``local``."""
        found = []
        for data in self._dump(RTM_GETROUTE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, prefix, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(data)
            parts = attributes(data[12:])
            if kind != RTN_UNICAST or table == 255:
                continue
            target = f"{ipaddress.ip_address(parts[RTA_DST])}/{prefix}" if RTA_DST in parts else ""
            gateway = str(ipaddress.ip_address(parts[RTA_GATEWAY])) if RTA_GATEWAY in parts else ""
            found.append(Route(target, _number(parts.get(RTA_OIF)), gateway))
        return found


def _messages(data: bytes) -> Iterable[tuple[int, int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes | None) -> int:
    return struct.unpack("=I", data)[0] if data is not None and len(data) == 4 else 0


def mac_for(address: str) -> str:
    """A locally administered MAC made from an address, so that whoever gets the address again has the
    same MAC and no neighbour's cache goes stale."""
    raw = packed(address)
    if len(raw) == 4:
        return (b"\x02\x42" + raw).hex(":")
    import hashlib

    return (b"\x02\x66" + hashlib.sha256(raw).digest()[:4]).hex(":")
