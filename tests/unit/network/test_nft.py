from __future__ import annotations

import pytest

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.network.firewall import Bridge
from orchestra.network.firewall.nft import NftFirewall, ruleset
from orchestra.network.firewall.none import NoFirewall
from orchestra.network.model import Forward, PortSpec

FRONT = Bridge("n1", "oc1", gateways=("10.0.0.1", "fd00::1"), subnets=("10.0.0.0/24", "fd00::/64"))
INNER = Bridge("n2", "oc2", internal=True, gateways=("10.0.1.1",), subnets=("10.0.1.0/24",))


def line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if f" {name} {{" in line)


def test_no_bridge_no_table() -> None:
    assert ruleset("t", [], []) == "table inet t\ndelete table inet t\n"


def test_sets() -> None:
    text = ruleset("t", [INNER, FRONT], [], ["eth0"])
    assert line(text, "bridges").strip() == 'set bridges { type ifname; elements = { "oc1", "oc2" } }'
    assert line(text, "masqueraded").count("oc1") == 1 and "oc2" not in line(text, "masqueraded")
    assert '"oc2" . 10.0.1.1' in line(text, "gateways4") and "oc1" not in line(text, "gateways4")
    assert '"oc1" . fd00::/64' in line(text, "local6")
    assert '"eth0"' in line(text, "guarded")
    assert text == ruleset("t", [FRONT, INNER], [], ["eth0"])


def test_published_ports() -> None:
    forwards = [
        Forward(PortSpec("", 80, 8080), "n1", "10.0.0.2", "fd00::2"),
        Forward(PortSpec("127.0.0.1", 81, 8081), "n1", "10.0.0.2", "fd00::2"),
        Forward(PortSpec("0.0.0.0", 82, 8082, "udp"), "n1", "10.0.0.2", "fd00::2"),
        Forward(PortSpec("::1", 83, 8083), "n1", "10.0.0.2"),
        Forward(PortSpec("", 84, 8084), "n2", "10.0.1.2"),
        Forward(PortSpec("", 85, 8085), "gone", "10.0.9.2"),
    ]
    text = ruleset("t", [FRONT, INNER], forwards)
    assert "6 . 80 : 10.0.0.2 . 8080, 17 . 82 : 10.0.0.2 . 8082 }" in line(text, "any4")
    assert "elements = { 6 . 80 : fd00::2 . 8080 }" in line(text, "any6")
    assert "elements = { 127.0.0.1 . 6 . 81 : 10.0.0.2 . 8081 }" in line(text, "host4")
    assert "elements" not in line(text, "host6")
    assert line(text, "open4").count("10.0.0.2") == 3 and "808" in line(text, "open6")
    assert "8084" not in text and "8085" not in text


def test_drivers_say_what_they_cannot_do() -> None:
    none = NoFirewall()
    none.sync([FRONT], [], [])
    with pytest.raises(UnsupportedError):
        none.sync([INNER], [], [])
    with pytest.raises(UnsupportedError):
        none.sync([FRONT], [Forward(PortSpec("", 1, 2), "n1", "10.0.0.2")], [])
    with pytest.raises(OrchestraError, match="cannot run /nonexistent/nft"):
        NftFirewall("t", "/nonexistent/nft").sync([FRONT], [], [])
    with pytest.raises(OrchestraError, match="nft refused"):
        NftFirewall("t", "/bin/false").remove()
