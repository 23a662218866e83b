"""``pull`` and ``push``: whole images between a registry and the store.

Pulling asks the mirrors in order and then the registry; an image becomes visible when all its blobs are
there and verified. Its names afterwards: the reference asked for, and the repository with the digest that
the registry gave for it (of the index, where there is one), as docker has it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.events import Progress, Sink, Status, nowhere
from orchestra.images import mediatype
from orchestra.images.digest import Digest, short
from orchestra.images.image import Image, parse_config
from orchestra.images.manifest import Descriptor, Index, Manifest, Platform, parse_manifest
from orchestra.images.problems import ManifestError
from orchestra.images.reference import Reference
from orchestra.images.registry.client import RegistryClient
from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.fetch import Fetcher
from orchestra.images.registry.packing import packed
from orchestra.images.registry.problems import RegistryError
from orchestra.images.registry.session import Session
from orchestra.images.registry.upload import Upload, upload
from orchestra.images.store import ImageStore

_CONFIG_LIMIT = 8 << 20
_REPORT = 0.1
"""Seconds between two reports of one layer."""
POLICIES = ("always", "missing", "if_not_present", "never")


def pull(
    store: ImageStore,
    reference: Reference | str,
    *,
    platform: Platform | str | None = None,
    policy: str = "always",
    sink: Sink = nowhere,
    auth: Credentials | None = None,
    config: RegistryConfig | None = None,
    environ: Mapping[str, str] | None = None,
    unpack: bool = True,
) -> Image:
    """The image of ``reference`` for ``platform`` (this machine's), fetched as ``policy`` says."""
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    target = Platform.parse(platform) if isinstance(platform, str) else platform or Platform.host()
    if policy not in POLICIES:
        raise OrchestraError(f"unknown pull policy {policy!r}", hint=f"one of {', '.join(POLICIES)}")
    name = f"Image {wanted.familiar()}"
    if policy != "always":
        present = store.resolve(str(wanted))
        if present and (policy == "never" or target.accepts(present.platform)):
            return present
        if policy == "never":
            raise NotFoundError(f"no such image: {wanted.familiar()}", hint="the pull policy is never")
    sink(Progress(name, "Pulling"))
    try:
        with Session(environ=environ, config=config, auth=auth) as session, store.lease():
            image = _from_any(_Pull(store, wanted, target, sink, session, unpack))
            if unpack:
                store.layers(image, sink=sink)
    except OrchestraError as error:
        sink(Progress(name, "Error", Status.ERROR, error.brief))
        raise
    sink(Progress(name, "Pulled", Status.DONE))
    return image


@dataclass(frozen=True, slots=True)
class _Pull:
    store: ImageStore
    reference: Reference
    platform: Platform
    sink: Sink
    session: Session
    unpack: bool

    @property
    def what(self) -> str:
        return self.reference.familiar()


def _from_any(job: _Pull) -> Image:
    """From the first server that has it; the registry's own error is the one to report."""
    clients = job.session.clients(job.reference)
    notes: list[str] = []
    for client in clients[:-1]:
        try:
            return _from_one(job, client)
        except (RegistryError, NotFoundError, ManifestError) as error:
            notes.append(f"mirror {client.endpoint.host}: {error.brief}")
    try:
        return _from_one(job, clients[-1])
    except OrchestraError as error:
        if isinstance(error, NotFoundError):
            error = NotFoundError(f"{job.what} not found: {error.brief}", hint=error.hint)
        error.details = (*error.details, *notes)
        raise error from None


def _from_one(job: _Pull, client: RegistryClient) -> Image:
    reference = job.reference
    tag = reference.digest or reference.tag or "latest"
    known = _unchanged(job, client, tag)
    if known:
        return known
    data, media_type, given = client.manifest(reference.path, tag)
    parsed = parse_manifest(data, media_type, f"manifest of {job.what}")
    if isinstance(parsed, Index):
        data, parsed = _choose(job, client, parsed)
    _check_layers(parsed)
    fetcher = _fetcher(job, client)
    fetcher.blob(_small(parsed.config, job.what))
    settings = parse_config(job.store.blobs.read(parsed.config.digest), f"configuration of {job.what}")
    diff_ids = [Digest(text) for text in settings["rootfs"]["diff_ids"]]
    if len(diff_ids) != len(parsed.layers):
        raise ManifestError(f"{job.what} has {len(parsed.layers)} layers but {len(diff_ids)} diff ids")
    fetcher.layers(parsed.layers, diff_ids)
    names = {str(reference), str(reference.with_digest(given))} if not reference.digest else {str(reference)}
    return job.store.ingest(data, media_type=parsed.media_type, names=sorted(names))


def _unchanged(job: _Pull, client: RegistryClient, tag: str) -> Image | None:
    """The image in the store, if the registry's tag still points to what it came from."""
    name = job.reference.with_digest(job.reference.digest or "") if job.reference.digest else None
    if name is None:
        if job.store.resolve(str(job.reference)) is None:
            return None
        digest = client.manifest_digest(job.reference.path, tag)
        if digest is None:
            return None
        name = job.reference.with_digest(digest)
    image = job.store.resolve(str(name))
    if image is None or not job.platform.accepts(image.platform):
        return None
    if not job.reference.digest and str(job.reference) not in image.references:
        image = job.store.tag(image.id, job.reference)
    return image


def _choose(job: _Pull, client: RegistryClient, index: Index) -> tuple[bytes, Manifest]:
    chosen = index.select(job.platform, job.what)
    data, media_type, _ = client.manifest(job.reference.path, chosen.digest)
    parsed = parse_manifest(data, media_type or chosen.media_type, f"manifest of {job.what}")
    if isinstance(parsed, Index):
        raise ManifestError(f"{job.what} is an index of indexes")
    return data, parsed


def _check_layers(manifest: Manifest) -> None:
    for layer in manifest.layers:
        mediatype.layer_compression(layer.media_type)


def _small(config: Descriptor, what: str) -> Descriptor:
    if config.size > _CONFIG_LIMIT:
        raise ManifestError(f"the configuration of {what} has more than {_CONFIG_LIMIT} bytes")
    return config


def _fetcher(job: _Pull, client: RegistryClient) -> Fetcher:
    config = job.session.config
    return Fetcher(
        job.store,
        client,
        job.reference.path,
        job.sink,
        job.what,
        config.downloads,
        config.attempts,
        job.session.stop,
        job.unpack,
    )


def push(
    store: ImageStore,
    reference: Reference | str,
    *,
    sink: Sink = nowhere,
    auth: Credentials | None = None,
    config: RegistryConfig | None = None,
    environ: Mapping[str, str] | None = None,
    chunk: int = 0,
    compress: bool = True,
) -> Digest:
    """Upload the image of that name; the digest of its manifest. ``chunk`` forces chunks of that size;
    plain layers are compressed first unless ``compress`` is off."""
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    image = store.resolve(str(wanted))
    if image is None:
        raise NotFoundError(f"no such image: {wanted.familiar()}", hint="tag it first: orchestra image tag")
    if wanted.digest:
        raise OrchestraError(f"cannot push to a digest: {wanted.familiar()}", hint="push a tag")
    _check_layers(image.manifest)
    name = f"Image {wanted.familiar()}"
    sink(Progress(name, "Pushing"))
    try:
        with Session(environ=environ, config=config, auth=auth) as session, store.lease():
            if compress:
                image = packed(store, image, sink=sink)
            _push(store, image, wanted, session, sink, chunk)
    except OrchestraError as error:
        sink(Progress(name, "Error", Status.ERROR, error.brief))
        raise
    store.ingest(
        store.blobs.read(image.digest),
        media_type=image.manifest.media_type,
        names=[str(wanted.with_digest(image.digest))],
    )
    sink(Progress(name, "Pushed", Status.DONE, image.digest))
    return image.digest


def _push(
    store: ImageStore, image: Image, wanted: Reference, session: Session, sink: Sink, chunk: int
) -> None:
    client = session.origin(wanted)
    sources = _neighbours(image, wanted)

    def send(blob: Descriptor, label: str) -> None:
        last = 0.0

        def step(sent: int) -> None:
            nonlocal last
            if session.stop.is_set():
                raise RegistryError("stopped")
            now = time.monotonic()
            if now - last >= _REPORT:
                last = now
                sink(Progress(label, "Pushing", Status.WORKING, wanted.familiar(), sent, blob.size))

        try:
            job = Upload(client, wanted.path, store.blobs, blob.digest, blob.size, sources, chunk)
            how = upload(job, step)
        except OrchestraError:
            session.stop.set()
            raise
        text = {"exists": "Layer already exists", "pushed": "Pushed"}.get(how, how.capitalize())
        sink(Progress(label, text, Status.DONE, wanted.familiar(), blob.size, blob.size))

    blobs = {layer.digest: layer for layer in image.manifest.layers}
    with ThreadPoolExecutor(max(1, min(session.config.uploads, len(blobs) or 1)), "push") as pool:
        futures = [pool.submit(send, blob, f"Layer {short(blob.digest)}") for blob in blobs.values()]
        errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise next((e for e in errors if getattr(e, "brief", "") != "stopped"), errors[0])
    send(image.manifest.config, f"Config {short(image.manifest.config.digest)}")
    data = store.blobs.read(image.digest)
    client.put_manifest(wanted.path, wanted.tag or "latest", data, image.manifest.media_type)


def _neighbours(image: Image, wanted: Reference) -> tuple[str, ...]:
    """Other repositories of the same registry that this image is known from."""
    others = {Reference.parse(name) for name in image.references}
    paths = {other.path for other in others if other.domain == wanted.domain and other.path != wanted.path}
    return tuple(sorted(paths))[:3]
