"""How registries are reached: mirrors, insecure registries, certificate directories, limits.

Read from ``/etc/orchestra/registries.json`` (``~/.config/orchestra/registries.json`` for a user), or
the file that ``ORCHESTRA_REGISTRIES`` names. Every key is optional; unknown ones are refused::

    {
      "mirrors": {"docker.io": ["https://mirror.example", "http://10.0.0.1:5000/hub"]},
      "insecure": ["registry.lan:5000", "10.0.0.0/8"],
      "certificates": ["/etc/orchestra/certs.d"],
      "token_hosts": {"registry.lan": ["login.lan"]},
      "downloads": 4, "uploads": 4, "attempts": 5,
      "connect_timeout": 15, "idle_timeout": 30, "answer_timeout": 90
    }

``insecure`` hosts may speak plain HTTP, or TLS with any certificate. Loopback addresses are insecure by
themselves, as with docker. ``certificates`` are directories like docker's ``certs.d``: ``<host[:port]>/``
with ``*.crt`` (authorities) and pairs of ``*.cert`` and ``*.key`` (our own). ``SSL_CERT_FILE`` and
``SSL_CERT_DIR`` are honoured by the TLS library.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestra.errors import Location
from orchestra.images.registry.problems import RegistryError

SYSTEM_FILE = Path("/etc/orchestra/registries.json")
CERTIFICATES = ("/etc/orchestra/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d")
HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_NUMBERS = {"downloads", "uploads", "attempts", "connect_timeout", "idle_timeout", "answer_timeout"}
_KEYS = _NUMBERS | {"mirrors", "insecure", "certificates", "token_hosts"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server to ask. ``host`` is ``name[:port]`` (for credentials and certificates), ``prefix`` a path
    before ``/v2``, ``scheme`` empty where it must be found out."""

    host: str
    scheme: str = "https"
    prefix: str = ""
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: tuple[str, ...] = ()
    certificates: tuple[str, ...] = CERTIFICATES
    token_hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    downloads: int = 4
    uploads: int = 4
    attempts: int = 5
    connect_timeout: float = 15.0
    idle_timeout: float = 30.0
    answer_timeout: float = 90.0

    def endpoints(self, domain: str) -> list[Endpoint]:
        """Where to pull from: the mirrors in order, then the registry itself."""
        mirrors = [self._mirror(url) for url in self.mirrors.get(domain, ())]
        return [*mirrors, self.origin(domain)]

    def origin(self, domain: str) -> Endpoint:
        if domain == HUB:
            return Endpoint(HUB_HOST)
        return Endpoint(domain, "" if self.is_insecure(domain) else "https")

    def is_insecure(self, host: str) -> bool:
        """Whether ``host[:port]`` may speak plain HTTP or show any certificate."""
        name = host_name(host)
        if is_loopback(name):
            return True
        explicit = {
            url_host(url) for urls in self.mirrors.values() for url in urls if url.startswith("http://")
        }
        return host in explicit or any(_matches(pattern, host, name) for pattern in self.insecure)

    def certificate_files(self, host: str) -> tuple[list[Path], list[tuple[Path, Path]]]:
        """Extra authorities, and pairs of own certificate and key, for ``host[:port]``."""
        authorities: list[Path] = []
        own: list[tuple[Path, Path]] = []
        if not _HOST.fullmatch(host) or host.startswith("."):
            return authorities, own
        for folder in self.certificates:
            place = Path(folder) / host
            if not place.is_dir():
                continue
            authorities += sorted(place.glob("*.crt"))
            own += [(c, c.with_suffix(".key")) for c in sorted(place.glob("*.cert"))]
        return authorities, own

    def _mirror(self, url: str) -> Endpoint:
        parts = urlsplit(url)
        return Endpoint(url_host(url), parts.scheme, parts.path.rstrip("/"), mirror=True)


def load(environ: Mapping[str, str]) -> RegistryConfig:
    """The configuration that holds in this environment; defaults where there is no file."""
    named = environ.get("ORCHESTRA_REGISTRIES")
    if named:
        return read(Path(named))
    places = [SYSTEM_FILE]
    if os.geteuid() != 0:
        base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "/"), ".config")
        places.insert(0, Path(base) / "orchestra/registries.json")
    for place in places:
        if place.exists():
            return read(place)
    return RegistryConfig()


def read(path: Path) -> RegistryConfig:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise _wrong(path, f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise _wrong(path, "not a JSON object")
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise _wrong(path, f"unknown key {unknown[0]!r}", hint=f"known are {', '.join(sorted(_KEYS))}")
    return _config(path, data)


def _config(path: Path, data: dict[str, Any]) -> RegistryConfig:
    values: dict[str, Any] = {}
    for key in ("mirrors", "token_hosts"):
        if key in data:
            if not isinstance(data[key], dict):
                raise _wrong(path, f"{key} is not an object")
            values[key] = {str(name): _texts(path, f"{key}.{name}", v) for name, v in data[key].items()}
    for key in ("insecure", "certificates"):
        if key in data:
            values[key] = _texts(path, key, data[key])
    for key in _NUMBERS & set(data):
        number = data[key]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number <= 3600:
            raise _wrong(path, f"{key} is not a number from 1 to 3600")
        values[key] = float(number) if key.endswith("timeout") else max(1, int(number))
    for urls in values.get("mirrors", {}).values():
        for url in urls:
            _check_mirror(path, url)
    return RegistryConfig(**values)


def _check_mirror(path: Path, url: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) and not parts.query
    except ValueError:
        fine = False
    if not fine:
        raise _wrong(path, f"invalid mirror {url[:200]!r}", hint="expected http(s)://host[:port][/path]")


def _texts(path: Path, key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _wrong(path, f"{key} is not a list of texts")
    return tuple(value)


def _wrong(path: Path, why: str, hint: str | None = None) -> RegistryError:
    error = RegistryError(why, hint=hint)
    error.location = Location(str(path))
    return error


def host_name(host: str) -> str:
    """``host[:port]`` without the port and the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def url_host(url: str) -> str:
    """``name[:port]`` of an address, the port left out where it is the scheme's own."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return host.removesuffix(default) if default else host


def is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _matches(pattern: str, host: str, name: str) -> bool:
    if "/" in pattern:
        try:
            return ipaddress.ip_address(name) in ipaddress.ip_network(pattern, strict=False)
        except ValueError:
            return False
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return pattern in (host, name)
