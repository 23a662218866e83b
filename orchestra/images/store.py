"""The image store: content-addressed, shared by threads and processes, safe against ``kill -9``.

    oci-layout              the store is an OCI image layout
    index.json              images and their names (refs.py)
    blobs/ ingest/          content by digest (blobs.py)
    layers/<chain-id>/fs    a layer unpacked once, visible only when whole (rootfs.py)
    layers/<chain-id>/info.json
    leases/<random>         held (flock) by whoever adds content: garbage collection spares what is newer
    trash/                  on its way out
    lock                    taken for every change of index.json and for garbage collection

Power failures are another matter than ``kill -9``: content is not forced to the disk one by one, so after
one ``check`` says what did not get there, and mends it.

Lock order: blob or layer lock, then ``lock``. Nothing is deleted without ``lock``.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import ConflictError, NotFoundError
from orchestra.events import Sink, nowhere
from orchestra.images.blobs import BlobStore, BlobWriter
from orchestra.images.digest import Digest, digest_of, hex_of, short
from orchestra.images.image import Image, make_image
from orchestra.images.locks import acquire, locked
from orchestra.images.manifest import Descriptor, Index, Manifest, parse_manifest
from orchestra.images.problems import ImageError, InvalidReferenceError, ManifestError
from orchestra.images.reference import Reference
from orchestra.images.refs import Catalog, Entry, Refs

if TYPE_CHECKING:
    from orchestra.images.checktrees import Finding
    from orchestra.images.gc import GcReport, PruneFilter, PruneReport
    from orchestra.images.usage import DiskUsage
    from orchestra.paths import Paths

_PREFIX = re.compile(r"[0-9a-f]{1,64}")


def _nothing() -> Collection[str]:
    return ()


class ImageStore:
    """``in_use`` tells which image ids containers use at this moment (asked at every removal), ``ranges`` which
    ranges of ids (``uid-gid-size``, see ``shifted``); None where that is not known. ``cached`` are the layers that
    the build cache remembers."""

    def __init__(
        self,
        root: Path,
        *,
        in_use: Callable[[], Collection[str]] = _nothing,
        ranges: Callable[[], Collection[str] | None] = lambda: None,
        cached: Callable[[], Collection[str]] = _nothing,
    ) -> None:
        self.root = Path(root)
        self.in_use, self.ranges, self.cached = in_use, ranges, cached
        self.blobs = BlobStore(self.root)
        self.refs = Refs(self.root)
        self.layers_dir = self.root / "layers"
        self.leases_dir = self.root / "leases"
        self.trash_dir = self.root / "trash"
        self._images: dict[str, Image] = {}
        self._resolved: tuple[Catalog, dict[str, Image]] = (Catalog(), {})  # what was found in this catalog
        self._unpacked: dict[
            Digest, tuple[builtins.list[Path], builtins.list[str]]
        ] = {}  # layers, and their marks
        if not (self.root / "oci-layout").exists():
            self.make()

    def make(self) -> None:
        """Create the directories and the OCI layout mark."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.blobs.make()
        for folder in (self.layers_dir, self.leases_dir, self.trash_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
        aside = self.root / f".oci-layout.{os.getpid()}.{secrets.token_hex(4)}"
        aside.write_text('{"imageLayoutVersion":"1.0.0"}\n')
        os.replace(aside, self.root / "oci-layout")

    # --- content ---------------------------------------------------------------------------------

    def blob_writer(
        self, digest: str | None = None, size: int | None = None, *, resume: bool = True
    ) -> BlobWriter:
        """A verified writer; see :class:`orchestra.images.blobs.BlobWriter`."""
        return self.blobs.writer(digest, size, resume=resume)

    @contextlib.contextmanager
    def lease(self) -> Iterator[None]:
        """While held, garbage collection spares every blob and layer added, or found by
        ``blobs.keep`` and writers, since its begin. Hold it around a pull, load, build or commit."""
        path = self.leases_dir / secrets.token_hex(12)
        fd = acquire(path)
        assert fd is not None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(fd)

    @contextlib.contextmanager
    def changing(self) -> Iterator[Catalog]:
        """The catalog under the store's lock; write changes with ``refs.write``."""
        with locked(self.root / "lock"):
            yield self.refs.read()

    def ingest(
        self, manifest: bytes, *, media_type: str = "", names: Iterable[str | Reference] = ()
    ) -> Image:
        """Make an image of stored blobs visible. Configuration and layers must be in the store already.
        The names move here from whichever image had them."""
        parsed = parse_manifest(manifest, media_type)
        if isinstance(parsed, Index):
            raise ManifestError("an index is no image", hint="choose one of its manifests by platform")
        digest = digest_of(manifest)
        keys = tuple(sorted({_key(name) for name in names}))
        with self.lease():
            self.blobs.put(manifest, digest)
            descriptor = Descriptor(parsed.media_type, digest, len(manifest))
            image = make_image(self, Entry(descriptor, parsed.config.digest, time.time(), keys), parsed)
            with self.changing() as catalog:
                self._require(parsed)
                catalog = catalog.with_entry(image.entry)
                self.refs.write(catalog)
        return self._image(next(entry for entry in catalog.entries if entry.manifest.digest == digest))

    def _require(self, manifest: Manifest) -> None:
        for blob in (manifest.config, *manifest.layers):
            self.blobs.open(blob.digest, blob.size).close()

    # --- images ----------------------------------------------------------------------------------

    def _image(self, entry: Entry, catalog: Catalog | None = None) -> Image:
        """``entry`` with all the names its image has (through other manifests of the same id, too)."""
        names = set(entry.names)
        for other in catalog.entries if catalog else ():
            if other.config == entry.config:
                names |= set(other.names)
        known = self._images.get(entry.manifest.digest)
        if known is None:
            known = make_image(self, entry)
            self._images[entry.manifest.digest] = known
        return known.named(tuple(sorted(names)))

    def resolve(self, text: str) -> Image | None:
        """An image by name, name and digest, image id, manifest digest, or a unique prefix of an id."""
        catalog = self.refs.read()
        known = self._resolved
        if known[0] is not catalog:
            known = self._resolved = (catalog, {})
        found = known[1].get(text)
        if found is None:
            entry = _find(catalog, text)
            if entry is None:
                return None
            found = known[1][text] = self._image(entry, catalog)
        return found

    def get(self, text: str) -> Image:
        """:meth:`resolve`, or an error."""
        image = self.resolve(text)
        if image is None:
            raise NotFoundError(f"no such image: {text}", hint="`orchestra image ls` shows what is there")
        return image

    def list(self) -> list[Image]:
        """Every image once, newest first; damaged ones are left out (``check`` names them)."""
        catalog = self.refs.read()
        found: dict[str, Image] = {}
        for entry in catalog.entries:
            if entry.config in found:
                continue
            with contextlib.suppress(ImageError, NotFoundError):
                found[entry.config] = self._image(entry, catalog)
        return sorted(found.values(), key=lambda image: (image.created, image.id), reverse=True)

    def layers(self, image: Image, *, sink: Sink = nowhere) -> builtins.list[Path]:
        """The unpacked layers, lowest first; what is missing is unpacked now."""
        known = self._unpacked.get(image.id)
        if known is not None and all(map(os.path.exists, known[1])):
            return builtins.list(known[0])
        from orchestra.images.rootfs import layer_dir, unpack

        paths = unpack(self, image, sink=sink)
        marks = [str(layer_dir(self, chain_id) / "info.json") for chain_id in image.chain_ids]
        self._unpacked[image.id] = (paths, marks)
        return builtins.list(paths)

    # --- names -----------------------------------------------------------------------------------

    def tag(self, source: str, target: str | Reference) -> Image:
        """Give the image ``source`` the further name ``target``."""
        reference = Reference.parse(target) if isinstance(target, str) else target
        if reference.digest:
            raise InvalidReferenceError(f"a digest cannot be made a name: {reference.familiar()}")
        with self.changing() as catalog:
            entry = _find(catalog, source)
            if entry is None:
                raise NotFoundError(f"no such image: {source}")
            moved = Entry(entry.manifest, entry.config, entry.added, (*entry.names, _key(reference)))
            catalog = catalog.with_entry(moved)
            self.refs.write(catalog)
        return self._image(moved, catalog)

    def remove(self, text: str, *, force: bool = False, prune_parents: bool = True) -> builtins.list[str]:
        """Untag, and delete the image with its last name. Lines as docker prints them.
        ``prune_parents=False`` leaves the content to the next garbage collection."""
        from orchestra.images.gc import collect, remove

        lines = remove(self, text, force=force)
        if prune_parents and any(line.startswith("Deleted:") for line in lines):
            collect(self)
        return lines

    # --- care ------------------------------------------------------------------------------------

    def prune(self, which: PruneFilter | None = None, *, dry_run: bool = False) -> PruneReport:
        """Remove images nobody names (or, by the filter, nobody uses) and collect garbage."""
        from orchestra.images.gc import PruneFilter, prune

        return prune(self, which or PruneFilter(), dry_run=dry_run)

    def gc(self, *, roots: Collection[str] = (), dry_run: bool = False) -> GcReport:
        """Remove blobs and layers that no image needs; ``roots`` are further digests and chain ids."""
        from orchestra.images.gc import collect

        return collect(self, roots=roots, dry_run=dry_run)

    def check(self, *, mend: bool = False, sink: Sink = nowhere) -> builtins.list[Finding]:
        """Verify everything stored; ``mend`` removes what is damaged and rebuilds what can be."""
        from orchestra.images.check import check

        return check(self, mend=mend, sink=sink)

    def disk_usage(self) -> DiskUsage:
        from orchestra.images.usage import disk_usage

        return disk_usage(self)


def open_store(paths: Paths) -> ImageStore:
    """The store of an engine, knowing which images its containers use (the engine keeps the list of
    their ids in ``<run>/images-in-use.json``, and of their ranges in ``ranges-in-use.json``)."""

    def in_use() -> Collection[str]:
        try:
            found = json.loads((paths.run / "images-in-use.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return ()
        return [str(image_id) for image_id in found] if isinstance(found, list) else ()

    def ranges() -> Collection[str] | None:
        try:
            found = json.loads((paths.run / "ranges-in-use.json").read_bytes())
        except FileNotFoundError:
            return ()
        except ValueError:
            return None
        return [str(name) for name in found] if isinstance(found, list) else None

    paths.make()

    def cached() -> Collection[str]:
        from orchestra.images.cached import digests

        return digests(paths.builds / "cache")

    return ImageStore(paths.images, in_use=in_use, ranges=ranges, cached=cached)


def _key(name: str | Reference) -> str:
    return (Reference.parse(name) if isinstance(name, str) else name).storage_key()


def _find(catalog: Catalog, text: str) -> Entry | None:
    if text.startswith("sha256:"):
        return _one(catalog, hex_of(text), text)
    with contextlib.suppress(InvalidReferenceError):
        reference = Reference.parse(text)
        found = catalog.by_name(reference.storage_key())
        if found is None and reference.digest:
            found = _by_digest(catalog, reference)
        if found is not None:
            return found
    return _one(catalog, text, text)


def _by_digest(catalog: Catalog, reference: Reference) -> Entry | None:
    """An image whose manifest has the digest and which has some name in the same repository."""
    for entry in catalog.entries:
        if entry.manifest.digest == reference.digest and any(
            Reference.parse(name).name == reference.name for name in entry.names
        ):
            return entry
    return None


def _one(catalog: Catalog, prefix: str, text: str) -> Entry | None:
    if not _PREFIX.fullmatch(prefix):
        return None
    found = catalog.by_id(prefix)
    if len(found) > 1:
        raise ConflictError(
            f"image id {text} is ambiguous", details=tuple(short(entry.config) for entry in found)
        )
    return found[0] if found else None
