"""Images whose layers are stored plain (made here) get compressed layers before they travel.

The same image keeps its id; its manifest becomes another one, which the store remembers, so that the next
push finds it. Layers are cut into blocks that are compressed side by side as members of one gzip file
(RFC 1952 allows many); the result does not depend on the number of processors.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestra.events import Progress, Sink, Status
from orchestra.images.digest import Digest, short
from orchestra.images.manifest import Descriptor
from orchestra.images.mediatype import Compression, layer_compression, layer_type
from orchestra.images.registry.problems import RegistryError

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

_BLOCK = 4 << 20
_LEVEL = 4
_AT_ONCE = 2
"""Layers, so that the end of one leaves no processor idle."""
_SMALL = 4 << 10
"""Layers below this many bytes travel as they are."""


def packed(store: ImageStore, image: Image, *, sink: Sink) -> Image:
    """``image`` with compressed layers: as it is, as an earlier push left it, or compressed now. Hold a
    lease."""
    if not any(_is_plain(layer) for layer in image.manifest.layers):
        return image
    earlier = _earlier(store, image)
    if earlier is not None:
        return earlier
    made = _all_compressed(store, image, sink)
    layers = tuple(made.get(layer.digest, layer) for layer in image.manifest.layers)
    manifest = replace(image.manifest, layers=layers)
    return store.ingest(manifest.to_bytes(), media_type=manifest.media_type)


def _all_compressed(store: ImageStore, image: Image, sink: Sink) -> dict[Digest, Descriptor]:
    """The compressed layers by the digests of the plain ones."""
    plain = {layer.digest: layer for layer in image.manifest.layers if _is_plain(layer)}
    workers, stop = os.cpu_count() or 1, threading.Event()
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="gzip") as pool,
        ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pack") as packers,
    ):
        task = _Task(store, pool, workers, image.manifest.is_docker, sink, stop)
        jobs = {digest: packers.submit(_compressed, task, layer) for digest, layer in plain.items()}
        try:
            return {digest: job.result() for digest, job in jobs.items()}
        except BaseException:
            stop.set()
            packers.shutdown(wait=False, cancel_futures=True)
            raise


@dataclass(frozen=True, slots=True)
class _Task:
    store: ImageStore
    pool: Executor
    ahead: int
    docker: bool
    sink: Sink
    stop: threading.Event


def _is_plain(layer: Descriptor) -> bool:
    return layer.size > _SMALL and layer_compression(layer.media_type) is Compression.NONE


def _earlier(store: ImageStore, image: Image) -> Image | None:
    for entry in store.refs.read().entries:
        if entry.config != image.id or entry.manifest.digest == image.digest:
            continue
        other = store.resolve(entry.manifest.digest)
        if other is None or other.digest != entry.manifest.digest:
            continue
        layers = other.manifest.layers
        if not any(_is_plain(layer) for layer in layers) and all(
            store.blobs.keep(layer.digest) for layer in layers
        ):
            return other
    return None


def _compressed(task: _Task, layer: Descriptor) -> Descriptor:
    name = f"Layer {short(layer.digest)}"
    store, done = task.store, 0
    with store.blobs.open(layer.digest, layer.size) as stream, store.blob_writer() as writer:

        def blocks() -> Iterator[bytes]:
            while block := stream.read(_BLOCK):
                if task.stop.is_set():
                    raise RegistryError("stopped")
                yield block

        for piece, size in _members(blocks(), task.pool, task.ahead):
            writer.write(piece)
            done += size
            task.sink(Progress(name, "Compressing", current=done, total=layer.size))
        digest = writer.commit()
    task.sink(Progress(name, "Compressed", Status.DONE, current=layer.size, total=layer.size))
    return Descriptor(layer_type(Compression.GZIP, docker=task.docker), digest, store.blobs.size(digest))


def _members(blocks: Iterator[bytes], pool: Executor, ahead: int) -> Iterator[tuple[bytes, int]]:
    """Each block as a gzip member and its plain size, in order, a few blocks ahead."""
    waiting: deque[tuple[Future[bytes], int]] = deque()
    for block in blocks:
        waiting.append((pool.submit(_member, block), len(block)))
        if len(waiting) > ahead + 1:
            future, size = waiting.popleft()
            yield future.result(), size
    while waiting:
        future, size = waiting.popleft()
        yield future.result(), size


def _member(block: bytes) -> bytes:
    machine = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
    return machine.compress(block) + machine.flush()
