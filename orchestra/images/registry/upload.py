"""One blob to a registry: skip, mount, or upload in one piece or in chunks.

A blob goes in one PUT; where the server will not have that (405, 411, 413, 416) or where ``chunk`` is
set, in PATCHed chunks that continue after a broken connection where the server says it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

from orchestra.errors import NotFoundError
from orchestra.images.blobs import BlobStore
from orchestra.images.registry.client import RegistryClient, push_scope
from orchestra.images.registry.http import Response, whole_number
from orchestra.images.registry.problems import AuthenticationError, RegistryError

_PIECE = 256 << 10
DEFAULT_CHUNK = 16 << 20
_TOO_MUCH = (405, 411, 413, 416)

Step = Callable[[int], None]
"""Told the bytes sent so far."""


@dataclass(frozen=True, slots=True)
class Upload:
    """``sources``: other repositories of the same registry that may hold the blob. ``chunk`` 0: one piece."""

    client: RegistryClient
    repository: str
    blobs: BlobStore
    digest: str
    size: int
    sources: tuple[str, ...] = ()
    chunk: int = 0


def upload(job: Upload, step: Step) -> str:
    """``exists``, ``mounted from <repository>`` or ``pushed``."""
    scope = push_scope(job.repository)
    if job.client.has_blob(job.repository, job.digest, scope=scope):
        return "exists"
    for source in job.sources:
        if _mount(job, source):
            return f"mounted from {source}"
    if job.chunk:
        _chunked(job, scope, job.chunk, step)
        return "pushed"
    try:
        job.client.retry(lambda: _whole(job, scope, step))
    except RegistryError as error:
        if error.status not in _TOO_MUCH:
            raise
        _chunked(job, scope, DEFAULT_CHUNK, step)
    return "pushed"


def _begin(job: Upload, scope: str, query: str = "") -> Response:
    path = f"{quote(job.repository)}/blobs/uploads/{query}"
    return job.client.call("POST", path, scope=scope)


def _mount(job: Upload, source: str) -> bool:
    query = "?" + urlencode({"mount": job.digest, "from": source})
    try:
        response = _begin(job, push_scope(job.repository, source), query)
    except (NotFoundError, AuthenticationError):
        return False
    response.drain()
    if response.status == 201:
        return True
    _cancel(job, _location(job, response))
    return False


def _cancel(job: Upload, location: str) -> None:
    """Give an upload up that the registry opened instead of mounting; it would time out by itself."""
    try:
        job.client.call("DELETE", location, scope=push_scope(job.repository)).drain()
    except (RegistryError, NotFoundError):
        pass


def _location(job: Upload, response: Response) -> str:
    """Where to go on; never with credentials to another host (the client sees to that)."""
    target = response.header("Location")
    if not target:
        raise RegistryError(f"{job.client.endpoint.host} opened no upload")
    return job.client.transport.redirected(response.url, target)


def _finishing(location: str, digest: str) -> str:
    joint = "&" if urlsplit(location).query else "?"
    return f"{location}{joint}{urlencode({'digest': digest})}"


def _whole(job: Upload, scope: str, step: Step) -> None:
    response = _begin(job, scope)
    response.drain()
    location = _location(job, response)
    job.client.once(
        "PUT",
        _finishing(location, job.digest),
        scope=scope,
        headers={"Content-Type": "application/octet-stream"},
        body=lambda: _pieces(job, 0, job.size, step),
        length=job.size,
    ).drain()


def _chunked(job: Upload, scope: str, chunk: int, step: Step) -> None:
    response = _begin(job, scope)
    response.drain()
    location = _location(job, response)
    chunk = max(chunk, whole_number(response.header("OCI-Chunk-Min-Length")) or 0)
    offset = failures = 0
    while offset < job.size:
        end = min(offset + chunk, job.size)
        try:
            location, offset = _patch(job, scope, location, offset, end, step)
            failures = 0
        except RegistryError as error:
            failures += 1
            if not (error.transient or error.status == 416) or failures >= 5:
                raise
            job.client.pause(failures, error)
            location, offset = _standing(job, scope, location)
    job.client.call("PUT", _finishing(location, job.digest), scope=scope).drain()


def _patch(job: Upload, scope: str, location: str, offset: int, end: int, step: Step) -> tuple[str, int]:
    headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{end - 1}"}
    response = job.client.once(
        "PATCH", location, scope=scope, headers=headers,
        body=lambda: _pieces(job, offset, end, step), length=end - offset,
    )  # fmt: skip
    response.drain()
    return _location(job, response), end


def _standing(job: Upload, scope: str, location: str) -> tuple[str, int]:
    """Where the server stands after a failure."""
    response = job.client.call("GET", location, scope=scope)
    response.drain()
    last = whole_number(response.header("Range").removeprefix("bytes=").partition("-")[2])
    offset = min(last + 1, job.size) if last else 0
    target = response.header("Location")
    return (job.client.transport.redirected(response.url, target) if target else location), offset


def _pieces(job: Upload, offset: int, end: int, step: Step) -> Iterator[bytes]:
    with job.blobs.open(job.digest, job.size) as stream:
        stream.seek(offset)
        while offset < end:
            data = stream.read(min(_PIECE, end - offset))
            if not data:
                return
            offset += len(data)
            yield data
            step(offset)
