"""How a connection to an origin comes about: directly, or through an http, https or SOCKS 5 proxy.

Invariants: what fails between us and the proxy is a :class:`ProxyProblem` that names the proxy (never its
user); the proxy's credentials are in the CONNECT request or in what the caller sends by absolute address,
nowhere else; TLS with the registry runs end to end, whatever the proxy is.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from orchestra.images.registry import socks
from orchestra.images.registry.nested import NestedTls
from orchestra.images.registry.proxies import Proxy

Watch = Callable[[socket.socket], None]
"""Is given the fresh socket, before anything is said over it."""


class ProxyProblem(OSError):
    """``final``: asking again does not help. ``error`` is what happened, None where the proxy answered."""

    def __init__(self, proxy: Proxy, error: OSError | None, text: str = "", *, final: bool = False) -> None:
        super().__init__(text)
        self.text, self.proxy, self.error, self.final = text, proxy, error, final


@dataclass(frozen=True, slots=True)
class Route:
    """``tls`` is the registry's context (None: plain http), ``proxy_tls`` that of an https proxy."""

    host: str
    port: int
    timeout: float
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None
    proxy_tls: ssl.SSLContext | None = None


def make_client(route: Route, watch: Watch) -> http.client.HTTPConnection:
    """Not yet connected."""
    if route.tls is not None:
        return _TlsClient(route, watch)
    return _Client(route, watch)


class _Client(http.client.HTTPConnection):
    """Plain http; through a proxy (not SOCKS) it speaks with the proxy, in absolute addresses."""

    def __init__(self, route: Route, watch: Watch) -> None:
        self._route, self._watch = route, watch
        proxy = route.proxy
        self._by_proxy = proxy if proxy and not proxy.socks else None
        host, port = (
            (self._by_proxy.host, self._by_proxy.port) if self._by_proxy else (route.host, route.port)
        )
        super().__init__(host, port, timeout=route.timeout)
        self._create_connection = self._make  # the one place where http.client makes its socket

    def _make(self, address: tuple[str, int], timeout: float, _source: object = None) -> socket.socket:
        proxy = self._route.proxy
        try:
            link = socket.create_connection((proxy.host, proxy.port) if proxy else address, timeout)
            try:
                self._watch(link)
                if proxy and proxy.socks:
                    socks.connect(link, proxy.user, address)
                elif proxy and self._route.proxy_tls is not None:
                    link = self._route.proxy_tls.wrap_socket(link, server_hostname=proxy.host)
            except BaseException:
                link.close()
                raise
        except OSError as error:
            if proxy is None:
                raise
            final = isinstance(error, ssl.SSLCertVerificationError | socket.gaierror)
            raise ProxyProblem(proxy, error, final=final) from None
        return link


class _TlsClient(_Client):
    """TLS with the registry, behind a proxy's CONNECT where there is one."""

    default_port = 443

    def __init__(self, route: Route, watch: Watch) -> None:
        super().__init__(route, watch)
        if self._by_proxy:
            proxy = self._by_proxy
            headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else {}
            self.set_tunnel(f"[{route.host}]" if ":" in route.host else route.host, route.port, headers)

    def connect(self) -> None:
        assert self._route.tls is not None
        super().connect()
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock = cast(socket.socket, NestedTls(self.sock, self._route.tls, self._route.host))
        else:
            self.sock = self._route.tls.wrap_socket(self.sock, server_hostname=self._route.host)

    def _tunnel(self) -> None:
        try:
            super()._tunnel()  # type: ignore[misc]
        except http.client.HTTPException as error:
            raise ProxyProblem(self._proxy, None, f"not an HTTP answer ({type(error).__name__})") from None
        except OSError as error:
            if error.errno is not None or isinstance(error, TimeoutError):
                raise ProxyProblem(self._proxy, error) from None
            said = str(error).removeprefix("Tunnel connection failed: ")  # "403 Forbidden"
            raise ProxyProblem(
                self._proxy, None, f"answered {_line(said)}", final=said.startswith("4")
            ) from None

    @property
    def _proxy(self) -> Proxy:
        assert self._by_proxy is not None
        return self._by_proxy


def _line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:120].strip()
