"""Disk usage of the image store."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.images.rootfs import info

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """``size`` of all blobs and unpacked layers, ``shared`` the part other images need, too."""

    image: Image
    size: int
    shared: int
    used: bool

    @property
    def unique(self) -> int:
        return self.size - self.shared


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """``size`` counts every blob and layer once; ``reclaimable`` is what unused images hold alone, and
    what belongs to no image."""

    images: tuple[ImageUsage, ...]
    size: int
    reclaimable: int
    layers: int

    @property
    def active(self) -> int:
        return sum(1 for row in self.images if row.used)


def unpacked_size(store: ImageStore, image: Image) -> int:
    """Bytes of the root file system; what is not unpacked yet counts as stored."""
    total = 0
    for chain_id, descriptor in zip(image.chain_ids, image.manifest.layers, strict=True):
        total += int(info(store, chain_id).get("size", descriptor.size))
    return total


def disk_usage(store: ImageStore) -> DiskUsage:
    images = store.list()
    used = set(store.in_use())
    blobs = {str(digest): found.st_size for digest, found in store.blobs.all()}
    parts: list[dict[str, int]] = []
    for image in images:
        own: set[str] = {image.id, image.digest, *(layer.digest for layer in image.manifest.layers)}
        sizes: dict[str, int] = {digest: blobs.get(digest, 0) for digest in own}
        for chain_id in image.chain_ids:
            sizes["layer " + chain_id] = int(info(store, chain_id).get("size", 0))
        parts.append(sizes)
    count = Counter(key for sizes in parts for key in sizes)
    rows = tuple(
        ImageUsage(
            image,
            sum(sizes.values()),
            sum(size for key, size in sizes.items() if count[key] > 1),
            image.id in used,
        )
        for image, sizes in zip(images, parts, strict=True)
    )
    everything = dict(blobs)
    chains = 0
    for path in store.layers_dir.iterdir():
        if path.is_dir():
            chains += 1
            everything["layer sha256:" + path.name] = int(info(store, "sha256:" + path.name).get("size", 0))
    needed = {key for row, sizes in zip(rows, parts, strict=True) if row.used for key in sizes}
    size = sum(everything.values())
    return DiskUsage(rows, size, sum(n for key, n in everything.items() if key not in needed), chains)
