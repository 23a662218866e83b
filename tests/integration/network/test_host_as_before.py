"""The same on the machine's own network: everything is as before afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.netlab import Box, ask, links, nft_tables, reachable, wait_for

from orchestra.network import forwarding, netlink
from orchestra.network.manager import Networks
from orchestra.network.model import EndpointSpec, NetworkSpec, PortSpec, forwards
from orchestra.network.ports import choose
from orchestra.paths import Paths

pytestmark = pytest.mark.root


def test_nothing_is_left(tmp_path: Path) -> None:
    paths = Paths.from_environment({}, root=str(tmp_path))
    manager = Networks(paths)
    spec = manager.create(NetworkSpec("probe", "probe"))
    box = Box()
    try:
        assert not manager.warnings(spec)
        (endpoint,) = manager.attach(box.pid, [EndpointSpec("c", spec, ipv4=_second(spec))])
        port = choose("", 80, start=os.getpid() % 20000)
        manager.hold_ports("c", [port])
        manager.sync_firewall([spec], forwards([endpoint], [port]))
        box.serve(80)
        assert ask("127.0.0.1", port.published) == spec.gateway(4)
        for address in manager.host_addresses():
            if ":" not in address:
                assert ask(address, port.published)
                break
        assert not manager.port_is_free(port)
        with netlink.Netlink() as link:
            from pyroute2 import IPRoute

            with IPRoute() as ipr:
                (seen,) = ipr.get_links(ifname=manager.link_name(spec))
                ours = next(other for other in link.links() if other.name == manager.link_name(spec))
                assert (seen["index"], seen.get_attr("IFLA_GROUP")) == (ours.index, ours.group)
        assert paths.scope in nft_tables()
        manager.release_ports("c")
        manager.sync_firewall([spec], [])
        assert not reachable(lambda: ask("127.0.0.1", port.published, timeout=1))
    finally:
        box.close()
        manager.close()
        manager.remove(spec)
        manager.sync_firewall([], [])
    assert manager.port_is_free(PortSpec("127.0.0.1", port.published, 80))
    assert paths.scope not in nft_tables()
    assert manager.link_name(spec) not in links()
    wait_for(lambda: not any(name.startswith("ov" + paths.name[:6]) for name in links()))
    if not any(name.startswith("oc") for name in links()):  # no other engine is at work
        assert not forwarding.Forwarding().note.exists()


def _second(spec: NetworkSpec) -> str:
    import ipaddress

    return str(ipaddress.ip_network(spec.cidrs[0])[2])
