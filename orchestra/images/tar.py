"""A lean streaming tar reader for hostile archives: ustar, PAX, GNU long names and sparse files.

:func:`entries` yields one :class:`Entry` after another; its content is read with ``copy_to`` or skipped.
Names and link targets are bytes, exactly as the archive has them: making them safe is the reader's
affair (layer.py). Nothing here touches the file system.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import os
import struct
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator

from orchestra.images.problems import LayerError

BLOCK = 512
META_LIMIT = 1 << 20
"""Bytes of one PAX header or GNU long name."""
SPARSE_LIMIT = 1 << 16
EXTENDED_LIMIT = 32
"""Extended headers before one member."""

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s")
_ZERO = bytes(BLOCK)
_NO_DATA = frozenset((LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_IS_FILE = frozenset((REGULAR, b"\0", b"7", b"S"))


class Input:
    """Bytes of a stream of chunks, taken in order."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._data = b""
        self._at = 0
        self.taken = 0

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes, or b"" at the very end."""
        at, end = self._at, self._at + count
        if end <= len(self._data):
            self._at = end
            self.taken += count
            return self._data[at:end]
        return self._take_across(count)

    def _take_across(self, count: int) -> bytes:
        parts = [self._data[self._at :]]
        have = len(parts[0])
        while have < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                if have:
                    raise LayerError(f"archive ends in the middle (after {self.taken + have} bytes)")
                self._data, self._at = b"", 0
                return b""
            parts.append(chunk)
            have += len(chunk)
        self._data = b"".join(parts)
        self._at = count
        self.taken += count
        return self._data[:count]

    def pour(self, count: int, sink: Callable[[memoryview], object]) -> None:
        """Hand ``count`` bytes to ``sink`` without copying them."""
        self.taken += count
        while count:
            available = len(self._data) - self._at
            if not available:
                self._data = next(self._chunks, b"")
                self._at = 0
                if not self._data:
                    raise LayerError(f"archive ends in the middle (after {self.taken - count} bytes)")
                continue
            step = min(available, count)
            sink(memoryview(self._data)[self._at : self._at + step])
            self._at += step
            count -= step

    def skip(self, count: int) -> None:
        self.pour(count, _ignore)

    def drain(self, limit: int) -> None:
        """Read to the end (padding after the archive belongs to its digest)."""
        rest = self._data[self._at :]
        self._data, self._at = b"", 0
        for chunk in itertools.chain((rest,), self._chunks):
            self.taken += len(chunk)
            if self.taken > limit:
                raise LayerError(f"archive has more than {limit} bytes")


def _ignore(_data: memoryview) -> None:
    return None


class Entry:
    """One member. ``kind`` is one of the constants above; ``size`` counts the bytes of a file as it will
    be, ``stored`` those in the archive; ``mtime`` is in nanoseconds."""

    __slots__ = (
        "_input", "_left", "gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "padding",
        "size", "sparse", "stored", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, source: Input, name: bytes, kind: bytes) -> None:
        self._input = source
        self.name, self.kind = name, kind
        self.mode = self.uid = self.gid = self.mtime = 0
        self.link = b""
        self.size = self.stored = self._left = self.padding = 0
        self.major = self.minor = 0
        self.xattrs: dict[str, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None

    def copy_to(self, fd: int) -> None:
        """Write the content to the file ``fd``, holes as holes."""
        source = self._input
        if self.sparse is not None:
            self._copy_sparse(fd)
            return
        left, self._left = self._left, 0
        data, at = source._data, source._at
        if left <= len(data) - at:  # the usual small file: one write
            view = memoryview(data)[at : at + left]
            source._at = at + left
            source.taken += left
            while view:
                view = view[os.write(fd, view) :]
            return

        def write(view: memoryview) -> None:
            while view:
                view = view[os.write(fd, view) :]

        source.pour(left, write)

    def _copy_sparse(self, fd: int) -> None:
        assert self.sparse is not None
        os.ftruncate(fd, self.size)
        for offset, length in self.sparse:
            position = offset

            def write(view: memoryview) -> None:
                nonlocal position
                while view:
                    done = os.pwrite(fd, view, position)
                    position += done
                    view = view[done:]

            self._left -= length
            self._input.pour(length, write)

    def read(self, limit: int) -> bytes:
        """The stored content in memory (small members only)."""
        if self._left > limit:
            raise LayerError(f"member {printable(self.name)} has more than {limit} bytes")
        left, self._left = self._left, 0
        return self._input.take(left) if left else b""

    def pour(self, sink: Callable[[memoryview], object]) -> None:
        """Hand the stored content to ``sink`` piece by piece."""
        left, self._left = self._left, 0
        self._input.pour(left, sink)

    def finish(self) -> None:
        """Skip what was not read and the padding."""
        rest = self._left + self.padding
        self._left = self.padding = 0
        source = self._input
        if rest <= len(source._data) - source._at:
            source._at += rest
            source.taken += rest
        else:
            source.skip(rest)


def printable(name: bytes) -> str:
    """A name for a message: no control characters, not too long."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])


def entries(chunks: Iterable[bytes] | Input, *, limit: int = 1 << 62) -> Iterator[Entry]:
    """The members of an archive of at most ``limit`` plain bytes. The caller must use an entry before it
    asks for the next."""
    source = chunks if isinstance(chunks, Input) else Input(chunks)
    extended = 0
    shared: dict[bytes, bytes] = {}
    local: dict[bytes, bytes] = {}
    maps: list[tuple[bytes, bytes]] = []
    long_name = long_link = None
    unpack, adler, take = _HEADER.unpack, zlib.adler32, source.take
    while True:
        block = take(BLOCK)
        if not block or block == _ZERO:
            break
        fields = unpack(block[:500])
        _verify(block, fields[6], adler)
        kind = fields[7]
        if kind in b"xgXLK":
            extended += 1
            if extended > EXTENDED_LIMIT:
                raise LayerError("too many extended headers for one member")
            data = _meta(source, fields[4], kind)
            if kind == b"L":
                long_name = data.rstrip(b"\0")
            elif kind == b"K":
                long_link = data.rstrip(b"\0")
            elif kind == b"g":
                shared.update(_pax(data, []))
                if sum(map(len, shared.values())) > META_LIMIT:
                    raise LayerError("global extended headers are too large")
            else:
                maps = []
                local = _pax(data, maps)
            continue
        extended = 0
        entry = _entry(fields, source)
        if kind == b"S":
            _old_sparse(entry, block, source)
        if shared or local:
            _apply_pax(entry, {**shared, **local} if shared else local)
            if b"GNU.sparse.map" in local or b"GNU.sparse.major" in local or maps:
                _pax_sparse(entry, local, maps)
        if long_name is not None:
            entry.name = long_name
        if long_link is not None:
            entry.link = long_link
        long_name = long_link = None
        local, maps = {}, []
        if source.taken + entry.stored > limit:
            raise LayerError(f"archive has more than {limit} bytes")
        yield entry
        entry.finish()
    source.drain(limit)


def _verify(block: bytes, field: bytes, adler: Callable[[bytes], int]) -> None:
    """The header's checksum. adler32's low half is 1 + the sum of the bytes modulo 65521."""
    try:
        stored = int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise LayerError("not a tar archive, or a damaged one (bad header checksum)") from None
    spaced = block[:148] + b"        " + block[156:]
    if adler(spaced) & 0xFFFF == (stored + 1) % 65521:
        return
    if sum(byte - 256 if byte > 127 else byte for byte in spaced) == stored:  # what some old tars wrote
        return
    raise LayerError("not a tar archive, or a damaged one (bad header checksum)")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field)
        return value - (1 << bits) if field[0] & 0x40 else value & ((1 << (bits - 1)) - 1)
    text = field.rstrip(b"\0 ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        text = text.split(b"\0", 1)[0].strip()
        try:
            return int(text or b"0", 8)
        except ValueError:
            raise LayerError(f"damaged tar header: {field[:12]!r} is no number") from None


def _text(field: bytes) -> bytes:
    field = field.rstrip(b"\0")
    return field.split(b"\0", 1)[0] if b"\0" in field else field


def _entry(fields: tuple[bytes, ...], source: Input) -> Entry:
    kind = fields[7]
    name = _text(fields[0])
    if fields[9] == b"ustar\0" and fields[15][0]:
        name = _text(fields[15]) + b"/" + name
    if kind in _IS_FILE:
        kind = DIRECTORY if kind in b"\0" and name.endswith(b"/") else REGULAR
    entry = Entry(source, name, kind)
    entry.mode = _number(fields[1]) & 0o7777
    entry.uid, entry.gid = _number(fields[2]), _number(fields[3])
    entry.mtime = _number(fields[5]) * 1_000_000_000
    if kind not in _NO_DATA:
        _set_size(entry, _number(fields[4]))
    if kind in (LINK, SYMLINK):
        entry.link = _text(fields[8])
    elif kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = _number(fields[13]), _number(fields[14])
    return entry


def _set_size(entry: Entry, size: int) -> None:
    if not 0 <= size < 1 << 60:
        raise LayerError(f"member {printable(entry.name)} has an impossible size {size}")
    entry.size = entry.stored = entry._left = size
    entry.padding = -size % BLOCK


def _meta(source: Input, field: bytes, kind: bytes) -> bytes:
    size = _number(field)
    if not 0 <= size <= META_LIMIT:
        raise LayerError(f"extended tar header of {size} bytes (at most {META_LIMIT} are taken)")
    data = source.take(size) if size else b""
    if size and not data:
        raise LayerError("archive ends in the middle of an extended header")
    source.skip(-size % BLOCK)
    return data


def _pax(data: bytes, maps: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Records ``length key=value newline``; sparse 0.0 repeats keys, so these go to ``maps`` in order."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data) and data[at] != 0:
        space = data.find(b" ", at, at + 20)
        try:
            length = int(data[at:space]) if space > 0 else 0
        except ValueError:
            length = 0
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length < 5 or at + length > len(data) or not equals or not value.endswith(b"\n"):
            raise LayerError("damaged PAX header")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            maps.append((key, value[:-1]))
        else:
            records[key] = value[:-1]
        at += length
    return records


def _pax_number(key: bytes, value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        raise LayerError(f"damaged PAX header: {printable(key)}={value[:30]!r}") from None


def _apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path":
            entry.name = value
            if entry.kind == REGULAR and value.endswith(b"/"):
                entry.name = value.rstrip(b"/")
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            if entry.kind not in _NO_DATA:
                _set_size(entry, _pax_number(key, value))
        elif key == b"uid":
            entry.uid = _pax_number(key, value)
        elif key == b"gid":
            entry.gid = _pax_number(key, value)
        elif key == b"mtime":
            entry.mtime = _pax_time(value)
        elif key.startswith(b"SCHILY.xattr."):
            _xattr(entry, key[13:], value)
        elif key.startswith(b"LIBARCHIVE.xattr."):
            with_name = urllib.parse.unquote_to_bytes(key[17:])
            try:
                _xattr(entry, with_name, base64.b64decode(value + b"=" * (-len(value) % 4)))
            except binascii.Error:
                raise LayerError("damaged PAX header: LIBARCHIVE.xattr is not base64") from None
    if b"\0" in entry.name or b"\0" in entry.link:
        raise LayerError(f"member {printable(entry.name)} has a NUL byte in its name")


def _xattr(entry: Entry, name: bytes, value: bytes) -> None:
    if entry.xattrs is None:
        entry.xattrs = {}
    entry.xattrs.setdefault(os.fsdecode(name), value)


def _pax_time(value: bytes) -> int:
    """Seconds with a fraction, as nanoseconds, without the losses of float."""
    whole, _, fraction = value.partition(b".")
    try:
        seconds = int(whole or b"0")
        nanoseconds = int((fraction[:9] or b"0").ljust(9, b"0"))
    except ValueError:
        raise LayerError(f"damaged PAX header: mtime={value[:30]!r}") from None
    return seconds * 1_000_000_000 + (-nanoseconds if whole.startswith(b"-") else nanoseconds)


# --- sparse files (GNU tar manual, "Storing Sparse Files") ---------------------------------------


def _old_sparse(entry: Entry, block: bytes, source: Input) -> None:
    numbers = _sparse_pairs(block, 386, 4)
    extended = block[482]
    while extended:
        more = source.take(BLOCK)
        if not more:
            raise LayerError("archive ends in the middle of a sparse map")
        numbers += _sparse_pairs(more, 0, 21)
        extended = more[504]
        if len(numbers) > SPARSE_LIMIT:
            raise LayerError(f"sparse map of {printable(entry.name)} is too long")
    _set_sparse(entry, numbers, _number(block[483:495]))


def _sparse_pairs(block: bytes, start: int, count: int) -> list[tuple[int, int]]:
    pairs = []
    for at in range(start, start + 24 * count, 24):
        if block[at] == 0:
            break
        pairs.append((_number(block[at : at + 12]), _number(block[at + 12 : at + 24])))
    return pairs


def _pax_sparse(entry: Entry, local: dict[bytes, bytes], maps: list[tuple[bytes, bytes]]) -> None:
    if b"GNU.sparse.name" in local:
        entry.name = local[b"GNU.sparse.name"]
    size_key = b"GNU.sparse.realsize" if b"GNU.sparse.realsize" in local else b"GNU.sparse.size"
    real = _pax_number(size_key, local.get(size_key, b"0"))
    if local.get(b"GNU.sparse.major") == b"1":
        numbers = _map_in_data(entry)
    elif b"GNU.sparse.map" in local:
        text = local[b"GNU.sparse.map"]
        numbers = [_pax_number(b"GNU.sparse.map", part) for part in text.split(b",")] if text else []
    else:
        numbers = [_pax_number(key, value) for key, value in maps]
    if len(numbers) % 2 or len(numbers) > 2 * SPARSE_LIMIT:
        raise LayerError(f"damaged sparse map of {printable(entry.name)}")
    _set_sparse(entry, list(zip(numbers[::2], numbers[1::2], strict=True)), real)


def _map_in_data(entry: Entry) -> list[int]:
    """Version 1.0: the map stands before the data, as lines in whole blocks."""
    text = b""

    def line(at: int) -> tuple[int, int]:
        nonlocal text
        while (end := text.find(b"\n", at)) < 0:
            if entry._left < BLOCK or len(text) > META_LIMIT:
                raise LayerError(f"damaged sparse map of {printable(entry.name)}")
            entry._left -= BLOCK
            text += entry._input.take(BLOCK)
        return _pax_number(b"sparse map", text[at:end]), end + 1

    count, at = line(0)
    if not 0 <= count <= SPARSE_LIMIT:
        raise LayerError(f"sparse map of {printable(entry.name)} is too long")
    numbers = []
    for _ in range(2 * count):
        value, at = line(at)
        numbers.append(value)
    return numbers


def _set_sparse(entry: Entry, pairs: list[tuple[int, int]], real: int) -> None:
    end = stored = 0
    for offset, length in pairs:
        if offset < end or length < 0 or offset + length > real:
            raise LayerError(f"damaged sparse map of {printable(entry.name)}")
        end, stored = offset + length, stored + length
    if stored > entry._left or not 0 <= real < 1 << 60:
        raise LayerError(f"damaged sparse map of {printable(entry.name)}")
    entry.sparse = pairs
    entry.size = real
