"""HTTP for registries: pooled connections, TLS, proxies, safe redirects, bounds on everything.

Invariants: credentials go to the host they were given for and nowhere else (a redirect to another host
loses them), a proxy's to the proxy; only http and https are followed, never from https down to plain http, never to an address
with user information inside; plain HTTP only to insecure hosts; an answer's head, a small body and the
rate of a large one have time limits that a dripping server cannot stretch. No retries here.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from orchestra import __version__
from orchestra.images.registry.config import RegistryConfig, host_name, url_host
from orchestra.images.registry.links import ProxyProblem, Route, make_client
from orchestra.images.registry.problems import ConnectionFailed, RedirectError, RegistryError, shown
from orchestra.images.registry.proxies import Proxy, proxy_for
from orchestra.images.registry.watchdog import Watchdog

REDIRECTS = 8
ERROR_LIMIT = 64 << 10
CHUNK = 256 << 10
_LEAST_BYTES = 64 << 10
"""A body must bring this much in each idle-timeout period."""
_UPLOAD_PATIENCE = 5
_HANDSHAKE_PATIENCE = 2
"""In connect timeouts: all of TLS, CONNECT and SOCKS of a new connection."""
_POOL = 8
_FOLLOWED = (301, 302, 303, 307, 308)


def whole_number(text: str) -> int | None:
    """Of a header; int() alone takes other scripts' digits and refuses long ones."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


Body = Callable[[], Iterable[bytes]]
"""Makes the body anew for every attempt."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    length: int = 0
    authorization: str = ""


class Response:
    """An answer whose body is still on the wire. Read it whole or :meth:`close` it."""

    def __init__(
        self, transport: Transport, connection: _Connection, raw: http.client.HTTPResponse, url: str
    ) -> None:
        self.status = raw.status
        self.url = url
        self._transport = transport
        self._connection = connection
        self._raw = raw
        self._open = True

    def header(self, name: str) -> str:
        return self._raw.headers.get(name) or ""

    def headers(self, name: str) -> list[str]:
        return self._raw.headers.get_all(name) or []

    @property
    def length(self) -> int | None:
        """The promised bytes of the body."""
        return whole_number(self.header("Content-Length"))

    @property
    def retry_after(self) -> float | None:
        """The seconds to wait, as the server wishes: a number or a date (RFC 9110, 10.2.3)."""
        text = self.header("Retry-After").strip()
        seconds = whole_number(text)
        if seconds is not None or not text:
            return seconds
        with suppress(ValueError, TypeError, OverflowError, IndexError):
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        return None

    def read(self, limit: int, what: str = "answer") -> bytes:
        """The whole body, which must not have more than ``limit`` bytes."""
        if self.length is not None and self.length > limit:
            self.close()
            raise RegistryError(f"{what} from {shown(self.url)} has more than {limit} bytes")
        parts = bytearray()
        self._connection.watch(self._transport.config.answer_timeout)
        for chunk in self._pieces(keep_deadline=True):
            parts += chunk
            if len(parts) > limit:
                self.close()
                raise RegistryError(f"{what} from {shown(self.url)} has more than {limit} bytes")
        return bytes(parts)

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes; raises :class:`ConnectionFailed` when it breaks off or stalls."""
        return self._pieces(keep_deadline=False)

    def _pieces(self, *, keep_deadline: bool) -> Iterator[bytes]:
        idle = self._transport.config.idle_timeout
        since = 0
        if not keep_deadline:
            self._connection.watch(idle)
        try:
            while True:
                chunk = self._raw.read1(CHUNK)
                if not chunk:
                    break
                since += len(chunk)
                if since >= _LEAST_BYTES and not keep_deadline:
                    since = 0
                    self._connection.watch(idle)
                yield chunk
        except (OSError, http.client.HTTPException) as error:
            failed = self._connection.failure(error, self.url, "reading from")
            self.close()
            raise failed from None
        except BaseException:
            self.close()
            raise
        self._finish()

    def _finish(self) -> None:
        if not self._open:
            return
        left = getattr(self._raw, "length", None)
        late = self._connection.release()
        if left or late:
            self.close()
            why = "too slow" if late else "the connection broke off"
            raise ConnectionFailed(f"reading from {shown(self.url)}: {why}", transient=True)
        self._open = False
        reusable = not self._raw.will_close
        self._raw.close()
        self._transport.give_back(self._connection, reusable=reusable)

    def drain(self) -> None:
        """Finish a body of no interest, so that the connection may be used again."""
        if not self._open:
            return
        if self.length is not None and self.length > ERROR_LIMIT:
            self.close()
            return
        try:
            self.read(ERROR_LIMIT)
        except RegistryError:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._connection.release()
            self._raw.close()
            self._transport.give_back(self._connection, reusable=False)


class _Connection:
    """A connection to one origin, maybe through a proxy, with its watchdog."""

    def __init__(self, key: tuple[str, str, int], route: Route, dog: Watchdog) -> None:
        self.key = key
        self.client = make_client(route, self._fresh)
        self.used = False
        self._dog = dog
        self._limit = _HANDSHAKE_PATIENCE * route.timeout
        self._early: socket.socket | None = None
        self.sock: socket.socket | None = None
        """The outermost one. Kept here, since http.client forgets it once an answer says ``Connection: close``."""

    def connect(self, timeout: float) -> None:
        """Everything until a request may be sent: TCP, the proxy, TLS; bounded as a whole."""
        late = False
        try:
            self.client.connect()
        finally:
            if self._early is not None:
                late = self._dog.release(self._early)
                self._early.close()
                self._early = None
                if late:
                    raise TimeoutError
        self.sock = getattr(self.client.sock, "outer", self.client.sock)
        assert self.sock is not None
        self.patience(timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _fresh(self, link: socket.socket) -> None:
        """A second descriptor stays valid while TLS takes the first one over."""
        self._early = link.dup()
        self._dog.watch(self._early, self._limit)

    def patience(self, seconds: float) -> None:
        """How long one wait for bytes may last."""
        if self.sock is not None:
            self.sock.settimeout(seconds)

    def watch(self, seconds: float) -> None:
        """How long everything until the next call may last."""
        if self.sock is not None:
            self._dog.watch(self.sock, seconds)

    def release(self) -> bool:
        return self._dog.release(self.sock) if self.sock is not None else False

    def failure(self, error: Exception, url: str, doing: str) -> ConnectionFailed:
        late = self.release()
        if isinstance(error, ProxyProblem):
            return _proxy_failure(error, url, doing, late=late)
        late = late or isinstance(error, TimeoutError)
        fatal = isinstance(error, ssl.SSLCertVerificationError | socket.gaierror) and not late
        text = "timed out" if late else _reason(error)
        hint = _authority_hint(error, url_host(url))
        return ConnectionFailed(f"{doing} {shown(url)}: {text}", transient=not fatal, hint=hint)


def _proxy_failure(problem: ProxyProblem, url: str, doing: str, *, late: bool) -> ConnectionFailed:
    text = problem.text or (_reason(problem.error) if problem.error else "")
    if late or isinstance(problem.error, TimeoutError):
        text = "timed out"
    name = problem.proxy.name
    return ConnectionFailed(
        f"{doing} {shown(url)}: the proxy {name}: {text}",
        transient=not problem.final,
        hint=_authority_hint(problem.error, name),
    )


def _authority_hint(error: Exception | None, host: str) -> str | None:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return None
    return f"put the authority's certificate into /etc/orchestra/certs.d/{host}/ca.crt"


class Transport:
    """Thread-safe. ``environ`` gives the proxies."""

    def __init__(self, config: RegistryConfig, environ: Mapping[str, str]) -> None:
        self.config = config
        self._environ = dict(environ)
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._dog = Watchdog()
        self._closed = False

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = [connection for group in self._idle.values() for connection in group]
            self._idle.clear()
        for connection in idle:
            connection.client.close()
        self._dog.close()

    def send(self, request: Request) -> Response:
        """Send, follow redirects of GET and HEAD, answer with whatever status came."""
        url, authorization = request.url, request.authorization
        for _ in range(REDIRECTS):
            parts = self._checked(url, with_credentials=bool(authorization))
            response = self._exchange(request, url, parts, authorization)
            target = response.header("Location")
            if response.status not in _FOLLOWED or not target or request.method not in ("GET", "HEAD"):
                return response
            response.drain()
            following = self.redirected(url, target)
            if url_host(following) != url_host(url) or urlsplit(following).scheme != parts.scheme:
                authorization = ""
            url = following
        raise RedirectError(f"{shown(request.url)} redirects more than {REDIRECTS} times")

    def redirected(self, url: str, target: str) -> str:
        """The absolute address that ``Location: target`` of ``url`` means, if it may be followed."""
        try:
            following = urljoin(url, target)
            parts = urlsplit(following)
            _ = parts.port
        except ValueError:
            raise RedirectError(f"{shown(url)} redirects to an invalid address") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RedirectError(f"{shown(url)} redirects to a {parts.scheme or 'strange'}: address")
        if "@" in parts.netloc:
            raise RedirectError(f"{shown(url)} redirects to an address with credentials in it")
        if parts.scheme == "http" and urlsplit(url).scheme == "https" and not self._plain_allowed(parts):
            raise RedirectError(f"{shown(url)} redirects from https to plain http")
        return following

    def give_back(self, connection: _Connection, *, reusable: bool) -> None:
        connection.release()
        if reusable and connection.client.sock is not None:
            connection.used = True
            with self._lock:
                group = self._idle.setdefault(connection.key, [])
                if len(group) < _POOL and not self._closed:
                    group.append(connection)
                    return
        connection.client.close()

    def _plain_allowed(self, parts: SplitResult) -> bool:
        return self.config.is_insecure(url_host(parts.geturl()))

    def _checked(self, url: str, *, with_credentials: bool) -> SplitResult:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise RegistryError("invalid registry address") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise RegistryError(f"invalid registry address {shown(url)}")
        if parts.scheme == "http" and not self._plain_allowed(parts):
            doing = "send credentials to" if with_credentials else "ask"
            raise RegistryError(
                f"will not {doing} {parts.netloc} by plain http",
                hint=f'add "{url_host(url)}" to "insecure" in registries.json if that is meant',
            )
        return parts

    def _exchange(self, request: Request, url: str, parts: SplitResult, authorization: str) -> Response:
        while True:
            connection = self._connect(url, parts)
            try:
                raw = self._speak(connection, request, url, parts, authorization)
            except (OSError, http.client.HTTPException) as error:
                stale = connection.used and not isinstance(error, TimeoutError)
                failed = connection.failure(error, url, "asking")
                connection.client.close()
                if stale and request.method in ("GET", "HEAD"):
                    continue  # the server closed an idle connection: not its fault, ask on a fresh one
                raise failed from None
            except BaseException:
                connection.release()
                connection.client.close()
                raise
            connection.release()
            response = Response(self, connection, raw, url)
            proxy = self._proxy(parts)
            if raw.status == 407 and proxy:
                response.close()
                refused = ProxyProblem(proxy, None, "answered 407 Proxy Authentication Required", final=True)
                raise connection.failure(refused, url, "asking")
            return response

    def _speak(
        self, connection: _Connection, request: Request, url: str, parts: SplitResult, authorization: str
    ) -> http.client.HTTPResponse:
        client = connection.client
        if client.sock is None:
            connection.connect(self.config.idle_timeout)
        connection.watch(self.config.answer_timeout)
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        proxy = self._proxy(parts)
        if proxy and parts.scheme == "http" and not proxy.socks:
            target = f"http://{parts.netloc}{target}"
        client.putrequest(request.method, target, skip_host=True, skip_accept_encoding=True)
        client.putheader("Host", parts.netloc)
        client.putheader("User-Agent", f"orchestra/{__version__}")
        for name, value in request.headers.items():
            client.putheader(name, value)
        if authorization:
            client.putheader("Authorization", authorization)
        if proxy and proxy.authorization and parts.scheme == "http":
            client.putheader("Proxy-Authorization", proxy.authorization)
        if request.body is not None or request.method in ("POST", "PUT", "PATCH"):
            client.putheader("Content-Length", str(request.length))
        client.endheaders()
        if request.body is not None:
            self._send_body(connection, request.body())
        patience = self.config.answer_timeout
        if request.length:
            patience *= _UPLOAD_PATIENCE  # the registry may verify and move the whole blob before it answers
        connection.watch(patience)
        connection.patience(patience)
        answer = client.getresponse()
        connection.patience(self.config.idle_timeout)
        return answer

    def _send_body(self, connection: _Connection, body: Iterable[bytes]) -> None:
        since = 0
        for chunk in body:
            try:
                connection.client.send(chunk)
            except (BrokenPipeError, ConnectionResetError):
                return  # the server answered early and closed; its answer tells why
            since += len(chunk)
            if since >= _LEAST_BYTES:
                since = 0
                connection.watch(self.config.answer_timeout)

    def _connect(self, url: str, parts: SplitResult) -> _Connection:
        host = str(parts.hostname)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        key = (parts.scheme, host, port)
        with self._lock:
            group = self._idle.get(key)
            if group:
                return group.pop()
        proxy = self._proxy(parts)
        route = Route(
            host,
            port,
            self.config.connect_timeout,
            tls=self._context(url_host(url)) if parts.scheme == "https" else None,
            proxy=proxy,
            proxy_tls=self._context(proxy.name, strict=True) if proxy and proxy.scheme == "https" else None,
        )
        return _Connection(key, route, self._dog)

    def _proxy(self, parts: SplitResult) -> Proxy | None:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return proxy_for(self._environ, parts.scheme, str(parts.hostname), port)

    def _context(self, host: str, *, strict: bool = False) -> ssl.SSLContext:
        """``strict``: "insecure" is about registries; a proxy always shows a certificate that we trust."""
        authorities, own = self.config.certificate_files(host)
        verify = strict or bool(authorities) or not self.config.is_insecure(host)
        key = (host if authorities or own else "", verify)
        with self._lock:
            if key not in self._contexts:
                self._contexts[key] = _make_context(host, verify, authorities, own)
            return self._contexts[key]


def _make_context(host: str, verify: bool, authorities: list[Any], own: list[Any]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        for path in authorities:
            context.load_verify_locations(cafile=str(path))
        for certificate, key in own:
            context.load_cert_chain(str(certificate), str(key))
    except (OSError, ssl.SSLError) as error:
        raise RegistryError(f"cannot load the certificates for {host_name(host)}: {_reason(error)}") from None
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if isinstance(error, http.client.RemoteDisconnected | http.client.IncompleteRead):
        return "the connection broke off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[:1].lower() + error.strerror[1:]
    return f"not an HTTP answer ({type(error).__name__})"
