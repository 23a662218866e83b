"""A network's own link on the host: a bridge, or what macvlan and ipvlan hang on.

Every link made here carries the group of its network (``group_of``), and so do the veths plugged into it:
removing the network deletes the group, in one call for all of them.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import socket

from orchestra.errors import ConflictError, NotFoundError, OrchestraError, UnsupportedError
from orchestra.network import netlink
from orchestra.network.model import OPTION_BRIDGE_NAME, OPTION_MTU, NetworkSpec, Subnet
from orchestra.paths import Paths

LINK_LIMIT = 15  # bytes of a link's name
OWN_GROUPS = 0x40000000  # link groups from here on are those of our networks
PREFIX = "oc"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def short_hash(text: str, length: int) -> str:
    """``length`` base-36 digits of a hash."""
    return short_number(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"), length)


def short_number(number: int, length: int) -> str:
    """The lowest ``length`` base-36 digits of a number, the last first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(digits)


def link_name(paths: Paths, spec: NetworkSpec) -> str:
    """The name of the network's link on the host: the user's, or ``oc<engine><hash>``."""
    own = spec.options.get(OPTION_BRIDGE_NAME, "")
    if own:
        if (
            len(own.encode()) > LINK_LIMIT
            or "/" in own
            or any(c.isspace() for c in own)
            or own in (".", "..")
        ):
            raise OrchestraError(
                f"network {spec.name}: {own!r} is no valid link name (at most {LINK_LIMIT} bytes)"
            )
        return own
    return _usual_name(PREFIX + paths.name[:7], f"{paths.run}/{spec.id}")


@functools.lru_cache(maxsize=256)  # each endpoint asks
def _usual_name(stem: str, text: str) -> str:
    return stem + short_hash(text, LINK_LIMIT - len(stem))


def group_of(paths: Paths, spec: NetworkSpec) -> int:
    """The link group of the network: 31 bits, never 0 (the kernel's default group)."""
    return _group(f"{paths.run}/{spec.id}")


@functools.lru_cache(maxsize=256)
def _group(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1 | OWN_GROUPS


def mtu_of(spec: NetworkSpec) -> int:
    text = spec.options.get(OPTION_MTU, "") or "0"
    if not text.isdigit() or not (int(text) == 0 or 68 <= int(text) <= 65535):
        raise OrchestraError(
            f"network {spec.name}: invalid MTU {text!r}", hint="an MTU is a number from 68 to 65535"
        )
    return int(text)


def create_bridge(paths: Paths, spec: NetworkSpec) -> None:
    """Makes the bridge with its gateway addresses and brings it up; completes one that is half there."""
    name, group = link_name(paths, spec), group_of(paths, spec)
    mac = netlink.mac_for(spec.gateways[0] if spec.gateways else f"fd00::{group & 0xFFFF:x}")
    with netlink.Netlink() as link:
        found = next((other for other in link.links() if other.name == name), None)
        if found is None:
            try:
                link.run([netlink.link_add_bridge(name, mac=mac, mtu=mtu_of(spec), group=group)])
            except OSError as error:
                raise _refused(spec, error) from error
        elif found.group != group or found.kind != "bridge":
            raise ConflictError(
                f"network {spec.name}: there is a link named {name} already",
                hint=f"choose another {OPTION_BRIDGE_NAME}, or remove that link",
            )
        index = socket.if_nametoindex(name)
        requests = [netlink.link_configure(index, ipv6=spec.ipv6)]
        requests += [_gateway(index, subnet) for subnet in spec.subnets if subnet.gateway]
        try:
            link.run([*requests, netlink.link_up(index)])
        except OSError as error:
            link.run([netlink.link_delete(name)])
            raise _refused(spec, error) from error


def _refused(spec: NetworkSpec, error: OSError) -> OrchestraError:
    if error.errno == errno.EOPNOTSUPP:
        return UnsupportedError(f"network {spec.name}: this kernel has no bridges")
    hint = "bridge networks need root" if error.errno in (errno.EPERM, errno.EACCES) else None
    return OrchestraError(f"cannot set up the bridge of network {spec.name}: {error}", hint=hint)


def _gateway(index: int, subnet: Subnet) -> netlink.Request:
    return netlink.address_add(index, subnet.gateway, subnet.prefix)


def parent_name(paths: Paths, spec: NetworkSpec) -> str:
    """The link a macvlan or ipvlan network hangs on: the ``parent`` option, or an own dummy link."""
    return spec.options.get("parent", "") or link_name(paths, spec)


def create_parent(paths: Paths, spec: NetworkSpec) -> None:
    """Sees to it that the parent is there: ``eth0.10`` is made as VLAN 10 of ``eth0``."""
    mode_of(spec)
    name, group = parent_name(paths, spec), group_of(paths, spec)
    with netlink.Netlink() as link:
        if any(other.name == name for other in link.links()):
            return
        base, _, tag = name.rpartition(".")
        try:
            if not spec.options.get("parent"):
                link.run([netlink.link_add_dummy(name, group=group)])
            elif base and tag.isdigit() and 0 < int(tag) < 4095:
                parent = socket.if_nametoindex(base)
                link.run([netlink.link_add_vlan(name, parent=parent, tag=int(tag), group=group)])
            else:
                raise NotFoundError(f"network {spec.name}: the parent link {name} does not exist")
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise UnsupportedError(
                    f"network {spec.name}: this kernel cannot make the parent link {name}",
                    hint="name an existing link: driver_opts: {parent: eth0}",
                ) from None
            raise NotFoundError(f"network {spec.name}: cannot make the parent link {name}: {error}") from None


def mode_of(spec: NetworkSpec) -> str:
    """The macvlan or ipvlan mode."""
    modes, option, default = netlink.MACVLAN_MODES, "macvlan_mode", "bridge"
    if spec.driver == "ipvlan":
        modes, option, default = netlink.IPVLAN_MODES, "ipvlan_mode", "l2"
    mode = spec.options.get(option, "") or default
    if mode not in modes:
        raise OrchestraError(
            f"network {spec.name}: unknown {option} {mode!r}", hint=f"one of {', '.join(modes)}"
        )
    return mode


def remove_links(paths: Paths, spec: NetworkSpec) -> None:
    """Deletes the network's link and everything plugged into it."""
    with netlink.Netlink() as link:
        link.run([netlink.link_delete_group(group_of(paths, spec))])
