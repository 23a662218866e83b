"""Blobs by digest: written under another name, verified, and only then visible.

    blobs/sha256/<hex>       whole and verified, never changed
    ingest/<hex>.part        a broken download, continued by the next writer of that digest
    ingest/<random>.part     content whose digest is known only at its end
    ingest/<hex>.lock        held by the writer of that digest: a second one waits, then finds the blob

A ``kill -9`` leaves a ``.part`` file at most.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from orchestra.errors import NotFoundError
from orchestra.images.digest import (
    Digest,
    Hash,
    algorithm_of,
    digest_from,
    hex_of,
    new_hash,
    parse_digest,
    short,
)
from orchestra.images.locks import acquire
from orchestra.images.problems import DigestError, StoreError, from_os_error

_CHUNK = 1 << 20


class BlobWriter:
    """Writes one blob. Use as a context manager; without :meth:`commit` nothing becomes visible and what
    was written stays as a ``.part`` file when the digest was known beforehand (``offset`` of the next
    writer), else goes.

    ``complete``: the blob was there already (or another writer just made it): write nothing.
    ``offset``: bytes already there and hashed; go on from that position.
    """

    def __init__(self, blobs: BlobStore, digest: Digest | None, size: int | None, *, resume: bool) -> None:
        self._blobs = blobs
        self.digest = digest
        self.size = size
        self.offset = 0
        self.complete = False
        self._hash: Hash = new_hash(digest or "sha256:")
        self._lock: int | None = None
        self._file: BinaryIO | None = None
        if digest is not None:
            self._lock = acquire(blobs.ingest / f"{hex_of(digest)}.lock")
            self._part = blobs.ingest / f"{hex_of(digest)}.part"
            if blobs.keep(digest):
                self.complete = True
                self.offset = blobs.size(digest)
                self._release()
                return
        else:
            self._part = blobs.ingest / f"{secrets.token_hex(12)}.part"
        try:
            self._open(resume)
        except BaseException:
            self._release()
            raise

    def _open(self, resume: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (0 if resume else os.O_TRUNC)
        self._file = os.fdopen(os.open(self._part, flags, 0o600), "r+b", buffering=0)
        while data := self._file.read(_CHUNK):
            self._hash.update(data)
            self.offset += len(data)
        if self.size is not None and self.offset > self.size:
            self.restart()

    def restart(self) -> None:
        """Forget what was written (the server cannot continue, or the rest did not fit)."""
        assert self._file is not None
        self._file.seek(0)
        self._file.truncate()
        self._hash = new_hash(self.digest or "sha256:")
        self.offset = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        assert self._file is not None, "the blob is complete"
        if self.size is not None and self.offset + len(data) > self.size:
            raise DigestError(f"{self._name()} is longer than the {self.size} bytes promised")
        self._hash.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            # the hash no longer fits the file: the next writer reads it again
            raise from_os_error(error, f"writing {self._name()}") from error
        self.offset += len(data)
        return len(data)

    def commit(self) -> Digest:
        """Verify size and digest and make the blob visible. A mismatch removes what was written."""
        if self.complete:
            assert self.digest is not None
            self._release()
            return self.digest
        assert self._file is not None
        if self.size is not None and self.offset != self.size:
            # a short read is no lie: keep it, the next writer goes on
            raise DigestError(f"{self._name()} ended after {self.offset} of {self.size} bytes")
        found = digest_from(self._hash, algorithm_of(self.digest or "sha256:"))
        if self.digest is not None and found != self.digest:
            self.discard()
            raise DigestError(f"{self._name()} has the wrong digest {found}")
        self.digest = found
        try:
            os.fchmod(self._file.fileno(), 0o400)
            os.replace(self._part, self._blobs.path(found))
        except OSError as error:
            raise from_os_error(error, f"storing {self._name()}") from error
        self.complete = True
        self._release()
        return found

    def discard(self) -> None:
        """Remove what was written."""
        if not self.complete:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part)
        self._release()

    def close(self) -> None:
        """End without a commit."""
        if self._file is not None and not self.complete and self.digest is None:
            self.discard()
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            if self.complete and self.digest is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._blobs.ingest / f"{hex_of(self.digest)}.lock")
            os.close(self._lock)
            self._lock = None

    def _name(self) -> str:
        return f"blob {short(self.digest)}" if self.digest else "a new blob"

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobStore:
    """All blobs of one store; see the module text for the files."""

    def __init__(self, root: Path) -> None:
        self.root = root / "blobs"
        self.ingest = root / "ingest"

    def make(self) -> None:
        for algorithm in ("sha256", "sha512"):
            (self.root / algorithm).mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ingest.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        checked = parse_digest(digest)
        return self.root / algorithm_of(checked) / hex_of(checked)

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def keep(self, digest: str) -> bool:
        """Whether the blob is there; if so it counts as new, so that a lease protects it (see gc.py)."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def size(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _missing(digest) from None

    def open(self, digest: str, size: int | None = None) -> BinaryIO:
        """The blob for reading; ``size`` is checked where given."""
        try:
            stream = open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise _missing(digest) from None
        found = os.fstat(stream.fileno()).st_size
        if size is not None and found != size:
            stream.close()
            raise DigestError(f"blob {short(digest)} has {found} bytes instead of {size}", hint=_MEND)
        return stream

    def read(self, digest: str, *, limit: int = 16 << 20) -> bytes:
        """A small blob whole, verified again (manifests, configurations)."""
        with self.open(digest) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise StoreError(f"blob {short(digest)} is larger than the {limit} bytes allowed for it")
        check = new_hash(digest)
        check.update(data)
        if check.hexdigest() != hex_of(digest):
            raise DigestError(f"blob {short(digest)} is damaged", hint=_MEND)
        return data

    def writer(
        self, digest: str | None = None, size: int | None = None, *, resume: bool = True
    ) -> BlobWriter:
        """Waits while another thread or process writes the same digest."""
        checked = parse_digest(digest) if digest is not None else None
        try:
            return BlobWriter(self, checked, size, resume=resume)
        except OSError as error:
            raise from_os_error(error, f"writing blob {short(digest or ':new')}") from error

    def put(self, data: bytes, digest: str | None = None) -> Digest:
        """Store bytes held in memory."""
        with self.writer(digest, len(data), resume=False) as writer:
            if not writer.complete:
                writer.write(data)
            return writer.commit()

    def all(self) -> Iterator[tuple[Digest, os.stat_result]]:
        """Every visible blob with its stat."""
        for algorithm in ("sha256", "sha512"):
            with contextlib.suppress(FileNotFoundError), os.scandir(self.root / algorithm) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        yield Digest(f"{algorithm}:{entry.name}"), entry.stat(follow_symlinks=False)

    def verify(self, digest: str) -> bool:
        """Whether the stored bytes still have that digest."""
        check = new_hash(digest)
        with self.open(digest) as stream:
            while data := stream.read(_CHUNK):
                check.update(data)
        return check.hexdigest() == hex_of(digest)

    def delete(self, digest: str) -> int:
        """Remove a blob; the bytes it had (0 if it was not there)."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size


_MEND = "run `orchestra system check` to mend the store"


def _missing(digest: str) -> NotFoundError:
    return NotFoundError(f"blob {short(digest)} is not in the store", hint="pull or load the image again")
