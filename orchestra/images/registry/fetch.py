"""The blobs of one image into the store, several at a time, and layers unpacked while they arrive.

Every blob is verified as it is written; a broken download continues where it broke, in this run or the
next. One failure stops the others. Unpacking reads the growing file (tail.py); its result becomes visible
only with the right diff id.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.errors import OrchestraError
from orchestra.events import Progress, Sink, Status
from orchestra.images import rootfs
from orchestra.images.blobs import BlobWriter
from orchestra.images.digest import Digest, chain_ids, hex_of, short
from orchestra.images.manifest import Descriptor
from orchestra.images.problems import DigestError
from orchestra.images.registry.client import RegistryClient
from orchestra.images.registry.problems import RegistryError
from orchestra.images.registry.tail import Broken, Tail
from orchestra.images.store import ImageStore

_REPORT = 0.1
"""Seconds between two progress reports of a layer."""


@dataclass(slots=True)
class Fetcher:
    """``parent`` names the image in progress messages; ``stop`` is shared with the client."""

    store: ImageStore
    client: RegistryClient
    repository: str
    sink: Sink
    parent: str
    parallel: int
    attempts: int
    stop: threading.Event
    unpack: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def blob(self, descriptor: Descriptor) -> None:
        """A small blob (the configuration), in this thread."""
        with self.store.blob_writer(descriptor.digest, descriptor.size) as writer:
            if not writer.complete:
                self._download(writer, descriptor, lambda _size: None, _nothing)

    def layers(self, layers: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> None:
        """All layers; on return they are in the store, and unpacked as far as they could be meanwhile."""
        chain = chain_ids(diff_ids)
        jobs: dict[str, _Job] = {}
        with contextlib.ExitStack() as held:
            for layer, diff_id, chain_id in zip(layers, diff_ids, chain, strict=True):
                if layer.digest not in jobs:
                    unpack = self.unpack and self._claim(held, layer.digest, chain_id)
                    jobs[layer.digest] = _Job(layer, diff_id, chain_id, unpack)
            if jobs:
                try:
                    self._all(list(jobs.values()))
                    self._publish(list(jobs.values()), chain)
                finally:
                    for job in jobs.values():
                        if job.staged:
                            rootfs.remove_tree(job.staged.folder)

    def _claim(self, held: contextlib.ExitStack, digest: str, chain_id: Digest) -> bool:
        """Whether this layer is ours to unpack while it is downloaded. Lowest first, as rootfs.py does."""
        if self.store.blobs.has(digest) or rootfs.keep_layer(self.store, chain_id):
            return False
        held.enter_context(rootfs.layer_lock(self.store, chain_id))
        return not rootfs.is_unpacked(self.store, chain_id)

    def _all(self, jobs: list[_Job]) -> None:
        workers = max(1, min(self.parallel, len(jobs)))
        with ThreadPoolExecutor(workers, thread_name_prefix="pull") as pool:
            try:
                futures = [pool.submit(self._layer, job) for job in jobs]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                if any(future.exception() for future in done):
                    self.stop.set()
                    wait(futures)
            except BaseException:
                self.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        _raise_first(futures)

    def _publish(self, jobs: list[_Job], chain: list[Digest]) -> None:
        """What was unpacked becomes visible, lowest first, as far as there is no gap."""
        staged = {job.chain_id: job for job in jobs}
        lowers: list[Path] = []
        for chain_id in chain:
            job = staged.get(chain_id)
            if job and job.staged:
                ready, job.staged = job.staged, None
                rootfs.publish(self.store, ready, lowers)
            if not rootfs.is_unpacked(self.store, chain_id):
                return
            lowers.append(rootfs.layer_dir(self.store, chain_id) / "fs")

    def _layer(self, job: _Job) -> None:
        layer, name = job.layer, f"Layer {short(job.layer.digest)}"
        if self.stop.is_set():
            raise RegistryError("stopped")
        try:
            try:
                self._attempt(name, job)
            except (
                DigestError
            ):  # maybe a bad rest of an earlier run or a flipped bit: once more, from scratch
                self._attempt(name, job)
        except OrchestraError as error:
            self._report(name, "Error", Status.ERROR, 0, layer.size, error.brief)
            raise

    def _attempt(self, name: str, job: _Job) -> None:
        layer = job.layer
        with self.store.blob_writer(layer.digest, layer.size) as writer:
            if writer.complete:
                self._report(name, "Already exists", Status.DONE, layer.size, layer.size)
                return
            self._stream(name, writer, job)

    def _stream(self, name: str, writer: BlobWriter, job: _Job) -> None:
        size = job.layer.size
        unpacking = _Unpacking(self.store, job) if job.unpack else None
        last = 0.0

        def advance(good: int) -> None:
            nonlocal last
            if unpacking:
                unpacking.tail.advance(good)
            now = time.monotonic()
            if now - last >= _REPORT:
                last = now
                self._report(name, "Downloading", Status.WORKING, good, size)

        try:
            self._download(writer, job.layer, advance, unpacking.tail.abandon if unpacking else _nothing)
        except BaseException:
            if unpacking:
                unpacking.tail.abandon()
                unpacking.join()
            raise
        self._report(name, "Download complete", Status.WORKING, size, size)
        if unpacking:
            unpacking.tail.end()
            self._report(name, "Extracting", Status.WORKING, size, size)
            job.staged = unpacking.join()
        self._report(name, "Pull complete", Status.DONE, size, size)

    def _download(
        self,
        writer: BlobWriter,
        descriptor: Descriptor,
        advance: Callable[[int], None],
        restarted: Callable[[], None],
    ) -> None:
        """Fill ``writer`` and commit it. A failure after progress counts anew; one without, up to the
        bound."""
        failures = 0
        while True:
            before = writer.offset
            try:
                self._receive(writer, descriptor, advance, restarted)
                writer.commit()
                return
            except DigestError:
                restarted()
                raise
            except RegistryError as error:
                failures = 1 if writer.offset > before else failures + 1
                if not error.transient or failures >= self.attempts:
                    raise
                self.client.pause(failures, error)

    def _receive(
        self,
        writer: BlobWriter,
        descriptor: Descriptor,
        advance: Callable[[int], None],
        restarted: Callable[[], None],
    ) -> None:
        if writer.offset == descriptor.size:
            advance(writer.offset)
            return
        response, begin = self.client.open_blob(self.repository, descriptor.digest, writer.offset)
        try:
            if begin != writer.offset:
                restarted()
                writer.restart()
            advance(writer.offset)
            for chunk in response.chunks():
                if writer.offset + len(chunk) > descriptor.size:
                    writer.discard()
                    raise DigestError(f"{short(descriptor.digest)} is longer than {descriptor.size} bytes")
                writer.write(chunk)
                advance(writer.offset)
                if self.stop.is_set():
                    raise RegistryError("stopped")
        finally:
            response.close()
        if writer.offset < descriptor.size:
            raise RegistryError(
                f"{short(descriptor.digest)} ended after {writer.offset} of {descriptor.size} bytes",
                transient=True,
            )

    def _report(
        self, name: str, text: str, status: Status, current: int, total: int, details: str = ""
    ) -> None:
        with self._lock:
            self.sink(Progress(name, text, status, details or self.parent, current, total))


@dataclass(slots=True)
class _Job:
    layer: Descriptor
    diff_id: Digest
    chain_id: Digest
    unpack: bool
    staged: rootfs.Staged | None = None


class _Unpacking:
    """A thread that unpacks one layer from its growing file. What goes wrong there is no failure of the
    pull: the layer is unpacked again, from the verified blob, and that will say what is wrong."""

    def __init__(self, store: ImageStore, job: _Job) -> None:
        self.tail = Tail(store.blobs.ingest / f"{hex_of(job.layer.digest)}.part")
        self._staged: rootfs.Staged | None = None
        self._thread = threading.Thread(target=self._run, args=(store, job), name="unpack", daemon=True)
        self._thread.start()

    def join(self) -> rootfs.Staged | None:
        self._thread.join()
        self.tail.close()
        return self._staged

    def _run(self, store: ImageStore, job: _Job) -> None:
        try:
            self._staged = rootfs.stage(store, job.chain_id, job.diff_id, self.tail)
        except (Broken, OrchestraError, OSError):
            pass  # see the class text


def _nothing() -> None:
    """No unpacking to abandon."""


def _raise_first(futures: list[Future[None]]) -> None:
    """The failure that stopped the others, not those that were stopped by it."""
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    real = [error for error in errors if getattr(error, "brief", "") != "stopped"]
    if errors:
        raise (real or errors)[0]
