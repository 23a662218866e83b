"""A host to break: the test's thread in a fresh network namespace with an ``outside`` behind eth0.

``Lab`` moves the calling thread; everything the test does (and starts) then sees the lab as the host.
Containers are ``unshare -n`` sleepers; ``inside`` runs a function in one, sockets made there stay there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestra.linux import netns
from orchestra.network import netlink
from orchestra.paths import Paths

_Result = TypeVar("_Result")
HOST_IP, OUTSIDE_IP = "198.51.100.2", "198.51.100.1"
HOST_IP6, OUTSIDE_IP6 = "2001:db8::2", "2001:db8::1"


class Box:
    """A process in a network namespace of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        home = os.stat("/proc/thread-self/ns/net").st_ino
        self.pid = self.process.pid
        wait_for(lambda: os.stat(f"/proc/{self.pid}/ns/net").st_ino != home)
        self.fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def inside(self, func: Callable[[], _Result]) -> _Result:
        return netns.run_in(self.fd, func)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)

    def serve(self, port: int, *, host: str = "0.0.0.0", udp: bool = False) -> None:
        """Answers every connection (or packet) with the peer's address, until the box is closed."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def make() -> socket.socket:
            kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
            made = socket.socket(family, kind)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            if not udp:
                made.listen()
            return made

        server = self.inside(make)
        threading.Thread(target=_answer, args=(server, udp), daemon=True).start()

    def ask(self, host: str, port: int, *, udp: bool = False, timeout: float = 3.0) -> str:
        """What a server answers: our address as it sees it. OSError when it cannot be reached."""
        return self.inside(lambda: ask(host, port, udp=udp, timeout=timeout))


def ask(host: str, port: int, *, udp: bool = False, timeout: float = 3.0) -> str:
    """See ``Box.ask``; from the namespace of the calling thread."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as client:
        client.settimeout(timeout)
        client.connect((host, port))
        client.send(b"?")
        return client.recv(200).decode()


def reachable(call: Callable[[], str]) -> bool:
    try:
        call()
    except OSError:
        return False
    return True


def _answer(server: socket.socket, udp: bool) -> None:
    with server:
        while True:
            try:
                if udp:
                    _, peer = server.recvfrom(2000)
                    server.sendto(peer[0].encode(), peer)
                    continue
                client, peer = server.accept()
                with client:
                    client.sendall(peer[0].encode())
            except OSError:
                return


def wait_for(check: Callable[[], object], timeout: float = 20.0) -> None:
    """Waits until ``check`` is true; AssertionError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if check():
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


class Lab:
    """The calling thread's own host, until ``close``."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(root / "lib", root / "run", "lab")
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.boxes: list[Box] = []
        self.host = Box()
        self.outside = Box()
        netns.enter(self.host.fd)
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):  # inherited from the real host
            Path("/proc/sys/net", name).write_text("0")
        self._wire()

    def _wire(self) -> None:
        def far() -> None:
            index = socket.if_nametoindex("out0")
            with netlink.Netlink() as link:
                link.run(
                    [netlink.link_up(1), *_addresses(index, OUTSIDE_IP, OUTSIDE_IP6), netlink.link_up(index)]
                )

        with netlink.Netlink() as link:
            pair = netlink.link_add_veth(
                "eth0", master=0, group=0, mtu=0, peer="out0", peer_mac="", netns_fd=self.outside.fd
            )
            link.run([netlink.link_up(1), pair])
            index = socket.if_nametoindex("eth0")
            link.run([*_addresses(index, HOST_IP, HOST_IP6), netlink.link_up(index)])
            self.outside.inside(far)
            link.run(
                [netlink.route_default(index, OUTSIDE_IP, 4), netlink.route_default(index, OUTSIDE_IP6, 6)]
            )

    def box(self) -> Box:
        self.boxes.append(Box())
        return self.boxes[-1]

    def close(self) -> None:
        netns.enter(self._home)
        os.close(self._home)
        for box in [*self.boxes, self.host, self.outside]:
            box.close()


def _addresses(index: int, *addresses: str) -> list[netlink.Request]:
    return [netlink.address_add(index, address, 64 if ":" in address else 24) for address in addresses]


def nft_tables() -> str:
    """The names of all tables."""
    program = shutil.which("nft") or "/usr/sbin/nft"
    return subprocess.run([program, "list", "tables"], capture_output=True, text=True, check=True).stdout


def links() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
