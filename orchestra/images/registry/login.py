"""Logging in to and out of a registry: credentials are tried before they are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestra.errors import UsageError
from orchestra.images.registry.config import HUB, HUB_HOST, RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.session import Session

_SERVER = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")


def server_name(text: str) -> str:
    """``host[:port]`` of what people write: with or without scheme and path; docker.io for the hub."""
    bare = text.strip().removeprefix("https://").removeprefix("http://").partition("/")[0]
    if bare in ("index.docker.io", HUB_HOST, "hub.docker.com"):
        return HUB
    if not _SERVER.fullmatch(bare):
        raise UsageError(f"invalid registry {text[:100]!r}", hint="expected host[:port]")
    return bare


def login(
    server: str,
    credentials: Credentials,
    *,
    environ: Mapping[str, str],
    config: RegistryConfig | None = None,
) -> str:
    """Try the credentials, then keep them; says where."""
    host = server_name(server)
    with Session(environ=environ, config=config, auth=credentials) as session:
        session.client(session.config.origin(host)).ping()
        return session.credentials.save(host, credentials)


def logout(server: str, *, environ: Mapping[str, str]) -> bool:
    """Forget what is kept; whether there was something."""
    with Session(environ=environ, config=RegistryConfig()) as session:
        return session.credentials.erase(server_name(server))
