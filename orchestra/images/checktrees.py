"""Whether unpacked layers still are what their blobs say: each is unpacked once more aside and compared,
file by file, then the second copy goes (or, when mending, takes the place of a changed one).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import OrchestraError
from orchestra.events import Progress, Sink, Status
from orchestra.images import rootfs
from orchestra.images.digest import Digest, short
from orchestra.images.tar import printable

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

AGAIN = "it is unpacked again when needed"
_PIECE = 1 << 20


class Kind(Enum):
    BLOB = "damaged blob"
    IMAGE = "incomplete image"
    LAYER = "damaged layer"
    INDEX = "damaged list of images"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem; ``mended`` says that it is one no more."""

    kind: Kind
    name: str
    text: str
    mended: bool = False

    def __str__(self) -> str:
        return f"{self.kind.value} {self.name}: {self.text}{' (mended)' if self.mended else ''}"


def check_trees(store: ImageStore, *, mend: bool, sink: Sink) -> Iterator[Finding]:
    """Every unpacked layer of every whole image, once."""
    used = set(store.in_use())
    seen: set[Digest] = set()
    for image in sorted(store.list(), key=lambda image: image.id not in used):  # those in use first
        for number, chain_id in enumerate(image.chain_ids):
            if chain_id in seen or not rootfs.is_unpacked(store, chain_id):
                continue
            seen.add(chain_id)
            sink(Progress("Layers", "Verifying", details=short(chain_id)))
            try:
                problem = _compare(store, image, number, mend=mend and image.id not in used)
            except OrchestraError as error:  # no space to unpack it beside itself, for one
                yield Finding(Kind.LAYER, short(chain_id), f"cannot be compared ({error.brief})")
                continue
            if problem is None:
                continue
            mended = mend and image.id not in used
            text = f"{problem}; {AGAIN if mend else 'somebody wrote to it'}"
            if mend and not mended:
                text = f"{problem}; a container uses it: remove that and check again"
            yield Finding(Kind.LAYER, short(chain_id), text, mended)
    sink(Progress("Layers", "Verified", Status.DONE))


def _compare(store: ImageStore, image: Image, number: int, *, mend: bool) -> str | None:
    """What differs first, or None."""
    chain_id, descriptor = image.chain_ids[number], image.manifest.layers[number]
    folder = rootfs.layer_dir(store, chain_id)
    lowers = [rootfs.layer_dir(store, lower) / "fs" for lower in image.chain_ids[:number]]
    with rootfs.layer_lock(store, chain_id):
        with store.blobs.open(descriptor.digest, descriptor.size) as stream:
            staged = rootfs.stage(store, chain_id, image.diff_ids[number], stream)
        try:
            rootfs.settle(staged.folder / "fs", staged.applied, lowers)
            problem = difference(folder / "fs", staged.folder / "fs")
        finally:
            rootfs.remove_tree(staged.folder)
        if problem and mend:
            os.rename(folder, store.trash_dir / secrets.token_hex(8))
    return problem


def difference(found: Path, wanted: Path, path: bytes = b"") -> str | None:
    """The first file that is not alike in two trees: names, kinds, modes, owners, times, attributes,
    content."""
    here, there = os.fsencode(found), os.fsencode(wanted)
    names, others = (set(os.listdir(os.path.join(top, path))) for top in (here, there))
    for name in sorted(names ^ others):
        inner = os.path.join(path, name)
        return f"{printable(inner)} {'is new' if name in names else 'is gone'}"
    for name in sorted(names):
        inner = os.path.join(path, name)
        one, two = os.path.join(here, inner), os.path.join(there, inner)
        first, second = os.lstat(one), os.lstat(two)
        if (
            _look(first) != _look(second)
            or _xattrs(one) != _xattrs(two)
            or not _same_content(first, one, two)
        ):
            return f"{printable(inner)} was changed"
        if stat.S_ISDIR(first.st_mode) and (problem := difference(found, wanted, inner)):
            return problem
    return None


def _look(info: os.stat_result) -> tuple[int, ...]:
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    whiteout = stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    mtime = 0 if whiteout else info.st_mtime_ns
    return (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, size, mtime)


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {
        name: os.getxattr(path, name, follow_symlinks=False) for name in names if name != "security.selinux"
    }


def _same_content(info: os.stat_result, one: bytes, two: bytes) -> bool:
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(one) == os.readlink(two)
    if not stat.S_ISREG(info.st_mode):
        return True
    with open(one, "rb", buffering=0) as first, open(two, "rb", buffering=0) as second:
        while data := first.read(_PIECE):
            if data != second.read(len(data)):
                return False
    return True
