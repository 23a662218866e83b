from __future__ import annotations

import pytest

from orchestra.compose.model import IpamPool
from orchestra.errors import ConflictError, OrchestraError
from orchestra.network.ipam import DEFAULT_POOLS, Pool, choose_address, choose_subnets, make_pool
from orchestra.network.model import NetworkSpec, Subnet


def test_free_subnets_skip_what_is_busy() -> None:
    (first,) = choose_subnets("a", (), ())
    assert first == Subnet("172.17.0.0/20", "172.17.0.1")
    (second,) = choose_subnets("b", (), ["172.17.0.1/20", "172.17.16.0/24", "fd00::/64", "0.0.0.0/0"])
    assert second.cidr == "172.17.32.0/20"
    (last,) = choose_subnets("c", (), ["172.16.0.0/12", "192.168.0.0/24"])
    assert last.cidr == "192.168.1.0/24"


def test_no_subnet_left() -> None:
    with pytest.raises(OrchestraError, match="no free subnet left for network x"):
        choose_subnets("x", (), ["10.0.0.0/29"], pools=[Pool("10.0.0.0/29", 30)])


def test_both_versions_and_requests() -> None:
    four, six = choose_subnets("dual", (), (), ipv6=True)
    assert four.version == 4 and six.version == 6 and six.cidr.startswith("fd") and six.cidr.endswith("/64")
    assert choose_subnets("dual", (), (), ipv6=True)[1] == six
    assert choose_subnets("dual", (), [six.cidr], ipv6=True)[1] != six
    (only,) = choose_subnets("six", (), (), ipv4=False, ipv6=True)
    assert only.version == 6
    pool = IpamPool("10.5.0.7/16", "10.5.1.0/24", "10.5.0.254", {"router": "10.5.1.1"})
    (chosen,) = choose_subnets("mine", [pool], ["10.6.0.0/16"])
    assert chosen == Subnet("10.5.0.0/16", "10.5.0.254", "10.5.1.0/24", {"router": "10.5.1.1"})


@pytest.mark.parametrize(
    "pool",
    [
        IpamPool("nonsense"),
        IpamPool("10.0.0.0/24", gateway="10.0.1.1"),
        IpamPool("10.0.0.0/24", gateway="x"),
        IpamPool("10.0.0.0/24", "10.0.1.0/25"),
        IpamPool("10.0.0.0/24", "fd00::/64"),
        IpamPool("10.0.0.0/24", aux_addresses={"a": "10.1.0.1"}),
    ],
)
def test_wrong_requests(pool: IpamPool) -> None:
    with pytest.raises(OrchestraError, match="network bad"):
        choose_subnets("bad", [pool], ())


def test_a_requested_subnet_in_use() -> None:
    with pytest.raises(ConflictError, match=r"10\.0\.0\.0/24 overlaps 10\.0\.0\.0/8"):
        choose_subnets("x", [IpamPool("10.0.0.0/24")], ["10.0.0.0/8"])


def test_pools_are_checked() -> None:
    assert make_pool("10.9.0.0/16", 24) == Pool("10.9.0.0/16", 24)
    assert len(DEFAULT_POOLS) == 16
    for base, size in (("10.9.0.0/16", 8), ("10.9.0.0/16", 32), ("x", 24), ("10.9.0.1/16", 24)):
        with pytest.raises(ValueError):
            make_pool(base, size)


SMALL = NetworkSpec("i", "small", subnets=(Subnet("10.0.0.0/29", "10.0.0.1", aux={"r": "10.0.0.3"}),))


def test_addresses_in_order() -> None:
    assert choose_address(SMALL, 4, ()) == "10.0.0.2"
    assert choose_address(SMALL, 4, {"10.0.0.2"}) == "10.0.0.4"
    assert choose_address(SMALL, 4, (), after="10.0.0.4") == "10.0.0.5"
    assert choose_address(SMALL, 4, (), after="10.0.0.6") == "10.0.0.2"  # round
    assert choose_address(SMALL, 4, (), after="10.9.0.6") == "10.0.0.2"
    assert choose_address(SMALL, 6, ()) == ""
    with pytest.raises(ConflictError, match="no free IPv4 address"):
        choose_address(SMALL, 4, {"10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"})


def test_ip_range_and_ipv6() -> None:
    spec = NetworkSpec(
        "i",
        "n",
        subnets=(Subnet("10.0.0.0/16", "10.0.0.1", "10.0.5.0/24"), Subnet("fd00:1::/64", "fd00:1::1")),
    )
    assert choose_address(spec, 4, ()) == "10.0.5.0"
    assert choose_address(spec, 6, ()) == "fd00:1::2"


def test_fixed_addresses() -> None:
    assert choose_address(SMALL, 4, (), wanted="10.0.0.6") == "10.0.0.6"
    with pytest.raises(ConflictError):
        choose_address(SMALL, 4, {"10.0.0.6"}, wanted="10.0.0.6")
    with pytest.raises(ConflictError):
        choose_address(SMALL, 4, (), wanted="10.0.0.1")
    with pytest.raises(OrchestraError, match="not in a subnet"):
        choose_address(SMALL, 4, (), wanted="10.1.0.6")
    with pytest.raises(OrchestraError, match="invalid address"):
        choose_address(SMALL, 4, (), wanted="10.1.0")


def test_addresses_go_round() -> None:
    network = NetworkSpec("n", "n", subnets=(Subnet("10.0.0.0/29", "10.0.0.1", aux={"x": "10.0.0.3"}), Subnet("fd00::/125", "fd00::1")))
    for version, wanted in ((4, ["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]), (6, ["fd00::2", "fd00::3", "fd00::4"])):
        last = ""
        for address in wanted:
            last = choose_address(network, version, (), after=last)
            assert last == address
    taken = {"10.0.0.4": "a", "10.0.0.5": "b"}
    assert choose_address(network, 4, taken, after="10.0.0.2") == "10.0.0.6"
    assert choose_address(network, 6, (), after="10.0.0.4") == "fd00::2"
