"""The resolver inside containers' network namespaces, with real sockets and a real upstream server."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.netlab import OUTSIDE_IP, Box, Lab, wait_for

from orchestra.errors import OrchestraError
from orchestra.network.dns import message
from orchestra.network.dns.forward import Forwarder
from orchestra.network.dns.server import DnsServer, listen
from orchestra.network.dns.zone import NameRecord, View
from orchestra.network.endpoint import loopback_up
from orchestra.network.netlink import link_up

pytestmark = pytest.mark.root


def query(name: str, kind: int = message.A, *, edns: int = 0) -> bytes:
    labels = [part.encode() for part in name.split(".")]
    opt = b"\0" + struct.pack("!HHIH", message.OPT, edns, 0, 0) if edns else b""
    header = struct.pack("!HHHHHH", 0x1234, message.RD, 1, 0, 0, 1 if opt else 0)
    return header + message.write_labels(labels) + struct.pack("!HH", kind, message.IN) + opt


class Reply:
    def __init__(self, data: bytes) -> None:
        number, flags, _, answers, _, _ = struct.unpack_from("!HHHHHH", data)
        assert number == 0x1234
        self.rcode, self.truncated, self.values = flags & 0xF, bool(flags & message.TC), []
        _, offset = message.read_name(data, 12)
        offset += 4
        for _ in range(answers):
            _, offset = message.read_name(data, offset)
            kind, _, _, length = struct.unpack_from("!HHIH", data, offset)
            raw = data[offset + 10 : offset + 10 + length]
            if kind == message.PTR:
                self.values.append(b".".join(message.read_name(raw, 0)[0]).decode())
            else:
                self.values.append(
                    socket.inet_ntop(socket.AF_INET if kind == message.A else socket.AF_INET6, raw)
                )
            offset += 10 + length


def udp(box: Box, data: bytes, timeout: float = 5.0) -> Reply:
    def call() -> Reply:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(timeout)
            link.connect(("127.0.0.11", 53))
            link.send(data)
            return Reply(link.recv(65535))

    return box.inside(call)


def tcp(box: Box, data: bytes) -> Reply:
    def call() -> Reply:
        with socket.create_connection(("127.0.0.11", 53), timeout=5) as link:
            link.sendall(struct.pack("!H", len(data)) + data)
            stream = link.makefile("rb")
            (length,) = struct.unpack("!H", stream.read(2))
            return Reply(stream.read(length))

    return box.inside(call)


def upstream(box: Box) -> None:
    """A name server in the box that knows every name as 203.0.113.7."""

    def answer(data: bytes) -> bytes:
        asked = message.parse_query(data)
        return message.respond(asked, [message.address_answer("203.0.113.7", 60)])

    def make() -> tuple[socket.socket, socket.socket]:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.bind(("0.0.0.0", 53))
        stream = socket.socket()
        stream.bind(("0.0.0.0", 53))
        stream.listen()
        return datagram, stream

    datagram, stream = box.inside(make)

    def serve_udp() -> None:
        while True:
            data, peer = datagram.recvfrom(4096)
            datagram.sendto(answer(data), peer)

    def serve_tcp() -> None:
        while True:
            with stream.accept()[0] as link:
                (length,) = struct.unpack("!H", link.recv(2))
                data = answer(link.recv(length))
                link.sendall(struct.pack("!H", len(data)) + data)

    for work in (serve_udp, serve_tcp):
        threading.Thread(target=work, daemon=True).start()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture
def server(lab: Lab) -> Iterator[DnsServer]:
    made = DnsServer(servers=lambda: (OUTSIDE_IP,), forwarder=Forwarder(timeout=1.0))
    made.start()
    yield made
    made.stop()


def container(lab: Lab, server: DnsServer, name: str, view: View) -> Box:
    box = lab.box()
    loopback_up(box.fd)
    server.serve(name, box.pid, view)
    return box


def test_names(lab: Lab, server: DnsServer) -> None:
    assert link_up(1)
    for number in (1, 2, 3):
        record = NameRecord(
            "n1", "shop_default", (f"shop-web-{number}", "web"), (f"172.20.0.{number}", f"fd01::{number}")
        )
        server.directory.put(f"c{number}", [record])
    server.directory.put("c4", [NameRecord("n2", "shop_back", ("shop-db-1", "db"), ("172.21.0.9",))])
    server.directory.put("c5", [NameRecord("n1", "shop_default", ("shop-off-1", "off"))])
    upstream(lab.outside)
    box = container(lab, server, "c1", View(("n1",), links={"store": "web", "gone": "db"}))
    assert udp(box, query("shop-web-2")).values == ["172.20.0.2"]
    first = {udp(box, query("WEB")).values[0] for _ in range(6)}
    assert first == {"172.20.0.1", "172.20.0.2", "172.20.0.3"}
    assert len(tcp(box, query("web.shop_default", message.AAAA)).values) == 3
    assert sorted(udp(box, query("store")).values) == ["172.20.0.1", "172.20.0.2", "172.20.0.3"]
    assert udp(box, query("2.0.20.172.in-addr.arpa", message.PTR)).values == ["shop-web-2.shop_default"]
    assert udp(box, query("off")).rcode == message.NXDOMAIN
    assert udp(box, query("example.org")).values == ["203.0.113.7"]
    assert tcp(box, query("example.org", edns=4096)).values == ["203.0.113.7"]
    assert udp(box, query("db")).values == ["203.0.113.7"]  # another network's name: not ours to know
    server.serve("c1", box.pid, View(("n1", "n2"), forward=False))
    assert udp(box, query("db")).values == ["172.21.0.9"]
    assert udp(box, query("db", message.AAAA)).rcode == message.NOERROR
    assert udp(box, query("example.org")).rcode == message.NXDOMAIN


def test_large_answers_are_cut_over_udp_and_whole_over_tcp(lab: Lab, server: DnsServer) -> None:
    for number in range(100):
        server.directory.put(
            f"c{number}", [NameRecord("n", "net", (f"x-{number}", "many"), (f"10.0.0.{number}",))]
        )
    box = container(lab, server, "c0", View(("n",)))
    small, large = udp(box, query("many")), udp(box, query("many", edns=4096))
    assert small.truncated and 0 < len(small.values) < 40
    assert not large.truncated and len(large.values) == 100
    assert len(tcp(box, query("many")).values) == 100


def test_a_program_of_the_container_can_serve_port_53(lab: Lab, server: DnsServer) -> None:
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = container(lab, server, "c", View(("n",)))
    upstream(box)  # binds 0.0.0.0:53, udp and tcp
    assert udp(box, query("me")).values == ["10.0.0.1"]
    assert tcp(box, query("me")).values == ["10.0.0.1"]

    def own() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(5)
            link.sendto(query("me"), ("127.0.0.1", 53))
            return link.recv(4096)

    assert Reply(box.inside(own)).values == ["203.0.113.7"]
    server.serve("c", box.pid, View(("n",), servers=("127.0.0.1",)))
    assert udp(box, query("elsewhere.example")).values == ["203.0.113.7"]  # its own server, asked within


def test_no_answer_from_outside_is_a_failure_in_bounded_time(lab: Lab, server: DnsServer) -> None:
    box = container(lab, server, "c", View(("n",), servers=("192.0.2.77",)))
    started = time.monotonic()
    assert udp(box, query("example.org"), timeout=20).rcode == message.SERVFAIL
    assert time.monotonic() - started < 15


def test_nonsense_does_no_harm(lab: Lab, server: DnsServer) -> None:
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = container(lab, server, "c", View(("n",)))

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            for data in (
                b"",
                b"x",
                b"\0" * 12,
                b"\xff" * 600,
                query("me")[:-3],
                query("me")[:12] + b"\xc0\x0c\0\1\0\1",
            ):
                link.sendto(data, ("127.0.0.11", 53))
        with socket.create_connection(("127.0.0.11", 53), timeout=5) as link:
            link.sendall(b"\xff\xffhello")

    box.inside(send)
    assert udp(box, query("me")).values == ["10.0.0.1"]
    assert tcp(box, query("me")).values == ["10.0.0.1"]


def test_the_end_of_a_container_and_a_new_server(lab: Lab, server: DnsServer) -> None:
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = container(lab, server, "c", View(("n",)))
    second = DnsServer(server.directory)
    second.start()
    second.serve("c", box.pid, View(("n",)))  # as a daemon that came back does
    server.forget("c")
    assert udp(box, query("me")).values == ["10.0.0.1"]
    assert second._clients
    box.process.kill()
    box.process.wait()
    wait_for(lambda: not second._clients)
    second.stop()
    second.stop()


def test_a_server_that_comes_back_serves_on(lab: Lab, server: DnsServer) -> None:
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = container(lab, server, "c", View(("n",)))
    server.stop()
    third = DnsServer(server.directory)
    third.start()
    started = time.monotonic()
    third.serve("c", box.pid, View(("n",)))
    assert udp(box, query("me")).values == ["10.0.0.1"] and tcp(box, query("me")).values == ["10.0.0.1"]
    assert time.monotonic() - started < 5
    third.stop()


def test_sockets_made_beforehand(lab: Lab, server: DnsServer) -> None:
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = lab.box()
    loopback_up(box.fd)
    server.serve("c", box.pid, View(("n",)), box.inside(listen))
    assert udp(box, query("me")).values == ["10.0.0.1"] and tcp(box, query("me")).values == ["10.0.0.1"]
    server.stop()
    sockets = box.inside(listen)
    with pytest.raises(OrchestraError, match="not running"):
        server.serve("c", box.pid, View(("n",)), sockets)
    assert [one.fileno() for one in sockets] == [-1, -1]
    assert not server._clients and not server._sources


def test_containers_come_and_go_beside_one_that_stays(lab: Lab, server: DnsServer) -> None:
    """Descriptors are used again at once; whoever stays is never taken for one that went."""
    server.directory.put("c", [NameRecord("n", "net", ("me",), ("10.0.0.1",))])
    box = container(lab, server, "c", View(("n",)))
    others = [lab.box() for _ in range(3)]
    for other in others:
        loopback_up(other.fd)
    ended = threading.Event()
    failures: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            while not ended.is_set():
                name = f"{number}-{time.monotonic()}"
                server.serve(name, others[number].pid, View(("n",)))
                server.forget(name)
        except BaseException as problem:
            failures.append(problem)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(len(others))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            assert udp(box, query("me")).values == ["10.0.0.1"]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not failures
    wait_for(lambda: list(server._clients) == ["c"])
    assert len(server._sources) == 3
