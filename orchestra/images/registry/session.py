"""What one pull, push or login works with: configuration, connections, credentials, clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from orchestra.images.reference import Reference
from orchestra.images.registry.auth import Authenticator
from orchestra.images.registry.client import RegistryClient
from orchestra.images.registry.config import Endpoint, RegistryConfig, load
from orchestra.images.registry.credentials import Credentials, CredentialStore
from orchestra.images.registry.http import Transport


class Session:
    """``auth`` is used for the registry itself and never for a mirror; without it the credential files
    of ``environ`` are asked."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        config: RegistryConfig | None = None,
        auth: Credentials | None = None,
    ) -> None:
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.config = config or load(self.environ)
        self.transport = Transport(self.config, self.environ)
        self.credentials = CredentialStore(self.environ)
        self.stop = threading.Event()
        self._auth = auth

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop.set()
        self.transport.close()

    def client(self, endpoint: Endpoint) -> RegistryClient:
        given = None if endpoint.mirror else self._auth
        auth = Authenticator(endpoint, self.transport, self.config, self.credentials, given)
        return RegistryClient(endpoint, self.transport, auth, self.config, stop=self.stop)

    def clients(self, reference: Reference) -> list[RegistryClient]:
        """The mirrors and then the registry."""
        return [self.client(endpoint) for endpoint in self.config.endpoints(reference.domain)]

    def origin(self, reference: Reference) -> RegistryClient:
        return self.client(self.config.origin(reference.domain))
