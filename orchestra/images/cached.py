"""Layers that the build cache remembers: garbage collection spares them, `system df` and `prune` know them.

The records are the builder's (``build/cache.py``): ``<builds>/cache/<key>.json`` with the ``digest`` of a layer,
or none where the step changed no file.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Iterator
from pathlib import Path


def records(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Every readable record and its layer."""
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            digest = json.loads(path.read_bytes()).get("digest")
            yield path, digest if isinstance(digest, str) else None


def digests(folder: Path) -> set[str]:
    return {digest for _, digest in records(folder) if digest}


def forget(folder: Path, *, keep: Collection[str | None] = (), older_than: float = 0.0) -> int:
    """Remove records not used for ``older_than`` seconds whose layer is not in ``keep``; how many. The layers go
    with the next garbage collection."""
    count = 0
    for path, digest in records(folder):
        with contextlib.suppress(OSError):
            if digest not in keep and time.time() - path.stat().st_mtime >= older_than:
                path.unlink()
                count += 1
    return count
