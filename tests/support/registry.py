"""A registry in this process: real HTTP over loopback, authentication modes, faults on demand.

    with Registry() as registry:
        registry.add_image("app", "1", [layer_tar, …])
        registry.faults.append(Fault("GET", "/blobs/", truncate=100))

Everything it was asked is in ``registry.log`` as :class:`Seen`. Faults are tried in order; each is used
``times`` times.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Fault:
    """What goes wrong for requests of ``method`` (empty: any) whose path holds ``pattern`` (a regex). ``drip``: seconds
    between pieces of ``piece`` bytes."""

    method: str
    pattern: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    corrupt: bool = False
    truncate: int | None = None
    redirect: str = ""
    drip: float = 0.0
    piece: int = 1
    close: bool = False
    endless: bool = False
    hang: bool = False
    reset: bool = False
    ignore_range: bool = False


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class Registry:
    """``auth``: ``none``, ``basic`` or ``token``. ``chunk_limit``: refuse bodies larger than that in one
    PUT (413). ``realm`` overrides the token server's address."""

    def __init__(
        self,
        *,
        auth: str = "none",
        user: str = "me",
        password: str = "s3cret",
        realm: str = "",
        chunk_limit: int = 0,
        mount: bool = True,
        tls: tuple[str, str] | None = None,
        anonymous_pull: bool = False,
    ) -> None:
        self.auth = auth
        self.user, self.password = user, password
        self.realm = realm
        self.chunk_limit = chunk_limit
        self.mount = mount
        self.anonymous_pull = anonymous_pull
        self.blobs: dict[str, dict[str, bytes]] = {}
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.tokens: dict[str, list[str]] = {}
        self.identity_tokens: set[str] = set()
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.busy: dict[str, int] = {}
        self.busiest: dict[str, int] = {}
        """Most requests at once, by method and kind: ``GET blobs``, ``PUT uploads``."""
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        registry = self

        class Handler(_Handler):
            owner = registry

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.context = context
            self.scheme = "https"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def __enter__(self) -> Registry:
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def requests(self, method: str = "", pattern: str = "") -> list[Seen]:
        with self.lock:
            return [s for s in self.log if (not method or s.method == method) and re.search(pattern, s.path)]

    # --- content ---------------------------------------------------------------------------------

    def add_blob(self, repository: str, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs.setdefault(repository, {})[digest] = data
        return digest

    def add_manifest(self, repository: str, tag: str, value: dict[str, object]) -> str:
        data = json.dumps(value).encode()
        digest = digest_of(data)
        stored = self.manifests.setdefault(repository, {})
        stored[digest] = stored[tag] = (str(value["mediaType"]), data)
        return digest

    def add_image(
        self,
        repository: str,
        tag: str,
        tars: list[bytes],
        *,
        docker: bool = False,
        compression: str = "gzip",
        architecture: str = "amd64",
        settings: dict[str, object] | None = None,
    ) -> str:
        """An image of these layer tars; the digest of its manifest."""
        layers = []
        for tar in tars:
            data, suffix = _packed(tar, compression)
            kind = (
                f"{DOCKER}.image.rootfs.diff.tar{suffix.replace('+', '.')}"
                if docker
                else f"{OCI}.layer.v1.tar{suffix}"
            )
            layers.append({"mediaType": kind, "digest": self.add_blob(repository, data), "size": len(data)})
        config = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": settings or {},
                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
                "history": [{"created_by": f"layer {number}"} for number in range(len(tars))],
            }
        ).encode()
        kind = f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json"
        descriptor = {"mediaType": kind, "digest": self.add_blob(repository, config), "size": len(config)}
        manifest_type = f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json"
        value: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": descriptor,
            "layers": layers,
        }
        return self.add_manifest(repository, tag, value)

    def add_index(self, repository: str, tag: str, platforms: dict[str, str], *, docker: bool = False) -> str:
        """An index of manifests that are there already, by architecture."""
        entries = []
        for architecture, digest in platforms.items():
            kind, data = self.manifests[repository][digest]
            entries.append(
                {
                    "mediaType": kind,
                    "digest": digest,
                    "size": len(data),
                    "platform": {"os": "linux", "architecture": architecture},
                }
            )
        kind = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
        return self.add_manifest(
            repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
        )


def _packed(tar: bytes, compression: str) -> tuple[bytes, str]:
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0), "+gzip"
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(tar), "+zstd"
    return tar, ""


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext | None = None

    def get_request(self):  # type: ignore[no-untyped-def]
        sock, address = super().get_request()
        if self.context is not None:  # the handshake happens at the first read, in the request's thread
            sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that break off are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    owner: Registry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fault: Fault | None = None

    def log_message(self, *_args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        owner = self.owner
        kind = "uploads" if "/uploads/" in self.path else "blobs" if "/blobs/" in self.path else "other"
        name = f"{self.command} {kind}"
        with owner.lock:
            owner.busy[name] = owner.busy.get(name, 0) + 1
            owner.busiest[name] = max(owner.busiest.get(name, 0), owner.busy[name])
        try:
            self._serve()
        finally:
            with owner.lock:
                owner.busy[name] -= 1

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        registry = self.owner
        with registry.lock:
            registry.log.append(
                Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            )
            self.fault = next(
                (
                    f
                    for f in registry.faults
                    if f.times > 0 and f.method in ("", self.command) and re.search(f.pattern, self.path)
                ),
                None,
            )
            if self.fault:
                self.fault.times -= 1
        length = int(self.headers.get("Content-Length") or 0)
        parts = urlsplit(self.path)
        if self.fault and self._go_wrong(self.fault, length):
            return
        if self.command == "PUT" and registry.chunk_limit and length > registry.chunk_limit:
            self.close_connection = True
            self._answer(413, b"")
            return
        body = self.rfile.read(length) if length else b""
        if parts.path == "/token":
            self._token(parts.query, body)
        elif not parts.path.startswith("/v2/"):
            self._answer(404, b"not here")
        elif self._allowed(parts.path, parts.query):
            self._route(parts.path.removeprefix("/v2/"), parts.query, body)

    # --- faults ----------------------------------------------------------------------------------

    def _go_wrong(self, fault: Fault, length: int) -> bool:
        """Whether the answer was given."""
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return True
        if fault.hang:
            self.owner.stopping.wait(60)
            self.close_connection = True
            return True
        if fault.redirect or fault.status:
            if length:
                self.rfile.read(length)
            headers = dict(fault.headers)
            if fault.redirect:
                headers["Location"] = fault.redirect
            self._answer(fault.status or 307, fault.body, headers)
            return True
        if fault.endless:
            self.send_response(200)
            self.end_headers()
            try:
                while not self.owner.stopping.is_set():
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass
            self.close_connection = True
            return True
        return False

    # --- authentication --------------------------------------------------------------------------

    def _allowed(self, path: str, query: str) -> bool:
        registry = self.owner
        given = self.headers.get("Authorization") or ""
        if registry.auth == "none":
            return True
        if registry.auth == "basic":
            wanted = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
            if given == f"Basic {wanted}":
                return True
            self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="test, registry"'})
            return False
        needed = self._scope(path)
        granted = registry.tokens.get(given.removeprefix("Bearer "))
        if granted is not None and (not needed or all(g in granted for g in needed)):
            return True
        realm = registry.realm or f"{registry.url}/token"
        scope = f',scope="{needed[0].rpartition(":")[0]}:pull"' if needed else ""
        self._answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="test"{scope}'})
        return False

    def _scope(self, path: str) -> list[str]:
        match = re.match(r"/v2/(.+?)/(?:manifests|blobs|tags)/", path)
        if not match:
            return []
        action = "pull" if self.command in ("GET", "HEAD") else "push"
        return [f"repository:{match[1]}:{action}"]

    def _token(self, query: str, body: bytes) -> None:
        registry = self.owner
        values = parse_qs(body.decode() if self.command == "POST" else query)
        wanted = base64.b64encode(f"{registry.user}:{registry.password}".encode()).decode()
        given = self.headers.get("Authorization")
        known = given == f"Basic {wanted}"
        if self.command == "POST":
            known = values.get("refresh_token", [""])[0] in registry.identity_tokens
        if not known and not (registry.anonymous_pull and not given):
            self._answer(401, b'{"details":"incorrect username or password"}')
            return
        granted = []
        for scope in " ".join(values.get("scope", [])).split():
            kind, name, actions = scope.split(":", 2)
            granted += [f"{kind}:{name}:{a}" for a in actions.split(",") if known or a == "pull"]
        token = uuid.uuid4().hex
        registry.tokens[token] = granted
        self._answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    # --- the protocol ----------------------------------------------------------------------------

    def _route(self, path: str, query: str, body: bytes) -> None:
        if not path:
            self._answer(200, b"{}")
            return
        match = re.fullmatch(r"(.+)/(manifests|blobs|tags)/(.*)", path)
        if match is None:
            self._error(404, "NAME_UNKNOWN")
        elif match[2] == "manifests":
            self._manifest(match[1], match[3], body)
        elif match[2] == "tags":
            tags = [t for t in self.owner.manifests.get(match[1], {}) if ":" not in t]
            self._answer(200, json.dumps({"name": match[1], "tags": tags}).encode())
        else:
            self._blob(match[1], match[3], query, body)

    def _manifest(self, name: str, tag: str, body: bytes) -> None:
        stored = self.owner.manifests.setdefault(name, {})
        if self.command == "PUT":
            digest = digest_of(body)
            value = json.loads(body)
            held = self.owner.blobs.get(name, {})
            wanted = [value["config"], *value["layers"]] if "config" in value else []
            if any(blob["digest"] not in held for blob in wanted):
                self._error(400, "MANIFEST_BLOB_UNKNOWN")
                return
            stored[digest] = stored[tag] = (self.headers["Content-Type"], body)
            self._answer(201, b"", {"Docker-Content-Digest": digest, "Location": self.path})
        elif tag in stored:
            kind, data = stored[tag]
            headers = {"Content-Type": kind, "Docker-Content-Digest": digest_of(data)}
            if self.fault and self.fault.corrupt:
                data = data.replace(b"2", b"3", 1) + b" "
            self._answer(200, data, headers)
        else:
            self._error(404, "MANIFEST_UNKNOWN")

    def _blob(self, name: str, rest: str, query: str, body: bytes) -> None:
        if rest.startswith("uploads/"):
            self._upload(name, rest.removeprefix("uploads/"), parse_qs(query), body)
            return
        data = self.owner.blobs.get(name, {}).get(rest)
        if data is None:
            self._error(404, "BLOB_UNKNOWN")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        headers = {"Docker-Content-Digest": rest, "Content-Type": "application/octet-stream"}
        status = 200
        if asked and not (self.fault and self.fault.ignore_range):
            offset = int(asked[1])
            if offset >= len(data):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
            data, status = data[offset:], 206
        if self.fault and self.fault.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self._answer(status, data, headers)

    def _upload(self, name: str, session: str, values: dict[str, list[str]], body: bytes) -> None:
        registry = self.owner
        if self.command == "POST":
            source, mounted = values.get("from", [""])[0], values.get("mount", [""])[0]
            held = registry.blobs.get(source, {}).get(mounted)
            if registry.mount and held is not None:
                registry.blobs.setdefault(name, {})[mounted] = held
                self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{mounted}"})
                return
            session = uuid.uuid4().hex
            registry.uploads[session] = bytearray()
            self._answer(202, b"", self._session(name, session))
            return
        held_bytes = registry.uploads.get(session)
        if held_bytes is None:
            self._error(404, "BLOB_UPLOAD_UNKNOWN")
        elif self.command == "PATCH":
            begin = (self.headers.get("Content-Range") or f"{len(held_bytes)}-").partition("-")[0]
            if int(begin) != len(held_bytes):
                self._answer(416, b"", self._session(name, session))
                return
            held_bytes += body
            self._answer(202, b"", self._session(name, session))
        elif self.command == "GET":
            self._answer(204, b"", self._session(name, session))
        elif self.command == "DELETE":
            del registry.uploads[session]
            self._answer(204, b"")
        else:
            held_bytes += body
            if digest_of(bytes(held_bytes)) != values["digest"][0]:
                self._error(400, "DIGEST_INVALID")
                return
            registry.blobs.setdefault(name, {})[values["digest"][0]] = bytes(held_bytes)
            del registry.uploads[session]
            self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{values['digest'][0]}"})

    def _session(self, name: str, session: str) -> dict[str, str]:
        size = len(self.owner.uploads[session])
        return {"Location": f"/v2/{name}/blobs/uploads/{session}?_state=x", "Range": f"0-{max(0, size - 1)}"}

    # --- answers ---------------------------------------------------------------------------------

    def _error(self, status: int, code: str) -> None:
        text = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]})
        self._answer(status, text.encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.fault and self.fault.close:
            self.send_header("Connection", "close")
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        fault = self.fault
        if fault and fault.truncate is not None:
            self.wfile.write(data[: fault.truncate])
            self.close_connection = True
            return
        if fault and fault.drip:
            for position in range(0, len(data), fault.piece):
                if self.owner.stopping.is_set():
                    return
                self.wfile.write(data[position : position + fault.piece])
                time.sleep(fault.drip)
            return
        self.wfile.write(data)
