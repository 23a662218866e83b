"""What can go wrong with images, as errors a user may see."""

from __future__ import annotations

import errno

from orchestra.errors import OrchestraError


class ImageError(OrchestraError):
    """Something about an image, a blob or a layer is wrong."""


class InvalidReferenceError(ImageError):
    """An image name that is not one."""


class DigestError(ImageError):
    """Content whose digest or size is not the promised one, or a text that is no digest."""


class ManifestError(ImageError):
    """A manifest, index or image configuration that is malformed or of an unknown kind."""


class LayerError(ImageError):
    """A layer archive that is malformed, hostile or over its bounds."""


class StoreError(ImageError):
    """The image store cannot do what was asked (full disk, damage)."""


def from_os_error(error: OSError, doing: str) -> OrchestraError:
    """An operating system error as a clear message; ``doing`` is "writing layer sha256:12…" or so."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left while {doing}{place}",
            hint="free space, for example with `orchestra image prune -a`; nothing was lost, run it again",
        )
    if error.errno == errno.EROFS:
        return StoreError(f"read-only file system while {doing}{place}")
    text = error.strerror or str(error)
    return StoreError(f"{text[:1].lower()}{text[1:]} while {doing}{place}")
