from __future__ import annotations

import json

import pytest

from orchestra.network.model import (
    EndpointSpec,
    Forward,
    NetworkSpec,
    PortSpec,
    Subnet,
    forwards,
    gateway_endpoint,
    packed,
)


def net(name: str, **fields: object) -> NetworkSpec:
    return NetworkSpec(f"id-{name}", name, **fields)  # type: ignore[arg-type]


def test_json_and_back() -> None:
    spec = net("a", subnets=(Subnet("10.0.0.0/24", "10.0.0.1", aux={"x": "10.0.0.9"}),), options={"o": "1"})
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.ipv4 and not spec.ipv6 and spec.gateway(4) == "10.0.0.1" and spec.gateway(6) == ""


def test_the_endpoint_that_leads_out() -> None:
    inner, a, b = (EndpointSpec("c", net(n, internal=n == "aa"), ipv4="10.0.0.2") for n in ("aa", "b", "c"))
    assert gateway_endpoint([inner, b, a]) is a
    assert gateway_endpoint([inner]) is None
    strong = EndpointSpec("c", net("z"), gw_priority=1)
    assert gateway_endpoint([a, b, strong]) is strong
    port = PortSpec("", 8080, 80)
    assert forwards([inner, b], [port]) == (Forward(port, "id-c", "10.0.0.2", ""),)
    assert forwards([inner], [port]) == ()
    assert str(port) == "0.0.0.0:8080->80/tcp" and str(PortSpec("::1", 1, 2, "udp")) == "[::1]:1->2/udp"


def test_subnets_know_their_addresses() -> None:
    four, six = Subnet("10.1.16.0/20"), Subnet("fd00:1::/64")
    inside = {"10.1.16.0": four, "10.1.31.255": four, "fd00:1::": six, "fd00:1:0:0:ffff::1": six}
    for address, subnet in inside.items():
        assert subnet.contains(address)
        assert not (six if subnet is four else four).contains(address)
    for address in ("10.1.15.255", "10.1.32.0", "10.2.16.1", "fd00:1:0:1::", "fd00:2::1"):
        assert not four.contains(address) and not six.contains(address)
    for text in ("10.1.16", "10.1.16.1/20", "", "fd00::g", "10.01.16.1"):
        with pytest.raises(ValueError):
            packed(text)
    assert packed("fe80::1%eth0") == packed("fe80::1")
