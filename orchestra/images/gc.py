"""What may go: removal of images, pruning, and garbage collection by roots.

Marking and sweeping happen under the store's lock. While any lease lives, content newer than the oldest
live lease is spared: somebody is adding an image and its index entry is not written yet.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import ConflictError, NotFoundError
from orchestra.images.digest import Digest, hex_of, short
from orchestra.images.image import Image, make_image
from orchestra.images.locks import acquire
from orchestra.images.problems import ImageError
from orchestra.images.reference import Reference
from orchestra.images.refs import Catalog
from orchestra.images.rootfs import COPY, COPY_DRAFT, info, remove_tree

if TYPE_CHECKING:
    from orchestra.images.store import ImageStore


@dataclass(slots=True)
class GcReport:
    """What was (or, in a dry run, would be) removed; ``size`` in bytes."""

    blobs: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True, slots=True)
class PruneFilter:
    """``all``: also images that have names. ``until``: only those created before (unix seconds).
    ``labels``: all must match (value "" matches any); ``not_labels``: none may."""

    all: bool = False
    until: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    not_labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PruneReport:
    lines: list[str] = field(default_factory=list)
    size: int = 0


# --- garbage collection --------------------------------------------------------------------------


def collect(store: ImageStore, *, roots: Collection[str] = (), dry_run: bool = False) -> GcReport:
    report = GcReport()
    with store.changing() as catalog:
        horizon = _horizon(store)
        blobs, chains = _marked(store, catalog)
        blobs.update(store.cached())
        for root in roots:
            (blobs if store.blobs.has(root) else chains).add(root)
        for digest, found in list(store.blobs.all()):
            if digest not in blobs and found.st_mtime < horizon:
                report.blobs.append(digest)
                report.size += found.st_size
                if not dry_run:
                    store.blobs.delete(digest)
        trash = _sweep_layers(store, {hex_of(chain) for chain in chains}, horizon, report, dry_run)
        trash += _sweep_partial(store, horizon, report, dry_run)
    for path in [*trash, *([] if dry_run else _old_trash(store))]:
        remove_tree(path)
    return report


def _marked(store: ImageStore, catalog: Catalog) -> tuple[set[str], set[str]]:
    """The blobs and chain ids that the catalog needs. A damaged image keeps what is known of it."""
    blobs: set[str] = set()
    chains: set[str] = set()
    for entry in catalog.entries:
        blobs |= {entry.manifest.digest, entry.config}
        try:
            image = make_image(store, entry)
        except (ImageError, NotFoundError):
            continue
        blobs |= {layer.digest for layer in image.manifest.layers}
        chains |= set(image.chain_ids)
    return blobs, chains


def _horizon(store: ImageStore) -> float:
    """Content newer than this is spared; leases of the dead are removed."""
    horizon = float("inf")
    for name in os.listdir(store.leases_dir):
        path = store.leases_dir / name
        with contextlib.suppress(FileNotFoundError):
            begin = path.stat().st_mtime
            fd = _try_lock(path)
            if fd is None:
                horizon = min(horizon, begin - 1.0)
                continue
            path.unlink(missing_ok=True)
            os.close(fd)
    return horizon


def _try_lock(path: Path) -> int | None:
    """The lock of an existing file, or None if somebody has it."""
    return acquire(path, wait=False)


def _sweep_layers(
    store: ImageStore, keep: set[str], horizon: float, report: GcReport, dry_run: bool
) -> list[Path]:
    trash = []
    for name in sorted(os.listdir(store.layers_dir)):
        path = store.layers_dir / name
        if name.endswith(".lock"):
            _drop_lock(path)
            continue
        with contextlib.suppress(FileNotFoundError):
            if name in keep or path.stat().st_mtime >= horizon:
                trash += _sweep_copies(store, path, horizon, report, dry_run)
                continue
            report.layers.append(f"sha256:{name}")
            report.size += int(info(store, f"sha256:{name}").get("size", 0))
            if not dry_run:
                trash.append(_throw_away(store, path))
    return trash


def _sweep_copies(
    store: ImageStore, layer: Path, horizon: float, report: GcReport, dry_run: bool
) -> list[Path]:
    """Copies with shifted owners for ranges that no running container has, and half-made ones."""
    copies = [path for path in layer.iterdir() if path.name.startswith((COPY, COPY_DRAFT))]
    ranges = store.ranges() if copies else None
    if ranges is None:
        return []
    trash = []
    for path in copies:
        if path.name.removeprefix(COPY) not in ranges and path.lstat().st_ctime < horizon:
            report.partial.append(f"{layer.name}/{path.name}")
            report.size += int(info(store, f"sha256:{layer.name}").get("size", 0))
            if not dry_run:
                trash.append(_throw_away(store, path))
    return trash


def _sweep_partial(store: ImageStore, horizon: float, report: GcReport, dry_run: bool) -> list[Path]:
    """Broken downloads and unpackings whose makers are dead or gone."""
    trash = []
    for name in sorted(os.listdir(store.blobs.ingest)):
        path = store.blobs.ingest / name
        with contextlib.suppress(FileNotFoundError):
            if name.endswith(".lock"):
                _drop_lock(path)
                continue
            found = path.lstat()
            if found.st_mtime >= horizon or not _abandoned(store, name):
                continue
            report.partial.append(name)
            report.size += found.st_size if path.is_file() else 0
            if not dry_run:
                if path.is_dir():
                    trash.append(_throw_away(store, path))
                else:
                    path.unlink()
    return trash


def _abandoned(store: ImageStore, name: str) -> bool:
    """Whether nobody holds the lock of that piece of work (nameless ones are guarded by the lease)."""
    if name.startswith("layer-"):
        lock = store.layers_dir / f"{name[6:]}.lock"
    else:
        lock = store.blobs.ingest / f"{name.removesuffix('.part')}.lock"
    if not lock.exists():
        return True
    fd = acquire(lock, wait=False)
    if fd is None:
        return False
    lock.unlink(missing_ok=True)
    os.close(fd)
    return True


def _drop_lock(path: Path) -> None:
    fd = acquire(path, wait=False)
    if fd is not None:
        path.unlink(missing_ok=True)
        os.close(fd)


def _throw_away(store: ImageStore, path: Path) -> Path:
    """Take a directory out of sight at once; it is deleted later."""
    target = store.trash_dir / secrets.token_hex(8)
    os.rename(path, target)
    return target


def _old_trash(store: ImageStore) -> list[Path]:
    return [store.trash_dir / name for name in os.listdir(store.trash_dir)]


# --- removal -------------------------------------------------------------------------------------


def remove(store: ImageStore, text: str, *, force: bool) -> list[str]:
    """Take names away and drop the image with its last one; content goes with the next collection."""
    from orchestra.images.store import _find

    with store.changing() as catalog:
        entry = _find(catalog, text)
        if entry is None:
            raise NotFoundError(f"no such image: {text}", hint="`orchestra image ls` shows what is there")
        image_id = entry.config
        names = sorted({n for e in catalog.entries if e.config == image_id for n in e.names})
        going = _names_to_take(names, text, force)
        used = image_id in set(store.in_use())
        last = len(going) == len(names)
        if last and used and not force:
            raise ConflictError(
                f"image {text} is in use by a container",
                hint="remove the container first, or take the name away with --force",
            )
        lines = [f"Untagged: {Reference.parse(name).familiar()}" for name in going]
        catalog = catalog.without_names(going)
        if last and not used:
            catalog = catalog.without_images([image_id])
            lines.append(f"Deleted: {image_id}")
        store.refs.write(catalog)
    return lines


def _names_to_take(names: list[str], text: str, force: bool) -> list[str]:
    """By name: that name, and with a repository's last tag its digests. By id: all names."""
    by_name = None
    with contextlib.suppress(ImageError):
        by_name = Reference.parse(text).storage_key()
    if by_name in names:
        rest = [name for name in names if name != by_name]
        repository = Reference.parse(by_name).name
        tags_left = [name for name in rest if "@" not in name and Reference.parse(name).name == repository]
        if tags_left:
            return [by_name]
        return [by_name, *(name for name in rest if Reference.parse(name).name == repository)]
    tags = [name for name in names if "@" not in name]
    if len(tags) > 1 and not force:
        raise ConflictError(
            f"image {text} has several names",
            details=tuple(Reference.parse(name).familiar() for name in tags),
            hint="remove them by name, or all with --force",
        )
    return names


def prune(store: ImageStore, which: PruneFilter, *, dry_run: bool) -> PruneReport:
    """Remove images without a name (``which.all``: all that no container uses), then collect."""
    report = PruneReport()
    with store.changing() as catalog:
        used = set(store.in_use())
        going: dict[Digest, list[str]] = {}
        for image in store.list():
            if image.id not in used and (which.all or not image.tags) and _matches(image, which):
                going[image.id] = list(image.references)
        for image_id, names in going.items():
            report.lines += [f"Untagged: {Reference.parse(name).familiar()}" for name in names]
            report.lines.append(f"Deleted: {image_id}")
        smaller = catalog.without_images(going)
        if dry_run:
            report.size = _size_of_rest(store, smaller)
            return report
        if going:
            store.refs.write(smaller)
    report.size = collect(store).size
    return report


def _size_of_rest(store: ImageStore, catalog: Catalog) -> int:
    """Bytes that collecting for ``catalog`` would free."""
    blobs, chains = _marked(store, catalog)
    size = sum(found.st_size for digest, found in store.blobs.all() if digest not in blobs)
    for name in os.listdir(store.layers_dir):
        if f"sha256:{name}" not in chains and not name.endswith(".lock"):
            size += int(info(store, f"sha256:{name}").get("size", 0))
    return size


def _matches(image: Image, which: PruneFilter) -> bool:
    labels = image.settings.get("Labels") or {}

    def has(key: str, value: str) -> bool:
        return key in labels and (not value or labels[key] == value)

    if which.until is not None and created_at(image) >= which.until:
        return False
    if not all(has(key, value) for key, value in which.labels.items()):
        return False
    return not any(has(key, value) for key, value in which.not_labels.items())


def created_at(image: Image) -> float:
    """The image's creation time in unix seconds; when it was added, if its maker did not say."""
    text = image.created
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(text).timestamp()
    return image.entry.added


def describe(image: Image) -> str:
    """How an image is called in a message."""
    return image.tags[0] if image.tags else short(image.id)
