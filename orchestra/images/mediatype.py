"""The media types of manifests, indexes, configurations and layers (OCI and Docker v2 schema 2)."""

from __future__ import annotations

from enum import Enum

from orchestra.errors import UnsupportedError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
ACCEPTED = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)
"""What a client asks a registry for, in order of preference."""


class Compression(Enum):
    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


_LAYERS = {
    OCI_LAYER: Compression.NONE,
    OCI_LAYER_GZIP: Compression.GZIP,
    OCI_LAYER_ZSTD: Compression.ZSTD,
    DOCKER_LAYER: Compression.NONE,
    DOCKER_LAYER_GZIP: Compression.GZIP,
    DOCKER_LAYER_ZSTD: Compression.ZSTD,
    "application/vnd.docker.container.image.rootfs.diff+x-gtar": Compression.NONE,
}


def is_foreign(media_type: str) -> bool:
    """Layers that their maker forbids to distribute."""
    return media_type.startswith((OCI_FOREIGN, DOCKER_FOREIGN)) or "nondistributable" in media_type


def layer_compression(media_type: str) -> Compression:
    """How a layer of this type is compressed; refuses what is no layer or may not be distributed."""
    found = _LAYERS.get(media_type)
    if found is not None:
        return found
    if is_foreign(media_type):
        raise UnsupportedError(
            f"layer of type {media_type} is non-distributable",
            hint="such layers (Windows base images) cannot be fetched from or pushed to a registry",
        )
    if "encrypted" in media_type:
        raise UnsupportedError(f"encrypted layers ({media_type}) are not supported")
    raise UnsupportedError(f"not an image layer: media type {media_type!r}")


def layer_type(compression: Compression, *, docker: bool = False) -> str:
    """The media type of a layer so compressed."""
    if docker:
        return {Compression.NONE: DOCKER_LAYER, Compression.GZIP: DOCKER_LAYER_GZIP}.get(
            compression, DOCKER_LAYER_ZSTD
        )
    return {Compression.NONE: OCI_LAYER, Compression.GZIP: OCI_LAYER_GZIP}.get(compression, OCI_LAYER_ZSTD)


def sniff(head: bytes) -> Compression:
    """The compression that the first bytes of a file show."""
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd") or (len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18"):
        return Compression.ZSTD
    return Compression.NONE
