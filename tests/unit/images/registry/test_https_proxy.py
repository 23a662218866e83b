"""Proxies that are spoken to by TLS, for plain registries and for TLS within TLS; what the proxy may see."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import Proxy, certificate
from support.registry import Fault, Registry
from support.trees import archive

from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.http import Request, Transport
from orchestra.images.registry.problems import ConnectionFailed
from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

NAME = "registry.example"
LAYERS = [archive(("data", "file", {"content": os.urandom(900_000)})), archive(("more", "file", {"content": b"m" * 300_000}))]
AUTH = Credentials("me", "s3cret")
USERS = {"who": "p@ss"}


class Lab:
    """Certificates of a proxy and of a registry, and a directory that says who is trusted."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.proxy_tls = certificate(place / "proxy", "127.0.0.1")
        self.registry_tls = certificate(place / "registry", NAME)

    def trust(self, host: str, which: tuple[str, str]) -> None:
        folder = self.place / "certs" / host
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(which[0], folder / "ca.crt")

    def config(self, *insecure: str, patience: float = 10.0) -> RegistryConfig:
        return RegistryConfig(
            certificates=(str(self.place / "certs"),), insecure=insecure, attempts=2,
            connect_timeout=patience, idle_timeout=patience, answer_timeout=patience,
        )  # fmt: skip

    def environ(self, proxy: Proxy, user: str = "who:p%40ss@") -> dict[str, str]:
        address = f"https://{user}{proxy.address}"
        return {"HTTP_PROXY": address, "HTTPS_PROXY": address, "HOME": str(self.place), "PATH": os.environ["PATH"]}

    @contextlib.contextmanager
    def registry(self, **how: object) -> Iterator[tuple[Registry, Proxy]]:
        with (
            Registry(**how) as registry,  # type: ignore[arg-type]
            Proxy(registry.host, tls=self.proxy_tls, users=USERS) as proxy,
        ):
            self.trust(proxy.address, self.proxy_tls)
            yield registry, proxy


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def ask(config: RegistryConfig, environ: dict[str, str], url: str, **how: str) -> bytes:
    with Transport(config, environ) as transport:
        return transport.send(Request("GET", url, **how)).read(1 << 20)  # type: ignore[arg-type]


def test_plain_registry_by_absolute_addresses(lab: Lab) -> None:
    with lab.registry(auth="basic") as (registry, proxy):
        digest = registry.add_image("app", "1", LAYERS)
        image = pull(ImageStore(lab.place / "s"), f"{NAME}/app:1", auth=AUTH, config=lab.config(NAME), environ=lab.environ(proxy) | {"HTTPS_PROXY": ""})
        assert image.digest == digest
        assert any(line.startswith(f"GET http://{NAME}/v2/app/blobs/") for line in proxy.lines)
        assert not any(line.startswith("CONNECT") for line in proxy.lines)
        assert set(proxy.authorizations) == {"Basic d2hvOnBAc3M="}
        assert len(proxy.authorizations) == len(proxy.lines)


@pytest.mark.parametrize("auth", ["none", "basic", "token"])
def test_tls_within_tls(lab: Lab, auth: str) -> None:
    with lab.registry(tls=lab.registry_tls, auth=auth, realm=f"https://{NAME}/token") as (registry, proxy):
        lab.trust(NAME, lab.registry_tls)
        config, environ = lab.config(), lab.environ(proxy)
        digest = registry.add_image("app", "1", LAYERS)
        store = ImageStore(lab.place / "s")
        image = pull(store, f"{NAME}/app:1", auth=AUTH, config=config, environ=environ)
        assert image.digest == digest and len(store.layers(image)) == 2
        store.tag(image.id, f"{NAME}/other:2")
        registry.mount = False
        assert push(store, f"{NAME}/other:2", auth=AUTH, config=config, environ=environ, chunk=200_000) == digest
        assert {line.split(" ")[:2] == ["CONNECT", f"{NAME}:443"] for line in proxy.lines} == {True}
        assert len(proxy.authorizations) == len(proxy.lines)
        assert not any("proxy-authorization" in seen.headers for seen in registry.log)
        assert len(proxy.passed) > 900_000
        for word in (b"HTTP/1.1", b"uthorization", b"s3cret"):
            assert word not in proxy.passed  # TLS runs from end to end


def test_connections_through_it_are_used_again(lab: Lab) -> None:
    with lab.registry(tls=lab.registry_tls) as (registry, proxy):
        lab.trust(NAME, lab.registry_tls)
        with Transport(lab.config(), lab.environ(proxy)) as transport:
            for _ in range(4):
                assert transport.send(Request("GET", f"https://{NAME}/v2/")).read(100) == b"{}"
            registry.faults.append(Fault("GET", "/v2/", reset=True))
            assert transport.send(Request("GET", f"https://{NAME}/v2/")).read(100) == b"{}"
        assert len(proxy.lines) == 2


def test_breaks_and_stalls_inside_the_tunnel(lab: Lab) -> None:
    with lab.registry(tls=lab.registry_tls) as (registry, proxy):
        lab.trust(NAME, lab.registry_tls)
        digest = registry.add_blob("app", b"x" * 500_000)
        url = f"https://{NAME}/v2/app/blobs/{digest}"
        for fault in (Fault("GET", "blobs", truncate=70_000), Fault("GET", "blobs", hang=True), Fault("GET", "blobs", drip=0.05)):
            registry.faults.append(fault)
            begun = time.monotonic()
            with pytest.raises(ConnectionFailed, match=r"broke off|timed out|too slow"):
                ask(lab.config(patience=1.0), lab.environ(proxy), url)
            assert time.monotonic() - begun < 15


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_nobody_vouches_for(lab: Lab, scheme: str) -> None:
    with lab.registry(tls=lab.registry_tls if scheme == "https" else None) as (registry, proxy):
        lab.trust(proxy.address, lab.registry_tls)  # another authority
        with pytest.raises(ConnectionFailed) as caught:
            ask(lab.config(NAME, "127.0.0.1"), lab.environ(proxy), f"{scheme}://{NAME}/v2/")
        assert f"the proxy {proxy.address}: certificate not trusted" in caught.value.brief
        assert f"certs.d/{proxy.address}/ca.crt" in str(caught.value.hint)
        assert not caught.value.transient
        assert proxy.lines == [] and registry.log == []  # nothing was said to it, no password above all


def test_a_certificate_for_another_name(lab: Lab) -> None:
    lab.proxy_tls = certificate(lab.place / "other", "10.1.2.3")
    with lab.registry() as (_, proxy), pytest.raises(ConnectionFailed, match=r"the proxy .* not trusted"):
        ask(lab.config(NAME), lab.environ(proxy), f"http://{NAME}/v2/")


def test_a_registry_nobody_vouches_for(lab: Lab) -> None:
    with lab.registry(tls=lab.registry_tls) as (registry, proxy):
        lab.trust(NAME, lab.proxy_tls)
        with pytest.raises(ConnectionFailed) as caught:
            ask(lab.config(), lab.environ(proxy), f"https://{NAME}/v2/", authorization="Basic eA==")
        assert "certificate not trusted" in caught.value.brief and "proxy" not in caught.value.brief
        assert f"certs.d/{NAME}/ca.crt" in str(caught.value.hint)
        assert registry.log == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("user", ["", "who:wrong@"])
def test_a_proxy_that_wants_another_user(lab: Lab, scheme: str, user: str) -> None:
    with lab.registry() as (registry, proxy):
        with pytest.raises(ConnectionFailed) as caught:
            ask(lab.config(NAME), lab.environ(proxy, user), f"{scheme}://{NAME}/v2/")
        assert f"the proxy {proxy.address}: answered 407" in caught.value.brief
        assert not caught.value.transient and "wrong" not in caught.value.brief
        assert registry.log == []


def test_a_proxy_that_speaks_no_tls(lab: Lab) -> None:
    with Registry() as registry, Proxy(registry.host) as proxy:
        with pytest.raises(ConnectionFailed, match=f"the proxy {proxy.address}: "):
            ask(lab.config(NAME, patience=2.0), lab.environ(proxy), f"http://{NAME}/v2/")
        assert registry.log == []


def test_a_redirect_elsewhere_goes_through_the_proxy_without_the_password(lab: Lab) -> None:
    with lab.registry() as (registry, proxy):
        registry.faults.append(Fault("GET", "/v2/", redirect="http://cdn.example/v2/x"))
        registry.faults.append(Fault("GET", "/v2/x", status=200, body=b"there"))
        got = ask(lab.config(NAME, "cdn.example"), lab.environ(proxy), f"http://{NAME}/v2/", authorization="Basic eA==")
        assert got == b"there"
        assert [seen.headers["host"] for seen in registry.log] == [NAME, "cdn.example"]
        assert [seen.authorization for seen in registry.log] == ["Basic eA==", ""]
        assert proxy.authorizations == ["Basic d2hvOnBAc3M="] * 2


def test_hosts_past_the_proxy_get_nothing_of_its_user(lab: Lab) -> None:
    with lab.registry() as (registry, proxy):
        assert ask(lab.config(), lab.environ(proxy), f"{registry.url}/v2/") == b"{}"  # loopback: no proxy
        assert "proxy-authorization" not in registry.log[0].headers
        assert proxy.lines == []


@pytest.mark.parametrize("through", ["proxy", "tunnel", "registry"])
def test_a_handshake_that_drips_ends(lab: Lab, through: str) -> None:
    """Each byte comes in time, the whole does not."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall({"tunnel": b"HTTP/1.1 200 "}.get(through, b"\x16\x03\x03\x30\x00"))
            while not over.wait(0.1):
                client.sendall(b"\x02")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        environ = {"https_proxy": f"{'https' if through == 'proxy' else 'http'}://{address}"}
        url = f"https://{address}/v2/" if through == "registry" else f"https://{NAME}/v2/"
        begun = time.monotonic()
        with pytest.raises(ConnectionFailed, match="timed out"):
            ask(lab.config(patience=0.5), environ, url)
        assert time.monotonic() - begun < 15
        over.set()
        thread.join()
