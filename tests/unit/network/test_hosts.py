from __future__ import annotations

import pytest

from orchestra.errors import OrchestraError
from orchestra.network.hosts import (
    ResolverSettings,
    container_resolver,
    hostname_file,
    hosts_file,
    parse_resolv_conf,
    resolv_conf,
)


def test_hosts_file() -> None:
    text = hosts_file(
        "web", ["10.0.0.2", "fd00::2"], domainname="example.org",
        extra_hosts=["db=10.1.1.1", "six=[fd00::9]", "old:10.1.1.2", "host.docker.internal=host-gateway"], host_gateway=["10.0.0.1"],
    )  # fmt: skip
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[6:] == [
        "10.1.1.1\tdb",
        "fd00::9\tsix",
        "10.1.1.2\told",
        "10.0.0.1\thost.docker.internal",
        "10.0.0.2\tweb.example.org web",
        "fd00::2\tweb.example.org web",
    ]
    assert hostname_file("web") == "web\n"


@pytest.mark.parametrize("entry", ["db", "db=x", "=10.0.0.1", "a b=10.0.0.1", "h=host-gateway"])
def test_wrong_extra_hosts(entry: str) -> None:
    with pytest.raises(OrchestraError):
        hosts_file("x", [], extra_hosts=[entry])


def test_resolv_conf() -> None:
    text = "# c\nnameserver 9.9.9.9\nnameserver nonsense\nnameserver fe80::1%eth0\ndomain a\nsearch b c\noptions edns0 ndots:2\n\nfoo\n"
    host = parse_resolv_conf(text)
    assert host == ResolverSettings(("9.9.9.9", "fe80::1%eth0"), ("b", "c"), ("edns0", "ndots:2"))
    ours = container_resolver(host, embedded=True, options=["timeout:1"], search=["x.org"])
    assert resolv_conf(ours) == "nameserver 127.0.0.11\nsearch x.org\noptions timeout:1 ndots:0\n"
    assert container_resolver(host, embedded=False, search=["."], dns=["1.1.1.1"]) == ResolverSettings(
        ("1.1.1.1",), (), ("edns0", "ndots:2")
    )
    assert resolv_conf(ResolverSettings()) == ""
