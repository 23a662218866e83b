"""Make images in the store: a layer from anything that writes a tar, an image from layers and settings.

Layers made here are stored as plain tars (media type ``…layer.v1.tar``), so that a blob's digest is its
diff id, nothing is compressed twice, and a container starts from them without unpacking gzip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.images import mediatype
from orchestra.images.config import Settings, config_bytes, history_step, new_config
from orchestra.images.diff import TreeOptions, write_tree
from orchestra.images.digest import Digest
from orchestra.images.manifest import Descriptor, Manifest, Platform
from orchestra.images.reference import Reference

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

Producer = Callable[[Callable[[bytes], object]], object]
"""Writes a whole tar, piece by piece, to the function it is given."""


@dataclass(frozen=True, slots=True)
class NewLayer:
    descriptor: Descriptor
    diff_id: Digest


def store_layer(store: ImageStore, produce: Producer) -> NewLayer:
    """Store what ``produce`` writes as a plain layer. Hold a lease until the image is made."""
    with store.blob_writer() as writer:
        produce(writer.write)
        size = writer.offset
        digest = writer.commit()
    return NewLayer(Descriptor(mediatype.OCI_LAYER, digest, size), digest)


def layer_of_tree(store: ImageStore, root: Path, options: TreeOptions | None = None) -> NewLayer:
    """A layer of a directory (``TreeOptions(upper=True)``: of an overlay's upper directory)."""
    return store_layer(store, lambda sink: write_tree(root, sink, options))


def create_image(
    store: ImageStore,
    config: Mapping[str, Any],
    layers: Sequence[Descriptor],
    *,
    names: Iterable[str | Reference] = (),
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Store configuration and manifest over stored layers and make the image visible."""
    data = config_bytes(config)
    manifest = Manifest(
        mediatype.OCI_MANIFEST,
        Descriptor(mediatype.OCI_CONFIG, store.blobs.put(data), len(data)),
        tuple(replace(layer, media_type=_as_oci(layer.media_type)) for layer in layers),
        annotations or {},
    )
    return store.ingest(manifest.to_bytes(), names=names)


def _as_oci(media_type: str) -> str:
    return mediatype.layer_type(mediatype.layer_compression(media_type))


def extend(
    store: ImageStore,
    base: Image | None,
    new_layers: Sequence[NewLayer],
    settings: Settings,
    *,
    history: Iterable[Mapping[str, Any]],
    created: float | None,
    names: Iterable[str | Reference] = (),
    platform: Platform | None = None,
    author: str = "",
) -> Image:
    """An image of ``base``'s layers and ``new_layers`` above them; ``history`` holds the new steps."""
    diff_ids = [*(base.diff_ids if base else ()), *(layer.diff_id for layer in new_layers)]
    steps = [*((base.config.get("history") or ()) if base else ()), *history]
    config = new_config(
        settings,
        diff_ids,
        created=created,
        history=steps,
        platform=platform or (base.platform if base else None),
        author=author or str(base.config.get("author") or "" if base else ""),
    )
    descriptors = [*(base.manifest.layers if base else ()), *(layer.descriptor for layer in new_layers)]
    return create_image(store, config, descriptors, names=names)


def commit(
    store: ImageStore,
    upper: Path,
    base: Image | None,
    *,
    created: float,
    changes: Iterable[str] = (),
    settings: Settings | None = None,
    names: Iterable[str | Reference] = (),
    author: str = "",
    message: str = "",
    created_by: str = "",
    epoch: int | None = None,
    exclude: Callable[[bytes], bool] | None = None,
    shifted: tuple[int, int, int] | None = None,
) -> Image:
    """A container's upper directory as a new image over its ``base``. ``settings`` default to the base's;
    ``changes`` are Dockerfile instructions applied to them; ``exclude`` drops mount points and the like;
    ``shifted`` is the range whose ids ``upper`` has on disk."""
    chosen = settings or Settings.from_dict(base.settings if base else {})
    for change in changes:
        chosen.apply(change)
    moment = float(epoch) if epoch is not None else created
    step = history_step(moment, created_by, comment=message, author=author)
    with store.lease():
        options = TreeOptions(upper=True, epoch=epoch, exclude=exclude, shifted=shifted)
        layer = layer_of_tree(store, upper, options)
        return extend(
            store, base, [layer], chosen, history=[step], created=moment, names=names, author=author
        )
