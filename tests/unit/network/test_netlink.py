from __future__ import annotations

import struct

import pytest

from orchestra.network import netlink
from orchestra.network.bridge import group_of, link_name, short_hash
from orchestra.network.dns import redirect
from orchestra.network.model import NetworkSpec
from orchestra.paths import Paths


def test_attributes_are_padded_and_read_back() -> None:
    data = netlink.attribute(1, b"abc") + netlink.nested(2, netlink.word(5, 7))
    assert len(data) % 4 == 0
    found = netlink.attributes(data)
    assert found[1] == b"abc" and netlink.attributes(found[2])[5] == struct.pack("=I", 7)
    assert netlink.attributes(b"\x01\x00\x01\x00" + data) == {}
    assert netlink.attributes(data[:6]) == {}


def test_veth_message() -> None:
    request = netlink.link_add_veth(
        "ov1", master=7, group=9, mtu=1400, peer="eth0", peer_mac="02:00:00:00:00:01", netns_fd=5
    )
    packed = request.pack(3)
    length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", packed)
    assert (length, kind, sequence) == (len(packed), netlink.RTM_NEWLINK, 3)
    assert flags == netlink.NLM_F_CREATE | netlink.NLM_F_EXCL | netlink.NLM_F_ACK | netlink.NLM_F_REQUEST
    outer = netlink.attributes(request.body[16:])
    assert outer[netlink.IFLA_IFNAME] == b"ov1\0" and outer[netlink.IFLA_MASTER] == struct.pack("=I", 7)
    info = netlink.attributes(outer[netlink.IFLA_LINKINFO])
    peer = netlink.attributes(netlink.attributes(info[netlink.IFLA_INFO_DATA])[netlink.VETH_INFO_PEER][16:])
    assert peer[netlink.IFLA_IFNAME] == b"eth0\0" and peer[netlink.IFLA_ADDRESS] == b"\2\0\0\0\0\1"
    for end in (outer, peer):
        assert end[netlink.IFLA_NUM_TX_QUEUES] == end[netlink.IFLA_NUM_RX_QUEUES] == struct.pack("=I", 1)
    assert peer[netlink.IFLA_NET_NS_FD] == struct.pack("=I", 5) and peer[netlink.IFLA_MTU] == struct.pack(
        "=I", 1400
    )


def test_addresses_and_routes() -> None:
    four = netlink.attributes(netlink.address_add(3, "10.0.0.2", 24).body[8:])
    assert four[netlink.IFA_LOCAL] == bytes([10, 0, 0, 2]) and four[netlink.IFA_BROADCAST] == bytes(
        [10, 0, 0, 255]
    )
    six = netlink.address_add(3, "fd00::2", 64)
    assert netlink.attributes(six.body[8:])[netlink.IFA_FLAGS] == struct.pack("=I", netlink.IFA_F_NODAD)
    route = netlink.attributes(netlink.route_default(3, "10.0.0.1", 4).body[12:])
    assert route == {netlink.RTA_OIF: struct.pack("=I", 3), netlink.RTA_GATEWAY: bytes([10, 0, 0, 1])}


def test_only_the_last_of_several_asks_for_an_answer() -> None:
    request = netlink.link_up(1)
    assert struct.unpack_from("=H", request.pack(1, ack=False), 6)[0] & netlink.NLM_F_ACK == 0
    with netlink.Netlink() as link:
        assert link.index("lo") == 1
        for name in ("no-such-link-0", "a-name-that-is-much-too-long"):
            with pytest.raises(OSError):
                link.index(name)


def test_macs() -> None:
    assert netlink.mac_for("10.0.0.2") == "02:42:0a:00:00:02"
    assert (
        netlink.mac_for("fd00::2").startswith("02:66:")
        and len(netlink.mac_bytes(netlink.mac_for("fd00::2"))) == 6
    )
    for text in ("02:00", "zz:00:00:00:00:00", ""):
        with pytest.raises(ValueError):
            netlink.mac_bytes(text)


def test_names_of_links(tmp_path: object) -> None:
    for environment in ({"ORCHESTRA_ROOT": "/x"}, {"ORCHESTRA_ROOT": "/y"}):
        paths = Paths.from_environment(environment)
        name = link_name(paths, NetworkSpec("n", "n"))
        assert name.startswith(f"oc{paths.name}") and len(name) == 15
        assert 0x40000000 <= group_of(paths, NetworkSpec("n", "n")) < 0x80000000
    assert len(short_hash("x", 7)) == 7 and short_hash("x", 7) != short_hash("y", 7)


def test_the_redirect_batch_is_well_formed() -> None:
    messages = redirect.batch(1053, 2053)
    assert len(messages) == 6 and len(redirect.batch(1053, 2053, replace=True)) == 8
    assert [struct.unpack_from("=H", message, 6)[0] & netlink.NLM_F_ACK for message in messages] == [0] * 5 + [4]
    for message in messages:
        assert struct.unpack_from("=I", message)[0] == len(message) and len(message) % 4 == 0
        assert netlink.attributes(message[20:])[1] == b"orchestra-dns\0"
    assert sum(struct.pack("!H", 1053) in message for message in messages) == 2
