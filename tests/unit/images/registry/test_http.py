"""The transport alone: proxies, redirects, reuse of connections."""

from __future__ import annotations

import pytest
from support.proxy import Proxy, Socks
from support.registry import Fault, Registry

from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.http import Request, Transport
from orchestra.images.registry.problems import ConnectionFailed, RedirectError, RegistryError

PLAIN = RegistryConfig(insecure=("registry.example",), connect_timeout=5)


def test_through_a_proxy() -> None:
    with Registry() as registry, Proxy(registry.host) as proxy:
        environ = {"http_proxy": f"http://me:pw@{proxy.address}"}
        with Transport(PLAIN, environ) as transport:
            response = transport.send(
                Request("GET", "http://registry.example/v2/", authorization="Basic eA==")
            )
            assert response.read(100) == b"{}"
        assert proxy.lines == ["GET http://registry.example/v2/ HTTP/1.1"]
        assert proxy.authorizations == ["Basic bWU6cHc="]
        assert registry.log[0].headers["host"] == "registry.example"
        assert registry.log[0].authorization == "Basic eA=="


def test_tunnel_through_a_proxy() -> None:
    with Registry() as registry, Proxy(registry.host) as proxy:
        environ = {"https_proxy": f"http://me:pw@{proxy.address}"}
        with Transport(PLAIN, environ) as transport, pytest.raises(ConnectionFailed):
            transport.send(Request("GET", "https://registry.example/v2/"))  # no TLS behind the tunnel
        assert proxy.lines[0].startswith("CONNECT registry.example:443 ")
        assert proxy.authorizations[0] == "Basic bWU6cHc="


def test_connections_are_used_again() -> None:
    with Registry() as registry, Transport(RegistryConfig(), {}) as transport:
        for _ in range(3):
            transport.send(Request("GET", f"{registry.url}/v2/")).drain()
        idle = [connection for group in transport._idle.values() for connection in group]
        assert len(idle) == 1
        registry.faults.append(Fault("GET", "/v2/", reset=True))
        transport.send(Request("GET", f"{registry.url}/v2/")).drain()
        assert len(registry.log) == 5


@pytest.mark.parametrize("target", ["http://cdn.example/x", "gopher://x/", "//user@cdn.example/x"])
def test_bad_redirects(target: str) -> None:
    with Transport(RegistryConfig(), {}) as transport, pytest.raises(RedirectError):
        transport.redirected("https://registry.example/v2/x", target)


def test_good_redirects() -> None:
    with Transport(RegistryConfig(), {}) as transport:
        assert transport.redirected("https://r.example/v2/x", "/y?z=1") == "https://r.example/y?z=1"
        assert transport.redirected("https://r.example/v2/x", "https://c.example/y") == "https://c.example/y"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "https://u:p@r.example/", "https://", "https://r:x/", "x"]
)
def test_bad_addresses(url: str) -> None:
    with Transport(RegistryConfig(), {}) as transport, pytest.raises(RegistryError) as caught:
        transport.send(Request("GET", url))
    assert "u:p" not in str(caught.value)


def test_nobody_listens() -> None:
    with Transport(RegistryConfig(connect_timeout=5), {}) as transport:
        with pytest.raises(ConnectionFailed) as caught:
            transport.send(Request("GET", "http://127.0.0.1:1/v2/"))
        assert caught.value.transient


@pytest.mark.parametrize("user", ["", "me:p%40w@"])
def test_through_a_socks_proxy(user: str) -> None:
    with Registry() as registry, Socks(registry.host, users={"me": "p@w"} if user else None) as proxy:
        with Transport(PLAIN, {"all_proxy": f"socks5://{user}{proxy.address}"}) as transport:
            assert transport.send(Request("GET", "http://registry.example/v2/")).read(100) == b"{}"
        assert proxy.lines == ["registry.example:80"]
        assert proxy.authorizations == (["me:p@w"] if user else [])
        assert registry.log[0].headers["host"] == "registry.example"


@pytest.mark.parametrize(
    ("user", "refuse", "said"),
    [("", 5, "connection refused"), ("me:wrong@", 0, "refuses the user"), ("none", 0, "wants an authentication")],
)
def test_a_socks_proxy_that_refuses(user: str, refuse: int, said: str) -> None:
    with Registry() as registry, Socks(registry.host, users={"me": "p"} if user else None, refuse=refuse) as proxy:
        environ = {"https_proxy": f"socks5h://{user if '@' in user else ''}{proxy.address}"}
        with Transport(PLAIN, environ) as transport, pytest.raises(ConnectionFailed, match=said):
            transport.send(Request("GET", "https://registry.example/v2/"))
