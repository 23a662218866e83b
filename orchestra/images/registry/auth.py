"""Answers to ``401``: challenges (RFC 7235), basic and bearer tokens with a cache.

Credentials are sent to the registry they belong to, and to the token server it names only if that is the
registry's own host or a neighbour (``auth.docker.io`` for ``registry-1.docker.io``), or one that
``token_hosts`` of the configuration lists; and only by TLS, save for insecure hosts. To any other token
server we go without credentials.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from orchestra.images.registry.config import Endpoint, RegistryConfig, host_name, is_loopback, url_host
from orchestra.images.registry.credentials import Credentials, CredentialStore
from orchestra.images.registry.http import Request, Transport
from orchestra.images.registry.problems import AuthenticationError, RegistryError, shown

_TOKEN_LIMIT = 1 << 20
_CLIENT = "orchestra"
_PIECE = re.compile(
    r"""\s*,?\s*(?:(?P<key>[A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]+))
    |(?P<scheme>[A-Za-z0-9!#$%&'*+.^_`|~-]+)(?=\s|,|$))""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    values: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """All challenges of the ``WWW-Authenticate`` headers; what makes no sense ends the reading."""
    found: list[tuple[str, dict[str, str]]] = []
    for text in headers:
        position = 0
        while position < len(text):
            match = _PIECE.match(text, position)
            if match is None or match.end() == position:
                break
            position = match.end()
            if match["scheme"]:
                found.append((match["scheme"].lower(), {}))
            elif found:
                quoted = match["quoted"]
                value = match["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                found[-1][1].setdefault(match["key"].lower(), value)
    return [Challenge(scheme, values) for scheme, values in found]


@dataclass(slots=True)
class _Token:
    header: str
    until: float


class Authenticator:
    """For one endpoint; thread-safe. ``given`` overrides what the credential files say."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        config: RegistryConfig,
        store: CredentialStore | None,
        given: Credentials | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._config = config
        self._find: Callable[[], Credentials | None] = lambda: (
            given if given is not None else store.get(endpoint.host) if store else None
        )
        self._credentials: Credentials | None = None
        self._looked = False
        self._tokens: dict[str, _Token] = {}
        self._challenge: Challenge | None = None
        self._lock = threading.Lock()

    @property
    def credentials(self) -> Credentials | None:
        with self._lock:
            if not self._looked:
                self._credentials, self._looked = self._find(), True
            return self._credentials

    def header(self, scope: str) -> str:
        """What to send at once, from earlier answers; empty where nothing is known yet."""
        token = self._tokens.get(scope)
        if token and token.until > time.monotonic():
            return token.header
        if self._challenge is not None and self._challenge.scheme == "bearer":
            return self._bearer(self._challenge, scope)
        if self._challenge is not None and self.credentials:
            return self.credentials.basic()
        return ""

    def answer(self, headers: list[str], scope: str, base: str) -> str:
        """The ``Authorization`` for the challenges of a 401 of ``base``."""
        self._tokens.pop(scope, None)
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(headers))}
        if "bearer" in challenges:
            self._challenge = challenges["bearer"]
            return self._bearer(challenges["bearer"], scope)
        if "basic" in challenges:
            return self._basic(base)
        wanted = ", ".join(challenges) or "nothing known"
        raise AuthenticationError(f"{self._endpoint.host} asks for authentication by {wanted}", status=401)

    def _basic(self, base: str) -> str:
        credentials = self.credentials
        if credentials is None or not credentials.username:
            raise AuthenticationError(
                f"{self._endpoint.host} asks for a user name and password",
                status=401,
                hint=f"run `orchestra login {self._endpoint.host}`",
            )
        self._refuse_plain(base, self._endpoint.host)
        self._challenge = Challenge("basic")
        return credentials.basic()

    def _bearer(self, challenge: Challenge, scope: str) -> str:
        credentials = self.credentials
        if credentials and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        realm = challenge.values.get("realm", "")
        if not _is_usable(realm):
            raise AuthenticationError(f"{self._endpoint.host} names no usable token server")
        if credentials and not self.trusted(realm):
            credentials = None
        if credentials:
            self._refuse_plain(realm, url_host(realm))
        data = self._fetch(realm, challenge, scope, credentials)
        token = data.get("token") or data.get("access_token")
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise AuthenticationError(f"token server {shown(realm)} answered without a token")
        life = data.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) and life > 0 else 60.0
        header = f"Bearer {token}"
        self._tokens[scope] = _Token(header, time.monotonic() + max(5.0, min(seconds, 3600.0) * 0.8))
        return header

    def _fetch(
        self, realm: str, challenge: Challenge, scope: str, credentials: Credentials | None
    ) -> dict[str, Any]:
        service = challenge.values.get("service", "")
        query = [("service", service)] if service else []
        query += [("scope", part) for part in (scope or challenge.values.get("scope", "")).split() if part]
        if credentials and credentials.identity_token:
            form = [*query, ("grant_type", "refresh_token"), ("client_id", _CLIENT)]
            form = [*form, ("refresh_token", credentials.identity_token)]
            body = urlencode(_joined(form)).encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
            request = Request("POST", realm, headers, lambda: [body], len(body))
        else:
            if credentials and credentials.username:
                query += [("account", credentials.username), ("client_id", _CLIENT)]
            joint = "&" if urlsplit(realm).query else "?"
            url = f"{realm}{joint}{urlencode(query)}" if query else realm
            basic = credentials.basic() if credentials and credentials.username else ""
            request = Request("GET", url, {"Accept": "application/json"}, authorization=basic)
        response = self._transport.send(request)
        text = response.read(_TOKEN_LIMIT, "token")
        if response.status == 200:
            return _object(text, realm)
        self._refused(realm, response.status, response.retry_after, bool(credentials))
        raise AssertionError("unreachable")

    def _refused(self, realm: str, status: int, retry_after: float | None, with_credentials: bool) -> None:
        if status == 429 or status >= 500:
            raise RegistryError(
                f"token server {shown(realm)} answered {status}",
                status=status,
                transient=True,
                retry_after=retry_after,
            )
        if with_credentials:
            raise AuthenticationError(
                f"{self._endpoint.host} does not accept the credentials (token server said {status})",
                status=status,
                hint=f"run `orchestra login {self._endpoint.host}`",
            )
        raise AuthenticationError(
            f"{self._endpoint.host} gives no token without credentials ({status})",
            status=status,
            hint=f"run `orchestra login {self._endpoint.host}`; or the repository does not exist",
        )

    def trusted(self, realm: str) -> bool:
        """Whether the token server at ``realm`` may see this registry's credentials."""
        registry, server = host_name(self._endpoint.host).lower(), host_name(url_host(realm))
        if registry == server or (is_loopback(registry) and is_loopback(server)):
            return True
        allowed = self._config.token_hosts.get(self._endpoint.host, ())
        if server in allowed or url_host(realm) in allowed:
            return True
        return _neighbours(registry, server)

    def _refuse_plain(self, url: str, host: str) -> None:
        if urlsplit(url).scheme == "http" and not self._config.is_insecure(host):
            raise AuthenticationError(f"will not send credentials to {shown(url)} by plain http")


def _is_usable(realm: str) -> bool:
    try:
        return urlsplit(realm).scheme in ("http", "https")
    except ValueError:
        return False


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """OAuth2 wants one ``scope`` with spaces."""
    form: dict[str, str] = {}
    for key, value in pairs:
        form[key] = f"{form[key]} {value}" if key in form else value
    return form


def _object(text: bytes, realm: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise AuthenticationError(f"token server {shown(realm)} answered no JSON object")
    return data


def _neighbours(one: str, other: str) -> bool:
    """Names of the same owner, as far as names can tell: they share a domain of two labels, or of three
    where the two are as short as a public suffix (co.uk)."""
    if any(part.replace(".", "").isdigit() or ":" in part for part in (one, other)):
        return False
    common: list[str] = []
    for mine, theirs in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if mine != theirs:
            break
        common.insert(0, mine)
    public = len(common) == 2 and all(len(label) <= 3 for label in common)
    return len(common) >= (3 if public else 2)
