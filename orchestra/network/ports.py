"""Host ports: which one a published port gets, whether it is free, and who has it if not.

Published ports are carried by the firewall, so nothing listens on them. ``reserve`` binds them anyway
(without listening), so that other programs get "address in use" as they would expect, and other engines see
them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack

from orchestra.errors import ConflictError, OrchestraError, UnsupportedError
from orchestra.network.model import PortSpec

EPHEMERAL = range(32768, 61000)
_TYPES = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_IPPROTO_SCTP = 132

Free = Callable[[PortSpec], bool]


def candidates(published: str) -> range:
    """The host ports that ``published`` allows: a number, a range, or '' (any: the ephemeral ones)."""
    if not published:
        return EPHEMERAL
    low, _, high = published.partition("-")
    try:
        first, last = int(low), int(high or low)
    except ValueError:
        raise OrchestraError(f"invalid published port {published!r}") from None
    if not 0 <= first <= last <= 65535:
        raise OrchestraError(f"invalid published port {published!r}: ports are 1 to 65535")
    return EPHEMERAL if first == last == 0 else range(first, last + 1)


def choose(
    published: str,
    target: int,
    *,
    protocol: str = "tcp",
    host_ip: str = "",
    taken: Collection[PortSpec] = (),
    free: Free | None = None,
    start: int = 0,
) -> PortSpec:
    """The first free host port that ``published`` allows. ``taken`` are the ports of other containers of this
    engine. Searching any port begins ``start`` places into the range (for a different place each time).
    Raises ConflictError naming the holder when all are taken."""
    numbers = candidates(published)
    is_free = free or port_is_free
    for step in range(len(numbers)):
        number = numbers[(start + step) % len(numbers)] if numbers is EPHEMERAL else numbers[step]
        spec = PortSpec(host_ip, number, target, protocol)
        if not any(clash(spec, other) for other in taken) and is_free(spec):
            return spec
    raise taken_error(PortSpec(host_ip, numbers[0], target, protocol), published, taken)


def clash(one: PortSpec, other: PortSpec) -> bool:
    """Whether the two cannot be published together."""
    if (one.published, one.protocol) != (other.published, other.protocol):
        return False
    if not one.host_ip or not other.host_ip:
        return True
    if (":" in one.host_ip) != (":" in other.host_ip):
        return False
    return one.host_ip == other.host_ip or bool({one.host_ip, other.host_ip} & {"0.0.0.0", "::"})


def taken_error(spec: PortSpec, published: str = "", taken: Collection[PortSpec] = ()) -> ConflictError:
    """The message for a port that is not free."""
    if "-" in published:
        return ConflictError(
            f"no free host port in {published}/{spec.protocol}", hint="publish another range"
        )
    if not published:
        return ConflictError(f"no free host port left for {spec.target}/{spec.protocol}")
    where = f"{spec.host_ip or '0.0.0.0'}:{spec.published}/{spec.protocol}"
    if any(clash(spec, other) for other in taken):
        who = "another container"
    else:
        who = holder(spec.protocol, spec.published) or "another program"
    return ConflictError(
        f"host port {where} is already in use by {who}",
        hint=f"stop it, or publish another host port (e.g. {spec.published + 1}:{spec.target})",
    )


def check(spec: PortSpec) -> None:
    """Raises ConflictError (naming the holder) unless the port can be taken now."""
    for holding in reserve(spec):
        holding.close()


def port_is_free(spec: PortSpec) -> bool:
    try:
        check(spec)
    except ConflictError:
        return False
    return True


def reserve(spec: PortSpec) -> list[socket.socket]:
    """Bound sockets that keep the port from others until they are closed."""
    hosts = [spec.host_ip] if spec.host_ip else ["0.0.0.0", "::"]
    with ExitStack() as undo:
        sockets = []
        for host in hosts:
            try:
                bound = _bind(host, spec.published, spec.protocol)
            except OSError as error:
                if (
                    not spec.host_ip
                    and host == "::"
                    and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
                ):
                    continue  # a host without IPv6
                raise _explain(spec, error) from None
            undo.callback(bound.close)
            sockets.append(bound)
        undo.pop_all()
        return sockets


def _bind(host: str, port: int, protocol: str) -> socket.socket:
    try:
        return _bind_once(host, port, protocol, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or protocol == "udp":
            raise
    # connections of a server that is gone (TIME_WAIT) are no reason to refuse; a listener still is
    return _bind_once(host, port, protocol, reuse=True)


def _bind_once(host: str, port: int, protocol: str, *, reuse: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if protocol == "sctp":
        bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, _IPPROTO_SCTP)
    else:
        bound = socket.socket(family, _TYPES[protocol] | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _explain(spec: PortSpec, error: OSError) -> OrchestraError:
    if error.errno == errno.EADDRINUSE:
        return taken_error(spec, str(spec.published))
    if error.errno == errno.EADDRNOTAVAIL:
        return OrchestraError(
            f"cannot publish {spec}: {spec.host_ip} is not an address of this host",
            hint="`ip address` lists the addresses of this host",
        )
    if error.errno in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return UnsupportedError(
            f"cannot publish {spec}: this kernel has no {spec.protocol} for {spec.host_ip}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return OrchestraError(
            f"cannot publish {spec}: no permission to take port {spec.published}",
            hint="use a port of 1024 or above",
        )
    return OrchestraError(f"cannot publish {spec}: {error.strerror}")


def holder(protocol: str, port: int) -> str:
    """``name (pid N)`` of a process that holds the port in this network namespace, '' if none is found."""
    inodes = set()
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/thread-self/net/{table}", encoding="ascii") as lines:
                inodes |= _inodes(lines.read(), protocol, port)
        except OSError:
            continue
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if _holds(pid, wanted):
            return _described(pid)
    return ""


def _inodes(table: str, protocol: str, port: int) -> set[str]:
    """Inodes of the listening (tcp) or bound (udp) sockets of the port in a /proc/net table."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or int(words[1].rpartition(":")[2], 16) != port:
            continue
        if words[9] != "0" and (protocol != "tcp" or words[3] == "0A"):
            found.add(words[9])
    return found


def _holds(pid: str, wanted: set[str]) -> bool:
    try:
        for fd in os.scandir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(fd.path) in wanted:
                    return True
            except OSError:
                continue
    except OSError:
        pass
    return False


def _described(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return f"{comm.read().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"
