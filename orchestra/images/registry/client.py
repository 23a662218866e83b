"""One registry, spoken to by the OCI distribution specification (end-1 … end-13 of its table).

Every call authenticates as asked, retries what may help (connection errors, 429, 5xx; bounded, with
back-off and ``Retry-After``) and turns refusals into errors with the registry's own words. Bodies of
blobs are handed out as streams; verifying them is the reader's part.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import quote, urlsplit

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.images import mediatype
from orchestra.images.digest import Digest, digest_of, is_digest
from orchestra.images.manifest import MANIFEST_LIMIT
from orchestra.images.problems import DigestError
from orchestra.images.registry.auth import Authenticator
from orchestra.images.registry.config import Endpoint, RegistryConfig, host_name, is_loopback, url_host
from orchestra.images.registry.http import ERROR_LIMIT, Body, Request, Response, Transport
from orchestra.images.registry.problems import AuthenticationError, ConnectionFailed, RegistryError

_T = TypeVar("_T")
_LONGEST_WAIT = 30.0
_ACCEPT = ", ".join(mediatype.ACCEPTED)


class RegistryClient:
    """Thread-safe. ``stop`` ends waiting retries early."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        auth: Authenticator,
        config: RegistryConfig,
        *,
        stop: threading.Event | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self._auth = auth
        self._config = config
        self._stop = stop or threading.Event()
        self._scheme = endpoint.scheme
        self._lock = threading.Lock()

    # --- the protocol ----------------------------------------------------------------------------

    def ping(self) -> None:
        """Whether the registry is one and accepts us (login uses it)."""
        self.call("GET", "", scope="").drain()

    def manifest(self, repository: str, tag_or_digest: str) -> tuple[bytes, str, Digest]:
        """Bytes, content type and digest of a manifest or index; the digest is verified."""
        what = f"{self.endpoint.host}/{repository}:{tag_or_digest}"

        def fetch() -> tuple[bytes, str, Digest]:
            response = self._once("GET", self._manifest_path(repository, tag_or_digest), _pull(repository),
                                  headers={"Accept": _ACCEPT})  # fmt: skip
            data = response.read(MANIFEST_LIMIT, f"manifest of {what}")
            return data, response.header("Content-Type"), self._checked(response, data, tag_or_digest, what)

        return self.retry(fetch)

    def manifest_digest(self, repository: str, tag_or_digest: str) -> Digest | None:
        """The digest alone, by HEAD (which does not count as a pull); None if the registry does not say."""
        path = self._manifest_path(repository, tag_or_digest)
        response = self.call("HEAD", path, scope=_pull(repository), headers={"Accept": _ACCEPT})
        response.drain()
        found = response.header("Docker-Content-Digest")
        return Digest(found) if is_digest(found) else None

    def put_manifest(self, repository: str, tag_or_digest: str, data: bytes, media_type: str) -> None:
        self.call(
            "PUT",
            self._manifest_path(repository, tag_or_digest),
            scope=push_scope(repository),
            headers={"Content-Type": media_type},
            body=lambda: [data],
            length=len(data),
        ).drain()

    def has_blob(self, repository: str, digest: str, *, scope: str = "") -> bool:
        try:
            path = f"{quote(repository)}/blobs/{digest}"
            self.call("HEAD", path, scope=scope or _pull(repository)).drain()
        except NotFoundError:
            return False
        return True

    def open_blob(self, repository: str, digest: str, offset: int = 0) -> tuple[Response, int]:
        """The body of a blob from ``offset`` on, and from where it really begins (0 if the server cannot
        continue). One attempt: the caller counts, since it knows about progress."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            response = self._once(
                "GET", f"{quote(repository)}/blobs/{digest}", _pull(repository), headers=headers
            )
        except RegistryError as error:
            if error.status != 416 or not offset:
                raise
            return self.open_blob(repository, digest, 0)
        if response.status == 206:
            begin = response.header("Content-Range").removeprefix("bytes ").partition("-")[0]
            if begin != str(offset):
                response.close()
                raise RegistryError(f"{self.endpoint.host} answered another range than asked", transient=True)
            return response, offset
        return response, 0

    # --- calls -----------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        length: int = 0,
    ) -> Response:
        """``path`` below ``/v2/`` or a whole address that this registry gave; a status of 2xx, retried."""
        return self.retry(
            lambda: self._once(method, path, scope, headers=headers or {}, body=body, length=length)
        )

    def once(
        self, method: str, path: str, *, scope: str, headers: Mapping[str, str], body: Body, length: int
    ) -> Response:
        """:meth:`call` without retries."""
        return self._once(method, path, scope, headers=headers, body=body, length=length)

    def retry(self, attempt: Callable[[], _T]) -> _T:
        count = 0
        while True:
            try:
                return attempt()
            except RegistryError as error:
                count += 1
                if not error.transient or count >= self._config.attempts:
                    raise
                self.pause(count, error)

    def pause(self, count: int, error: RegistryError) -> None:
        """Wait before attempt ``count`` + 1, as long as the registry wishes within reason."""
        delay = min(0.25 * 2.0**count, 8.0) * random.uniform(0.5, 1.0)
        if error.retry_after is not None:
            delay = max(delay, min(error.retry_after, _LONGEST_WAIT))
        if self._stop.wait(delay):
            raise RegistryError("stopped") from error

    def url(self, path: str) -> str:
        return f"{self._base()}/v2/{path}"

    def _once(
        self,
        method: str,
        path: str,
        scope: str,
        *,
        headers: Mapping[str, str],
        body: Body | None = None,
        length: int = 0,
    ) -> Response:
        url = path if "://" in path else self.url(path)
        own = self._is_own(url)
        token = self._auth.header(scope) if own else ""
        response = self.transport.send(Request(method, url, headers, body, length, token))
        if response.status == 401 and own and self._is_own(response.url):
            challenges = response.headers("WWW-Authenticate")
            response.drain()
            token = self._auth.answer(challenges, scope, url)
            response = self.transport.send(Request(method, url, headers, body, length, token))
        if 200 <= response.status < 300:
            return response
        raise self._refusal(response, method)

    def _refusal(self, response: Response, method: str) -> OrchestraError:
        status, host = response.status, self.endpoint.host
        text = b""
        if method != "HEAD":
            try:
                text = response.read(ERROR_LIMIT)
            except RegistryError:
                response.close()
        else:
            response.drain()
        said = _words(text)
        tail = f": {said}" if said else ""
        if status in (401, 403):
            return AuthenticationError(
                f"{host} denies access{tail}", status=status,
                hint=f"run `orchestra login {host}`, or check the repository's name and rights",
            )  # fmt: skip
        if status == 404:
            return NotFoundError(f"{host} does not have it{tail}")
        transient = status in (408, 425, 429) or status >= 500
        words = "asks for fewer requests (429)" if status == 429 else f"answered {status}"
        return RegistryError(
            f"{host} {words}{tail}",
            status=status,
            transient=transient,
            retry_after=response.retry_after,
        )

    def _is_own(self, url: str) -> bool:
        return (
            url_host(url) == url_host(self._base()) and urlsplit(url).scheme == urlsplit(self._base()).scheme
        )

    def _base(self) -> str:
        with self._lock:
            if not self._scheme:
                self._scheme = self._find_scheme()
        return f"{self._scheme}://{self.endpoint.host}{self.endpoint.prefix}"

    def _find_scheme(self) -> str:
        """http or https, for a host that may speak either: ask without credentials."""
        order = ["http", "https"] if is_loopback(host_name(self.endpoint.host)) else ["https", "http"]
        problem: RegistryError | None = None
        for scheme in order:
            url = f"{scheme}://{self.endpoint.host}{self.endpoint.prefix}/v2/"
            try:
                response = self.transport.send(Request("GET", url))
            except ConnectionFailed as error:
                # an untrusted certificate says more than "no plain http here"
                problem = error if problem is None or error.hint else problem
                continue
            status = response.status
            response.drain()
            if not (scheme == "http" and status == 400):
                return scheme
        raise problem or RegistryError(f"{self.endpoint.host} is no registry")

    def _manifest_path(self, repository: str, tag_or_digest: str) -> str:
        return f"{quote(repository)}/manifests/{quote(tag_or_digest, safe=':')}"

    def _checked(self, response: Response, data: bytes, wanted: str, what: str) -> Digest:
        found = digest_of(data)
        promised = wanted if is_digest(wanted) else response.header("Docker-Content-Digest")
        if promised.startswith("sha256:") and promised != found:
            raise DigestError(f"manifest of {what} has the wrong digest {found}")
        if is_digest(wanted) and not wanted.startswith("sha256:"):
            raise DigestError(f"manifests by {wanted.partition(':')[0]} are not supported")
        return found


def _pull(repository: str) -> str:
    return f"repository:{repository}:pull"


def push_scope(repository: str, source: str = "") -> str:
    """The rights that a push needs; ``source`` is a repository to mount from."""
    scope = f"repository:{repository}:pull,push"
    return f"{scope} {_pull(source)}" if source else scope


def _words(text: bytes) -> str:
    """What the registry says, as one harmless line."""
    try:
        errors = json.loads(text)["errors"]
        said = "; ".join(
            " ".join(str(part) for part in (error.get("code"), error.get("message")) if part)
            for error in errors[:3]
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        said = text[:120].decode("utf-8", "replace") if text and not text.lstrip().startswith(b"<") else ""
    return "".join(letter if letter.isprintable() else " " for letter in said)[:300].strip()
