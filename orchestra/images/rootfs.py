"""From an image's layers to overlay lowerdirs: every layer unpacked once, by chain id.

    layers/<chain-id>/fs         the layer's own files, visible only when whole (rename)
    layers/<chain-id>/info.json  diff id, bytes, members, warnings
    layers/<chain-id>.lock       held while it is made: others wait, then find it
    ingest/layer-<chain-id>/     being made

Layers are unpacked beside each other (:func:`stage`), then published lowest first (:func:`publish`),
since a directory that a layer only implies takes its look from the layers below, and a whiteout that hides
nothing there must not stay (:func:`settle`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.events import Progress, Sink, Status, nowhere
from orchestra.images import below
from orchestra.images.digest import Digest, hex_of, new_hash, short
from orchestra.images.locks import acquire
from orchestra.images.manifest import Descriptor
from orchestra.images.mediatype import Compression
from orchestra.images.problems import DigestError, LayerError, from_os_error

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from orchestra.images import layer as layers
    from orchestra.images.compress import Readable
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

COPY, COPY_DRAFT = "shifted-", ".shifted-"
"""Names in a layer's directory: copies with other owners (see ``shifted``), whole and being made."""
_WORKERS = 4
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Staged:
    """A layer unpacked aside and verified, not yet visible."""

    chain_id: Digest
    diff_id: Digest
    folder: Path
    applied: layers.Applied


def layer_dir(store: ImageStore, chain_id: str) -> Path:
    """Where the unpacked layer is or will be."""
    return store.layers_dir / hex_of(chain_id)


def is_unpacked(store: ImageStore, chain_id: str) -> bool:
    return (layer_dir(store, chain_id) / "info.json").exists()


def keep_layer(store: ImageStore, chain_id: str) -> bool:
    """Whether the layer is unpacked; if so it counts as new, so that a lease protects it."""
    if not is_unpacked(store, chain_id):
        return False
    with contextlib.suppress(OSError):
        os.utime(layer_dir(store, chain_id))
        return True
    return False


def info(store: ImageStore, chain_id: str) -> dict[str, Any]:
    """What is known of an unpacked layer: ``diff_id``, ``size``, ``entries``, ``warnings``."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((layer_dir(store, chain_id) / "info.json").read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def unpack(
    store: ImageStore, image: Image, *, sink: Sink = nowhere, limits: layers.Limits | None = None
) -> list[Path]:
    """The directories of all layers, lowest first; unpacks what is missing, several at a time."""
    from concurrent.futures import ThreadPoolExecutor

    chain = image.chain_ids
    paths = [layer_dir(store, chain_id) / "fs" for chain_id in chain]
    if all(is_unpacked(store, chain_id) for chain_id in chain):
        return paths
    with store.lease(), ThreadPoolExecutor(_WORKERS, "unpack") as pool:
        for begin in range(0, len(chain), _BATCH):
            _unpack_batch(store, image, range(begin, min(begin + _BATCH, len(chain))), pool, limits, sink)
    return paths


def _unpack_batch(
    store: ImageStore,
    image: Image,
    numbers: range,
    pool: ThreadPoolExecutor,
    limits: layers.Limits | None,
    sink: Sink,
) -> None:
    """The layers of these numbers; a batch, since each holds an open lock file meanwhile."""
    chain = image.chain_ids
    paths = [layer_dir(store, chain_id) / "fs" for chain_id in chain]
    staged: dict[int, Future[Staged]] = {}
    with contextlib.ExitStack() as held:
        for number in numbers:  # always lowest first, so that two of us never deadlock
            if not is_unpacked(store, chain[number]):
                held.enter_context(layer_lock(store, chain[number]))
                if not is_unpacked(store, chain[number]):
                    job = (store, chain[number], image.diff_ids[number], image.manifest.layers[number])
                    staged[number] = pool.submit(_stage_blob, *job, limits, sink)
        try:
            for number, future in staged.items():
                publish(store, future.result(), paths[:number])
        except BaseException:
            for future in staged.values():
                if not future.cancel() and future.exception() is None:
                    remove_tree(future.result().folder)
            raise


def _stage_blob(
    store: ImageStore,
    chain_id: Digest,
    diff_id: Digest,
    descriptor: Descriptor,
    limits: layers.Limits | None,
    sink: Sink,
) -> Staged:
    resource = f"Layer {short(descriptor.digest)}"
    sink(Progress(resource, "Extracting", total=descriptor.size))
    with store.blobs.open(descriptor.digest, descriptor.size) as stream:
        known = Compression.NONE if descriptor.digest == diff_id else None
        staged = stage(store, chain_id, diff_id, stream, known, limits=limits, trusted=known is not None)
    sink(Progress(resource, "Pull complete", Status.DONE, current=descriptor.size, total=descriptor.size))
    return staged


@contextlib.contextmanager
def layer_lock(store: ImageStore, chain_id: str) -> Iterator[None]:
    """The right to make the layer ``chain_id``."""
    path = store.layers_dir / f"{hex_of(chain_id)}.lock"
    fd = acquire(path)
    assert fd is not None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)


def stage(
    store: ImageStore,
    chain_id: Digest,
    diff_id: Digest,
    stream: Readable,
    compression: Compression | None = None,
    *,
    limits: layers.Limits | None = None,
    trusted: bool = False,
) -> Staged:
    """Unpack ``stream`` aside and verify its diff id (not if ``trusted``: verified already). The caller
    holds :func:`layer_lock`. ``compression`` None looks at the first bytes."""
    from orchestra.images.compress import ahead, chunks
    from orchestra.images.layer import ApplyOptions, apply

    folder = store.blobs.ingest / f"layer-{hex_of(chain_id)}"
    remove_tree(folder)
    hasher = new_hash(diff_id)

    def hashed() -> Iterator[bytes]:
        for chunk in chunks(stream, compression):
            if not trusted:
                hasher.update(chunk)
            yield chunk

    try:
        os.makedirs(folder / "fs", mode=0o700)
        plain = ahead(hashed())
        try:
            applied = apply(plain, folder / "fs", ApplyOptions.for_process(limits))
        finally:
            plain.close()  # type: ignore[attr-defined]
        if not trusted and hasher.hexdigest() != hex_of(diff_id):
            raise DigestError(f"layer {short(diff_id)} has the wrong content (diff id {hasher.hexdigest()})")
    except OSError as error:
        remove_tree(folder)
        raise from_os_error(error, f"unpacking layer {short(diff_id)}") from error
    except BaseException:
        remove_tree(folder)
        raise
    return Staged(chain_id, diff_id, folder, applied)


def publish(store: ImageStore, staged: Staged, lowers: Sequence[Path]) -> Path:
    """Make a staged layer visible above ``lowers`` (lowest first), which are visible already."""
    fs = staged.folder / "fs"
    try:
        settle(fs, staged.applied, lowers)
        data = {
            "diff_id": staged.diff_id,
            "size": staged.applied.size,
            "entries": staged.applied.entries,
            "warnings": staged.applied.warnings,
            "made": time.time(),
        }
        (staged.folder / "info.json").write_text(json.dumps(data))
        final = layer_dir(store, staged.chain_id)
        try:
            os.rename(staged.folder, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_unpacked(store, staged.chain_id):
                raise
            remove_tree(staged.folder)
    except OSError as error:
        remove_tree(staged.folder)
        raise from_os_error(error, f"publishing layer {short(staged.diff_id)}") from error
    return final / "fs"


def settle(fs: Path, applied: layers.Applied, lowers: Sequence[Path]) -> None:
    """What an unpacked layer has to know of those below it (lowest first): the look of its implied directories, and
    which whiteouts hide anything. The others go, with the directories that are there for nothing else: in a directory
    that only one layer has, overlayfs lists them."""
    for path in applied.implied:
        if not below.is_opaque_above(fs, path):
            _look_like_below(fs, path, lowers)
    implied = set(applied.implied)
    for path in applied.whiteouts:
        gone, is_directory = path, False
        while below.is_opaque_above(fs, gone) or not below.shows(lowers, gone):
            if not _drop(fs, gone, directory=is_directory):
                break
            gone, is_directory = gone.rpartition(b"/")[0], True
            if not gone or gone not in implied:
                break


def _look_like_below(fs: Path, path: bytes, lowers: Sequence[Path]) -> None:
    source = below.directory(lowers, path)
    if source is None:
        return
    try:
        target = below.open_inside(fs, path)
        if target is not None:
            try:
                _copy_look(source, target)
            finally:
                os.close(target)
    finally:
        os.close(source)


def _drop(fs: Path, path: bytes, *, directory: bool) -> bool:
    """Remove a whiteout (or empty directory) and leave no trace in the times of its parent; whether it was one."""
    folder, _, base = path.rpartition(b"/")
    parent = below.open_inside(fs, folder)
    if parent is None:
        return False
    try:
        before = os.fstat(parent)
        try:
            if directory:
                os.rmdir(base, dir_fd=parent)
            elif below.is_whiteout(os.stat(base, dir_fd=parent, follow_symlinks=False)):
                os.unlink(base, dir_fd=parent)
            else:
                return False
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        return True
    finally:
        os.close(parent)


_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _copy_look(source: int, target: int) -> None:
    found = os.fstat(source)
    if os.geteuid() == 0:
        os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def dress_upper(upper: Path, lowers: Sequence[Path]) -> None:
    """Give a container's new upper directory the look (mode, owner, attributes) of the image's root: it
    *is* the container's root, and overlayfs does not copy that one up."""
    if lowers:
        target = os.open(upper, _DIRECTORY_FLAGS)
        try:
            source = os.open(lowers[-1], _DIRECTORY_FLAGS)
            try:
                _copy_look(source, target)
            finally:
                os.close(source)
        finally:
            os.close(target)


def remove_tree(path: Path) -> None:
    """Delete a directory of the store, whatever modes its inside has."""

    def again(function: Any, name: str, _error: Any) -> None:
        with contextlib.suppress(OSError):
            os.chmod(os.path.dirname(name), 0o700)
            os.chmod(name, 0o700, follow_symlinks=False) if os.path.isdir(name) else None
            function(name)

    shutil.rmtree(path, onerror=again)


def lowerdirs(paths: Sequence[Path]) -> list[str]:
    """Overlay's order: topmost first."""
    if not paths:
        raise LayerError("an image without layers has no root file system")
    return [str(path) for path in reversed(paths)]
