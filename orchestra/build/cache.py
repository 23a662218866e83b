"""Which step made which layer: ``<builds>/cache/<key>.json``.

A key is the digest of everything that a step depends on: the layers below, the words, the variables, the
content of what is copied or mounted. So a change of a label or of a file's time costs nothing, and the
same step in another Dockerfile is found as well. An entry whose layer is gone from the store is no entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.images import mediatype
from orchestra.images.cached import forget
from orchestra.images.commit import NewLayer
from orchestra.images.digest import parse_digest
from orchestra.images.manifest import Descriptor
from orchestra.images.problems import ImageError

if TYPE_CHECKING:
    from orchestra.images.store import ImageStore


_UNUSED = 14 * 86400.0


@dataclass(frozen=True, slots=True)
class Cached:
    """``layer`` None: the step changed no file."""

    layer: NewLayer | None
    created: float


def key_of(**parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache:
    def __init__(self, folder: Path, store: ImageStore) -> None:
        self.folder = folder
        self._store = store

    def get(self, key: str) -> Cached | None:
        path = self.folder / f"{key}.json"
        try:
            data = json.loads(path.read_bytes())
            created = float(data["created"])
            if data.get("digest") is None:
                return Cached(None, created)
            digest = parse_digest(data["digest"])
            layer = NewLayer(Descriptor(mediatype.OCI_LAYER, digest, int(data["size"])), digest)
        except (OSError, ValueError, KeyError, TypeError, ImageError):
            return None
        if not self._store.blobs.keep(digest):
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return Cached(layer, created)

    def put(self, key: str, entry: Cached) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        data: dict[str, Any] = {"created": entry.created, "digest": None}
        if entry.layer:
            data |= {"digest": entry.layer.descriptor.digest, "size": entry.layer.descriptor.size}
        aside = self.folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
        aside.write_text(json.dumps(data))
        os.replace(aside, self.folder / f"{key}.json")

    def trim(self) -> None:
        """Forget what no build has used for a fortnight."""
        forget(self.folder, older_than=_UNUSED)
