"""Real bridges, veths and firewall rules, in a host of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.netlab import (
    HOST_IP,
    OUTSIDE_IP,
    OUTSIDE_IP6,
    Box,
    Lab,
    ask,
    links,
    nft_tables,
    reachable,
    wait_for,
)

from orchestra.compose.model import IpamPool
from orchestra.errors import ConflictError, UnsupportedError
from orchestra.network import forwarding, netlink
from orchestra.network.ipam import choose_address
from orchestra.network.manager import Networks
from orchestra.network.model import EndpointSpec, Forward, NetworkSpec, PortSpec, forwards

pytestmark = pytest.mark.root


class World:
    """A lab with an engine's networks, that gives out addresses."""

    def __init__(self, root: Path) -> None:
        self.lab = Lab(root)
        self.manager = Networks(self.lab.paths)
        self.networks: dict[str, NetworkSpec] = {}
        self.used: set[str] = set()
        self.published: list[Forward] = []

    def network(
        self, name: str, *, pools: tuple[IpamPool, ...] = (), ipv6: bool = False, **fields: object
    ) -> NetworkSpec:
        spec = NetworkSpec(f"id-{name}", name, **fields)  # type: ignore[arg-type]
        self.networks[name] = self.manager.create(spec, pools=pools, ipv6=ipv6)
        self.sync()
        return self.networks[name]

    def sync(self) -> None:
        self.manager.sync_firewall(self.networks.values(), self.published)

    def endpoint(self, network: NetworkSpec, **fields: object) -> EndpointSpec:
        addresses = {}
        for version in (4, 6):
            addresses[f"ipv{version}"] = choose_address(network, version, self.used)
        self.used |= set(addresses.values())
        return EndpointSpec("c", network, **addresses, **fields)  # type: ignore[arg-type]

    def container(
        self, *networks: NetworkSpec, ports: tuple[PortSpec, ...] = ()
    ) -> tuple[Box, list[EndpointSpec]]:
        box = self.lab.box()
        endpoints = list(self.manager.attach(box.pid, [self.endpoint(network) for network in networks]))
        if ports:
            self.published += forwards(endpoints, ports)
            self.sync()
        return box, endpoints

    def close(self) -> None:
        self.manager.close()
        for spec in self.networks.values():
            self.manager.remove(spec)
        self.manager.sync_firewall([], [])
        try:
            assert forwarding.read_sysctl("net/ipv4/ip_forward") == "0"
            assert not Path(
                f"/run/orchestra-forwarding.{os.stat('/proc/thread-self/ns/net').st_ino}.json"
            ).exists()
            assert links() <= {"lo", "eth0", "ifb0", "ifb1"}
            assert nft_tables() == ""
        finally:
            self.lab.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_containers_of_a_network_reach_each_other_the_host_and_the_outside(world: World) -> None:
    net = world.network("front")
    one, _ = world.container(net)
    two, (there,) = world.container(net)
    two.serve(80)
    world.lab.outside.serve(81)
    world.lab.host.serve(82)
    assert one.ask(there.ipv4, 80).startswith("172.17.")
    assert one.ask(OUTSIDE_IP, 81) == HOST_IP  # masqueraded
    assert one.ask(net.gateway(4), 82)
    assert ask(there.ipv4, 80) == net.gateway(4)


def test_networks_are_isolated_from_one_another(world: World) -> None:
    one, _ = world.container(world.network("a"))
    two, (there,) = world.container(world.network("b"))
    two.serve(80)
    assert not reachable(lambda: one.ask(there.ipv4, 80, timeout=1))
    both, _ = world.container(world.networks["a"], world.networks["b"])
    assert both.ask(there.ipv4, 80)


def test_a_container_is_not_reached_from_outside_without_a_published_port(world: World) -> None:
    two, (there,) = world.container(world.network("a"))
    two.serve(80)

    def route() -> None:
        import subprocess

        subprocess.run(["ip", "route", "add", there.network.subnets[0].cidr, "via", HOST_IP], check=True)

    world.lab.outside.inside(route)
    assert not reachable(lambda: world.lab.outside.ask(there.ipv4, 80, timeout=1))


def test_an_internal_network_has_no_way_out(world: World) -> None:
    inner = world.network("inner", internal=True)
    outer = world.network("outer")
    one, _ = world.container(inner)
    two, (there,) = world.container(inner)
    three, (other,) = world.container(outer, ports=(PortSpec("", 8080, 80),))
    two.serve(80)
    three.serve(80)
    world.lab.outside.serve(81)
    world.lab.host.serve(82)
    assert one.ask(there.ipv4, 80)
    assert not reachable(lambda: one.ask(OUTSIDE_IP, 81, timeout=1))

    def force_route() -> None:
        import socket

        with netlink.Netlink() as link:
            link.run([netlink.route_default(socket.if_nametoindex("eth0"), inner.gateway(4), 4)])

    one.inside(force_route)
    for host, port in (
        (OUTSIDE_IP, 81),
        (HOST_IP, 82),
        (other.ipv4, 80),
        (HOST_IP, 8080),
        (inner.gateway(4), 8080),
    ):
        assert not reachable(lambda host=host, port=port: one.ask(host, port, timeout=1)), (host, port)
    assert not reachable(lambda: three.ask(there.ipv4, 80, timeout=1))
    assert ask(there.ipv4, 80)  # the host itself gets in (health checks)


@pytest.mark.parametrize("bridge_netfilter", ["1", "0"])
def test_published_ports(world: World, bridge_netfilter: str) -> None:
    switch = "net/bridge/bridge-nf-call-iptables"
    if forwarding.read_sysctl(switch):
        forwarding.write_sysctl(switch, bridge_netfilter)
    net = world.network("front")
    ports = (PortSpec("", 8080, 80), PortSpec("127.0.0.1", 8081, 80), PortSpec("", 8053, 53, "udp"))
    server, _ = world.container(net, ports=ports)
    server.serve(80)
    server.serve(53, udp=True)
    neighbour, _ = world.container(net)
    stranger, _ = world.container(world.network("other"))
    outside = world.lab.outside
    assert ask("127.0.0.1", 8080) == net.gateway(4)
    assert ask(HOST_IP, 8080)
    assert ask("127.0.0.1", 8081)
    assert not reachable(lambda: ask(HOST_IP, 8081, timeout=1))
    assert outside.ask(HOST_IP, 8080) == OUTSIDE_IP  # the real client address
    assert not reachable(lambda: outside.ask(HOST_IP, 8081, timeout=1))
    assert neighbour.ask(HOST_IP, 8080)  # hairpin on the same bridge
    assert server.ask(HOST_IP, 8080)  # and to itself
    assert stranger.ask(HOST_IP, 8080)
    assert ask("127.0.0.1", 8053, udp=True)
    assert outside.ask(HOST_IP, 8053, udp=True) == OUTSIDE_IP
    world.published.clear()
    world.sync()
    assert not reachable(lambda: ask("127.0.0.1", 8080, timeout=1))
    assert not reachable(lambda: outside.ask(HOST_IP, 8053, udp=True, timeout=1))


def test_loopback_of_the_host_stays_closed_to_containers_and_neighbours(world: World) -> None:
    net = world.network("front")
    box, _ = world.container(net, ports=(PortSpec("127.0.0.1", 8081, 80),))
    box.serve(80)
    world.lab.host.serve(9000, host="127.0.0.1")

    def route_loopback(gateway: str, device: str) -> None:
        import subprocess

        subprocess.run(["ip", "route", "del", "local", "127.0.0.0/8", "table", "local"], check=False)
        subprocess.run(["ip", "route", "add", "127.0.0.0/8", "via", gateway, "dev", device], check=True)

    def attack(box: Box, source: str, port: int) -> None:
        import socket

        def connect() -> None:
            with socket.socket() as client:
                client.settimeout(1)
                client.bind((source, 0))
                client.connect(("127.0.0.1", port))

        with pytest.raises(OSError):
            box.inside(connect)

    outside = world.lab.outside
    outside.inside(lambda: route_loopback(HOST_IP, "out0"))
    attack(outside, OUTSIDE_IP, 8081)
    other, (where,) = world.container(net)
    other.inside(lambda: route_loopback(net.gateway(4), "eth0"))
    attack(other, where.ipv4, 9000)


def test_ipv6(world: World) -> None:
    net = world.network("six", ipv6=True)
    assert net.gateway(6).startswith("fd")
    server, (there,) = world.container(net, ports=(PortSpec("", 8080, 80),))
    server.serve(80, host="::")
    client, _ = world.container(net)
    world.lab.outside.serve(81, host="::")
    assert client.ask(there.ipv6, 80)
    assert client.ask(OUTSIDE_IP6, 81) == "2001:db8::2"
    assert world.lab.outside.ask("2001:db8::2", 8080) == OUTSIDE_IP6
    assert ask("2001:db8::2", 8080)
    assert ask("127.0.0.1", 8080)


def test_options_names_and_connect_later(world: World) -> None:
    net = world.network(
        "opts", options={"com.docker.network.driver.mtu": "1400", "com.docker.network.bridge.name": "mybr0"}
    )
    other = world.network("later")
    box = world.lab.box()
    first = world.endpoint(
        net,
        interface_name="wan",
        mac="02:00:00:00:00:77",
        sysctls=(("net.ipv4.conf.IFNAME.log_martians", "1"),),
    )
    attached = world.manager.attach(box.pid, [first, world.endpoint(net)])
    assert [e.interface_name for e in attached] == ["wan", "eth0"]
    added = world.manager.attach(box.pid, [world.endpoint(other, gw_priority=5)], present=attached)
    assert added[0].interface_name == "eth1"
    assert "mybr0" in links()

    def look() -> tuple[str, int, str, str]:
        from pyroute2 import IPRoute

        with IPRoute() as ipr:
            (link,) = ipr.get_links(ifname="wan")
            (route,) = ipr.get_default_routes(family=2)
            sysctl = Path("/proc/sys/net/ipv4/conf/wan/log_martians").read_text().strip()
            return (
                link.get_attr("IFLA_ADDRESS"),
                link.get_attr("IFLA_MTU"),
                route.get_attr("RTA_GATEWAY"),
                sysctl,
            )

    assert box.inside(look) == ("02:00:00:00:00:77", 1400, other.gateway(4), "1")
    world.manager.detach(box.pid, added[0], attached)
    assert box.inside(look)[2] == net.gateway(4)


def test_without_icc_only_published_ports_are_reached(world: World) -> None:
    net = world.network("quiet", options={"com.docker.network.bridge.enable_icc": "false"})
    one, (there,) = world.container(net, ports=(PortSpec("", 8080, 80),))
    one.serve(80)
    two, _ = world.container(net)
    world.lab.outside.serve(81)
    assert two.ask(OUTSIDE_IP, 81)
    assert not reachable(lambda: two.ask(there.ipv4, 80, timeout=1))
    assert ask("127.0.0.1", 8080)


def test_macvlan_reaches_the_outside_directly(world: World) -> None:
    pool = IpamPool("198.51.100.0/24", "198.51.100.64/28", OUTSIDE_IP)
    net = world.network("lan", driver="macvlan", options={"parent": "eth0"}, pools=(pool,))
    box, (there,) = world.container(net)
    assert there.ipv4 == "198.51.100.64"
    world.lab.outside.serve(81)
    assert box.ask(OUTSIDE_IP, 81) == there.ipv4


def test_a_subnet_in_use_is_refused(world: World) -> None:
    with pytest.raises(ConflictError, match="in use on this machine"):
        world.network("lan", pools=(IpamPool("198.51.100.0/24"),))
    assert links() == {"lo", "eth0"} | (links() & {"ifb0", "ifb1"})


def test_unknown_driver(world: World) -> None:
    with pytest.raises(UnsupportedError):
        world.manager.create(NetworkSpec("x", "x", driver="overlay"))


def test_a_burst_is_fast_and_removal_takes_everything(world: World) -> None:
    net = world.network("burst")
    boxes = [world.lab.box() for _ in range(20)]
    endpoints = [world.endpoint(net) for _ in boxes]
    started = time.monotonic()
    for box, endpoint in zip(boxes, endpoints, strict=True):
        world.manager.attach(box.pid, [endpoint])
    spent = time.monotonic() - started
    print(f"attach: {spent / len(boxes) * 1000:.2f} ms each")
    assert spent < 10
    assert boxes[0].inside(links) == {"lo", "eth0"} | (boxes[0].inside(links) - {"eth0"})
    assert sum(name.startswith("ov") for name in links()) == 20
    for box in boxes[:10]:
        box.process.kill()
        box.process.wait()
        with suppress(OSError):
            os.close(box.fd)
        box.fd = os.open("/dev/null", os.O_RDONLY)
    wait_for(lambda: sum(name.startswith("ov") for name in links()) == 10)
    again = NetworkSpec("id-burst", "burst", subnets=net.subnets)
    world.manager.create(again)  # complete what is there already
    world.manager.remove(net)
    wait_for(lambda: not any(name.startswith("ov") for name in links()))


def test_a_refusal_among_several_requests(tmp_path: Path) -> None:
    """The kernel goes on after it, the first is told, and the socket can be used on."""
    lab = Lab(tmp_path)
    try:
        with netlink.Netlink() as link:
            adds = [netlink.link_add_bridge(name, mac="02:00:00:00:00:01", mtu=0, group=0) for name in ("one", "two")]
            for requests in ([netlink.link_up(9999), adds[0]], [adds[1], netlink.link_up(9999), adds[1]]):
                with pytest.raises(netlink.NetlinkError, match="set link 9999 up"):
                    link.run(requests)
            with pytest.raises(netlink.NetlinkError, match="add bridge two"):
                link.run([adds[1]])
            link.run([netlink.link_delete("one"), netlink.link_delete("two"), netlink.link_delete("two")])
            assert not {"one", "two"} & {found.name for found in link.links()}
    finally:
        lab.close()
