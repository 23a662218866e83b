"""Which images the store holds and under which names: ``index.json``, an OCI image index.

Every entry is the descriptor of an image manifest. Its annotations are the store's own:
``org.opencontainers.image.ref.name`` (one name), ``orchestra.config`` (the image id), ``orchestra.added``
(unix seconds). An image without a name has one entry without the first. So the whole store is an OCI
layout that other programs can read.

Changes happen under the store's lock: read, change, write aside, fsync, rename.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestra.images import mediatype
from orchestra.images.digest import Digest, hex_of
from orchestra.images.manifest import Descriptor
from orchestra.images.problems import ManifestError, StoreError, from_os_error

REF_NAME = "org.opencontainers.image.ref.name"
CONFIG = "orchestra.config"
ADDED = "orchestra.added"


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the store: its manifest, its id, and all its names (canonical texts, sorted)."""

    manifest: Descriptor
    config: Digest
    added: float
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Catalog:
    """All entries, newest first; a name belongs to one entry at most."""

    entries: tuple[Entry, ...] = ()

    def by_name(self, name: str) -> Entry | None:
        return next((entry for entry in self.entries if name in entry.names), None)

    def by_id(self, prefix: str) -> list[Entry]:
        """Entries whose image id or manifest digest begins with these hex digits, one an image."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            if hex_of(entry.config).startswith(prefix) or hex_of(entry.manifest.digest) == prefix:
                found.setdefault(entry.config, entry)
        return list(found.values())

    def with_entry(self, entry: Entry) -> Catalog:
        """``entry`` added; its names leave the entries that had them."""
        kept: list[Entry] = []
        names = set(entry.names)
        for old in self.entries:
            if old.manifest.digest == entry.manifest.digest:
                names |= set(old.names)
                continue
            kept.append(replace(old, names=tuple(name for name in old.names if name not in entry.names)))
        return Catalog((replace(entry, names=tuple(sorted(names))), *kept))

    def without_names(self, names: Iterable[str]) -> Catalog:
        gone = set(names)
        return Catalog(
            tuple(replace(e, names=tuple(n for n in e.names if n not in gone)) for e in self.entries)
        )

    def without_images(self, ids: Iterable[str]) -> Catalog:
        gone = set(ids)
        return Catalog(tuple(entry for entry in self.entries if entry.config not in gone))


class Refs:
    """Reads and writes ``index.json``; the caller holds the store's lock for writing."""

    def __init__(self, root: Path) -> None:
        self.path = root / "index.json"
        self._text = str(self.path)
        self._cached: tuple[tuple[int, int, int], Catalog] | None = None

    def read(self) -> Catalog:
        cached = self._cached
        try:
            if cached and cached[0] == _stamp(os.stat(self._text)):
                return cached[1]
            with open(self.path, "rb") as stream:
                stamp = _stamp(os.fstat(stream.fileno()))
                catalog = _decode(stream.read(), self.path)
        except FileNotFoundError:
            return Catalog()
        self._cached = (stamp, catalog)
        return catalog

    def write(self, catalog: Catalog) -> None:
        data = _encode(catalog)
        aside = self.path.with_name(f".index.json.{os.getpid()}")
        try:
            with open(aside, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self.path)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise from_os_error(error, "writing the list of images") from error


def _stamp(look: os.stat_result) -> tuple[int, int, int]:
    return look.st_ino, look.st_mtime_ns, look.st_size


def _encode(catalog: Catalog) -> bytes:
    manifests = []
    for entry in catalog.entries:
        common = {CONFIG: entry.config, ADDED: repr(entry.added)}
        for name in entry.names or (None,):
            notes = common if name is None else {REF_NAME: name, **common}
            manifests.append(replace(entry.manifest, annotations=notes).to_dict())
    index = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": manifests}
    return json.dumps(index, indent=1).encode() + b"\n"


def _decode(data: bytes, path: Path) -> Catalog:
    try:
        manifests: list[Any] = json.loads(data)["manifests"]
        entries: dict[str, Entry] = {}
        for item in manifests:
            manifest = Descriptor.from_dict(item)
            notes = manifest.annotations
            names = (notes[REF_NAME],) if REF_NAME in notes else ()
            old = entries.get(manifest.digest)
            entries[manifest.digest] = Entry(
                replace(manifest, annotations={}),
                Digest(notes[CONFIG]),
                float(notes[ADDED]),
                tuple(sorted({*names, *(old.names if old else ())})),
            )
    except (ValueError, KeyError, TypeError, ManifestError) as error:
        raise StoreError(
            f"the list of images {path} is damaged: {error}",
            hint="run `orchestra system check` to rebuild it from the stored manifests",
        ) from error
    return Catalog(tuple(entries.values()))
