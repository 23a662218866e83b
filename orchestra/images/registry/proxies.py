"""Which proxy leads to a host: ``http_proxy``, ``https_proxy``, ``all_proxy`` and ``no_proxy``.

As curl and Go read them: lower case wins over upper case; loopback never goes through a proxy;
``no_proxy`` entries are ``*``, ``host``, ``.suffix``, ``host:port``, addresses and CIDR ranges. The proxy's own
address is ``http://``, ``https://`` or ``socks5://`` (``socks5h://``), with a user where it wants one.
"""

from __future__ import annotations

import ipaddress
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from orchestra.errors import UnsupportedError
from orchestra.images.registry.config import is_loopback
from orchestra.images.registry.problems import RegistryError

_PORTS = {"http": 80, "https": 443, "socks5": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    authorization: str = ""
    scheme: str = "http"
    user: tuple[str, str] | None = None

    @property
    def socks(self) -> bool:
        return self.scheme == "socks5"

    @property
    def name(self) -> str:
        """``host[:port]`` for messages and certificates, the port left out where it is https' own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if (self.scheme, self.port) == ("https", 443) else f"{host}:{self.port}"


def proxy_for(environ: Mapping[str, str], scheme: str, host: str, port: int) -> Proxy | None:
    if is_loopback(host) or _bypassed(_variable(environ, "no_proxy"), host, port):
        return None
    address = _variable(environ, f"{scheme}_proxy") or _variable(environ, "all_proxy")
    return _parse(address) if address else None


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _parse(address: str) -> Proxy:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
        port = parts.port or _PORTS.get(scheme, 0)
    except ValueError:
        raise RegistryError("invalid proxy address in the environment") from None
    if scheme not in _PORTS:
        raise UnsupportedError(
            f"proxies by {parts.scheme}:// are not supported",
            hint="use an http://, https:// or socks5:// proxy",
        )
    if not parts.hostname:
        raise RegistryError("the proxy address in the environment has no host")
    if parts.username is None:
        return Proxy(parts.hostname, port, scheme=scheme)
    user = unquote(parts.username), unquote(parts.password or "")
    token = "" if scheme == "socks5" else "Basic " + b64encode(":".join(user).encode()).decode()
    return Proxy(parts.hostname, port, token, scheme, user)


def _bypassed(exceptions: str, host: str, port: int) -> bool:
    for entry in exceptions.replace(",", " ").split():
        pattern = entry.lower()
        if pattern == "*" or _range_holds(pattern, host):
            return True
        name, colon, wanted = pattern.rpartition(":")
        if colon and wanted.isdigit() and "]" not in wanted and ":" not in name:
            if int(wanted) != port:
                continue
            pattern = name
        bare = pattern.removeprefix("*").removeprefix(".")
        if bare and (host == bare or host.endswith(f".{bare}")):
            return True
    return False


def _range_holds(pattern: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return False
