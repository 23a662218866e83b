"""Compressed layers as streams of plain chunks, and back. gzip by zlib; zstd by the ``zstandard`` package
or the ``zstd`` program. Every chunk is bounded, so a bomb costs time and never memory.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from orchestra.errors import UnsupportedError
from orchestra.images.mediatype import Compression, sniff
from orchestra.images.problems import LayerError

CHUNK = 1 << 20
_READ = 256 << 10


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def chunks(stream: Readable, compression: Compression | None = None) -> Iterator[bytes]:
    """The plain bytes of ``stream``; ``compression`` None looks at the first bytes."""
    head = b""
    if compression is None:
        while len(head) < 4 and (more := stream.read(4 - len(head))):
            head += more
        compression = sniff(head)
    raw = _raw(stream, head, _READ if compression is not Compression.NONE else CHUNK)
    if compression is Compression.GZIP:
        return _gunzip(raw)
    if compression is Compression.ZSTD:
        return _unzstd(raw)
    return raw


def _raw(stream: Readable, head: bytes, size: int) -> Iterator[bytes]:
    if head:
        yield head
    while data := stream.read(size):
        yield data


def _gunzip(raw: Iterator[bytes]) -> Iterator[bytes]:
    """All members of a gzip stream; zero padding after the last is allowed, other garbage is not."""
    try:
        unzip = zlib.decompressobj(31)
        for piece in raw:
            data = piece
            while data:
                if unzip.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    unzip = zlib.decompressobj(31)
                plain = unzip.decompress(data, CHUNK)
                data = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
                if plain:
                    yield plain
        while not unzip.eof and (plain := unzip.decompress(b"", CHUNK)):
            yield plain
    except zlib.error as error:
        raise LayerError(f"damaged gzip data: {error}") from None
    if not unzip.eof:
        raise LayerError("gzip data ends in the middle")


def _unzstd(raw: Iterator[bytes]) -> Iterator[bytes]:
    module = _zstandard()
    if module is None:
        return _through_program(["zstd", "-dc", "--quiet", "--memory=2048MB"], raw)
    return _unzstd_module(module, raw)


def _zstandard() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError:
        return None


def _unzstd_module(module: Any, raw: Iterator[bytes]) -> Iterator[bytes]:
    reader = module.ZstdDecompressor().stream_reader(_Reader(raw), read_across_frames=True)
    try:
        while plain := reader.read(CHUNK):
            yield plain
    except module.ZstdError as error:
        raise LayerError(f"damaged zstd data: {error}") from None


class _Reader:
    """An iterator of chunks as something with ``read``."""

    def __init__(self, raw: Iterator[bytes]) -> None:
        self._raw = raw
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._raw, b"")
        if size < 0:
            size = len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _through_program(command: list[str], raw: Iterator[bytes]) -> Iterator[bytes]:
    if shutil.which(command[0]) is None:
        raise UnsupportedError(
            "zstd layers need the Python package zstandard or the program zstd",
            hint="install one of them (`pip install orchestra[zstd]`)",
        )
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        feeder = threading.Thread(target=_feed, args=(child.stdin, raw), daemon=True)
        feeder.start()
        assert child.stdout is not None and child.stderr is not None
        try:
            while data := child.stdout.read(CHUNK):
                yield data
        except GeneratorExit:
            child.kill()
            raise
        feeder.join()
        if child.wait():
            reason = child.stderr.read(500).decode(errors="replace").strip()
            raise LayerError(f"damaged zstd data: {reason}")


def _feed(pipe: Any, raw: Iterator[bytes]) -> None:
    try:
        for data in raw:
            pipe.write(data)
    except BrokenPipeError:
        pass
    finally:
        try:
            pipe.close()
        except BrokenPipeError:
            pass


class Compressor:
    """Plain bytes in, compressed bytes to ``sink``; the same input gives the same output (no time, no
    name in the gzip header)."""

    def __init__(self, compression: Compression, sink: Callable[[bytes], object], level: int = 6) -> None:
        self._sink = sink
        self._packer: Any = None
        if compression is Compression.GZIP:
            self._packer = zlib.compressobj(level, zlib.DEFLATED, 31)
        elif compression is Compression.ZSTD:
            module = _zstandard()
            if module is None:
                raise UnsupportedError("writing zstd needs the Python package zstandard")
            self._packer = module.ZstdCompressor(level=3).compressobj()

    def write(self, data: bytes) -> int:
        packed = self._packer.compress(data) if self._packer else data
        if packed:
            self._sink(packed)
        return len(data)

    def finish(self) -> None:
        if self._packer:
            self._sink(self._packer.flush())


def ahead(source: Iterator[bytes], depth: int = 4) -> Iterator[bytes]:
    """``source`` computed by a thread of its own, ``depth`` chunks ahead at most (decompression and
    hashing release the interpreter's lock, so they run beside the consumer)."""
    import queue

    line: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: bytes | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                line.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        try:
            for chunk in source:
                if not put(chunk):
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=produce, name="decompress", daemon=True)
    thread.start()
    try:
        while (item := line.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
