"""Verify the store and mend it: digests of all blobs, images that are whole, layers that are unpacked.

Mending never invents content: a damaged blob is set aside (so that the next pull fetches it), an image
that lost a blob loses its entry, a list of images that cannot be read is rebuilt from the manifests.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestra.errors import NotFoundError
from orchestra.events import Progress, Sink, Status
from orchestra.images.checktrees import AGAIN, Finding, Kind, check_trees
from orchestra.images.digest import is_digest, short
from orchestra.images.image import make_image
from orchestra.images.manifest import Descriptor, Manifest, parse_manifest
from orchestra.images.problems import ImageError
from orchestra.images.refs import Catalog, Entry

if TYPE_CHECKING:
    from orchestra.images.store import ImageStore

_SMALL = 4 << 20


def check(store: ImageStore, *, mend: bool, sink: Sink) -> list[Finding]:
    findings = list(_check_blobs(store, mend, sink))
    with store.lease():
        findings += _check_index(store, mend)
        findings += _check_images(store, mend)
        findings += _check_layers(store, mend)
        findings += check_trees(store, mend=mend, sink=sink)
    return findings


def _check_blobs(store: ImageStore, mend: bool, sink: Sink) -> Iterator[Finding]:
    blobs = sorted((digest, found.st_size) for digest, found in store.blobs.all())
    total = sum(size for _digest, size in blobs)
    done = 0
    for digest, size in blobs:
        sink(Progress("Blobs", "Verifying", current=done, total=total))
        done += size
        good = False
        with contextlib.suppress(NotFoundError, OSError):
            good = is_digest(digest) and store.blobs.verify(digest)
        if good or not store.blobs.root.joinpath(*digest.split(":")).exists():
            continue
        if mend:
            path = store.blobs.root.joinpath(*digest.split(":"))
            os.rename(path, store.trash_dir / f"blob-{secrets.token_hex(8)}")
        yield Finding(Kind.BLOB, short(digest), "its content does not have its digest", mend)
    sink(Progress("Blobs", "Verified", Status.DONE, current=total, total=total))


def _check_index(store: ImageStore, mend: bool) -> list[Finding]:
    try:
        store.refs.read()
        return []
    except ImageError as error:
        problem = error.brief
    if mend:
        with _locked(store):
            aside = store.refs.path.with_name(f"index.json.damaged-{secrets.token_hex(4)}")
            os.replace(store.refs.path, aside)
            store.refs.write(_rebuilt(store))
    return [Finding(Kind.INDEX, "index.json", problem + "; names are lost, images are kept", mend)]


def _locked(store: ImageStore) -> contextlib.AbstractContextManager[None]:
    from orchestra.images.locks import locked

    return locked(store.root / "lock")


def _rebuilt(store: ImageStore) -> Catalog:
    """Every whole manifest among the blobs, without names."""
    catalog = Catalog()
    for digest, found in sorted(store.blobs.all()):
        if found.st_size > _SMALL:
            continue
        with contextlib.suppress(ImageError, NotFoundError):
            data = store.blobs.read(digest, limit=_SMALL)
            if not data.startswith(b"{"):
                continue
            manifest = parse_manifest(data)
            if isinstance(manifest, Manifest):
                descriptor = Descriptor(manifest.media_type, digest, len(data))
                entry = Entry(descriptor, manifest.config.digest, found.st_mtime)
                make_image(store, entry, manifest)
                catalog = catalog.with_entry(entry)
    return catalog


def _check_images(store: ImageStore, mend: bool) -> list[Finding]:
    findings = []
    with contextlib.suppress(ImageError), store.changing() as catalog:
        kept = []
        for entry in catalog.entries:
            problem = _image_problem(store, entry)
            if problem is None:
                kept.append(entry)
                continue
            name = entry.names[0] if entry.names else short(entry.config)
            findings.append(Finding(Kind.IMAGE, name, f"{problem}; pull or load it again", mend))
        if mend and len(kept) != len(catalog.entries):
            store.refs.write(Catalog(tuple(kept)))
    return findings


def _image_problem(store: ImageStore, entry: Entry) -> str | None:
    try:
        image = make_image(store, entry)
        for blob in image.manifest.layers:
            store.blobs.open(blob.digest, blob.size).close()
    except (ImageError, NotFoundError) as error:
        return error.brief
    return None


def _check_layers(store: ImageStore, mend: bool) -> list[Finding]:
    """Unpacked layers whose note is unreadable or whose directory is gone."""
    findings = []
    for name in sorted(os.listdir(store.layers_dir)):
        path = store.layers_dir / name
        if name.endswith(".lock") or not path.is_dir():
            continue
        try:
            note = json.loads((path / "info.json").read_bytes())
            if not (path / "fs").is_dir():
                raise ValueError("the directory fs is gone")
            if not is_digest(note["diff_id"]):
                raise ValueError("no diff id")
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            problem = str(error)
        if mend:
            os.rename(path, store.trash_dir / secrets.token_hex(8))
        text = f"{problem}; {AGAIN}"
        findings.append(Finding(Kind.LAYER, short(f"sha256:{name}"), text, mend))
    return findings
