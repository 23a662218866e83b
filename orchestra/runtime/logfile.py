"""Log files of containers: the raw bytes as they came, and beside them an index of when and from where.

    <path>            bytes of the present file          <path>.idx        its index
    <path>.1 …        older files, .1 the youngest       <path>.1.idx …    theirs

An index record (24 bytes, little endian) is (wall clock ns u64, offset u64, length u32, stream u8,
3 unused): one a read chunk, in file order, without gaps. Nothing looks at lines while writing; lines,
their time (that of the chunk they begin in) and their stream are put together on reading.

The writer rotates at a newline when ``max_size`` is reached and keeps ``max_file`` files. It never
raises for a full or broken disk: it drops, counts, and says so in the log when it can write again.
One writer, any number of readers, no lock: readers see only what a complete record covers.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator

RECORD = struct.Struct("<QQIB3x")
STDOUT, STDERR = 1, 2
_NO_NEWLINE_LIMIT = 1 << 20  # a line longer than this is cut
_CHUNK = 1 << 30

Buffer = bytes | bytearray | memoryview


def files_of(path: str) -> tuple[str, str]:
    """The log's data and index."""
    return path, f"{path}.idx"


class Writer:
    """``max_size`` 0 means no limit; ``max_file`` counts the present file too. ``dropped`` is the
    number of bytes lost to write errors."""

    def __init__(self, path: str, *, max_size: int = 0, max_file: int = 1) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max(1, max_file)
        self.dropped = 0
        self._lost = 0
        self._reason = ""
        self._ends_line = True
        self._size = 0
        self._data = self._index = -1
        try:
            self._open()
        except OSError as problem:
            self._note(problem, 0)

    def write(self, stream: int, data: Buffer) -> None:
        """Append one chunk. Never raises OSError."""
        view = memoryview(data)
        if self._lost:
            self._confess()
        while self.max_size and self._size + len(view) > self.max_size:
            cut = self._cut(view)
            if cut is None:
                break
            if cut:
                self._append(stream, view[:cut])
                view = view[cut:]
            self._rotate()
        if len(view):
            self._append(stream, view)

    def close(self) -> None:
        for fd in (self._data, self._index):
            if fd >= 0:
                os.close(fd)
        self._data = self._index = -1

    def _cut(self, view: memoryview) -> int | None:
        """How much still goes into the present file before rotating; None: no rotation now."""
        room = max(0, self.max_size - self._size)
        text = bytes(view[: room + _NO_NEWLINE_LIMIT])
        cut = text.rfind(b"\n", 0, room) + 1
        if cut:
            return cut
        if self._size and self._ends_line:
            return 0
        cut = text.find(b"\n", room) + 1
        if cut:
            return cut
        if self._size + len(view) > self.max_size + _NO_NEWLINE_LIMIT:
            return min(len(view), room + _NO_NEWLINE_LIMIT)
        return None

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self.close()
        data, index = files_of(self.path)
        self._data = os.open(data, flags, 0o600)
        self._index = os.open(index, flags, 0o600)
        self._size = os.fstat(self._data).st_size
        self._mend()
        self._ends_line = not self._size or os.pread(self._data, 1, self._size - 1) == b"\n"

    def _mend(self) -> None:
        """A writer that was killed may have left bytes without a record, or half a record."""
        length = os.fstat(self._index).st_size
        whole = length - length % RECORD.size
        covered = 0
        while whole:
            _at, offset, size, _stream = RECORD.unpack(
                os.pread(self._index, RECORD.size, whole - RECORD.size)
            )
            covered = offset + size
            if covered <= self._size:
                break
            whole -= RECORD.size
            covered = 0
        if whole != length:
            os.ftruncate(self._index, whole)
        if covered < self._size:
            at = os.fstat(self._data).st_mtime_ns
            os.write(self._index, RECORD.pack(at, covered, self._size - covered, STDOUT))

    def _append(self, stream: int, view: memoryview) -> None:
        start, length = self._size, len(view)
        try:
            if self._data < 0:
                self._open()
                start = self._size
            done = 0
            while done < length:
                done += os.write(self._data, view[done:])
            os.write(self._index, RECORD.pack(time.time_ns(), start, length, stream))
        except OSError as problem:
            self._note(problem, length)
            try:
                if self._data >= 0:
                    os.ftruncate(self._data, start)
            except OSError:
                pass
            return
        self._size = start + length
        self._ends_line = view[-1] == 10

    def _note(self, problem: OSError, length: int) -> None:
        self._lost += length
        self.dropped += length
        self._reason = os.strerror(problem.errno or errno.EIO)

    def _confess(self) -> None:
        lost, reason = self._lost, self._reason
        line = f"{'' if self._ends_line else chr(10)}orchestra: {lost} bytes of this log are lost: {reason}\n"
        self._lost = 0
        self._append(STDERR, memoryview(line.encode()))
        if self._lost:
            self.dropped -= len(line.encode())
            self._lost = lost

    def _rotate(self) -> None:
        try:
            self.close()
            for number in range(self.max_file - 1, 0, -1):
                older = self.path if number == 1 else f"{self.path}.{number - 1}"
                for tail in (".idx", ""):
                    try:
                        os.rename(older + tail, f"{self.path}.{number}{tail}")
                    except FileNotFoundError:
                        continue
            if self.max_file == 1:
                for tail in ("", ".idx"):
                    os.unlink(self.path + tail)
            self._open()
        except OSError as problem:
            self._note(problem, 0)


def remove(path: str) -> None:
    """Delete a log with all its rotated files."""
    folder, base = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except FileNotFoundError:
        return
    for name in names:
        rest = name[len(base) :].removesuffix(".idx") if name.startswith(base) else "x"
        if not rest or (rest[0] == "." and rest[1:].isdigit()):
            try:
                os.unlink(os.path.join(folder, name))
            except FileNotFoundError:
                continue


Line = tuple[float, int, bytes]


def read(
    path: str,
    *,
    tail: int | None = None,
    since: float | None = None,
    until: float | None = None,
    follow: Callable[[], bool] | bool = False,
    poll: float = 0.05,
) -> Iterator[Line]:
    """(unix seconds, stream 1 or 2, line). A line keeps its newline; a last one without newline comes
    as it is, when the reading ends. ``tail`` are the last lines of what is there now (then following goes on).
    ``follow`` as a callable is asked when all is read: False ends (the container is gone)."""
    keep_on = follow if callable(follow) else (lambda: bool(follow))
    source = _Source(path)
    lines = _Lines(since, until)
    try:
        source.start(tail)
        if tail is not None:
            last: deque[Line] = deque(maxlen=max(0, tail))
            for record in source.records():
                last.extend(lines.feed(*record))
            if not follow:
                last.extend(lines.rest())
            yield from last
            last.clear()
        else:
            for record in source.records(since):
                yield from lines.feed(*record)
        while follow and not lines.over:
            more = keep_on()
            found = False
            for record in source.records():
                found = True
                yield from lines.feed(*record)
            if not more and not found:
                break
            if not found:
                time.sleep(poll)
        if follow or tail is None:
            yield from lines.rest()
    finally:
        source.close()


class _Lines:
    """Chunks in, lines out; each stream's unfinished line waits for its rest."""

    def __init__(self, since: float | None, until: float | None) -> None:
        self.since = since
        self.until = until
        self.over = False
        self._open: dict[int, tuple[float, bytes]] = {}

    def feed(self, at: float, stream: int, data: bytes) -> Iterator[Line]:
        if self.until is not None and at > self.until:
            self.over = True
        begun, head = self._open.pop(stream, (at, b""))
        for piece in _pieces(data):
            line = head + piece if head else piece
            if piece.endswith(b"\n") or len(line) >= _NO_NEWLINE_LIMIT:
                if self._wanted(begun):
                    yield begun, stream, line
                begun, head = at, b""
            else:
                self._open[stream] = (begun, line)

    def rest(self) -> Iterator[Line]:
        for stream, (at, line) in sorted(self._open.items()):
            if self._wanted(at):
                yield at, stream, line

    def _wanted(self, at: float) -> bool:
        return (self.since is None or at >= self.since) and (self.until is None or at <= self.until)


def _pieces(data: bytes) -> list[bytes]:
    """Split after newlines, and only there (splitlines is faster but also cuts at carriage returns)."""
    if b"\r" not in data:
        return data.splitlines(keepends=True)
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return pieces if pieces[-1] else pieces[:-1]


class _Source:
    """The records of all files in order, across rotations, remembering where it stands."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.data = self.index = -1
        self.place = 0  # next record's offset in the index
        self.inode = 0

    def close(self) -> None:
        for fd in (self.data, self.index):
            if fd >= 0:
                os.close(fd)
        self.data = self.index = -1

    def start(self, tail: int | None) -> None:
        """Stand at the oldest record, or early enough for the last ``tail`` lines."""
        names = self._names()
        if tail is None:
            if names:
                self._enter(names[0])
            return
        wanted = tail + 2
        for name in reversed(names):
            if not self._enter(name):
                continue
            count = os.fstat(self.index).st_size // RECORD.size
            while count and wanted > 0:
                count -= 1
                chunk = self._chunk(count * RECORD.size)
                wanted -= chunk[2].count(b"\n") if chunk else 0
            self.place = count * RECORD.size
            if wanted <= 0:
                return

    def records(self, since: float | None = None) -> Iterator[tuple[float, int, bytes]]:
        """All records that are complete now."""
        while True:
            if self.data < 0:
                names = self._names()
                if not names or not self._enter(names[0]):
                    return
            if since is not None:
                self._skip(since)
            while chunk := self._chunk(self.place):
                self.place += RECORD.size
                yield chunk
            following = self._following()
            if following is None:
                return
            while chunk := self._chunk(self.place):  # written between the last look and the rotation
                self.place += RECORD.size
                yield chunk
            if not self._enter(following):
                return

    def _chunk(self, place: int) -> tuple[float, int, bytes] | None:
        raw = os.pread(self.index, RECORD.size, place)
        if len(raw) < RECORD.size:
            return None
        at, offset, length, stream = RECORD.unpack(raw)
        return at / 1e9, stream, os.pread(self.data, min(length, _CHUNK), offset)

    def _skip(self, since: float) -> None:
        """Past the chunks that ended before ``since``; one earlier is kept, a line may begin in it."""
        low, high = self.place // RECORD.size, os.fstat(self.index).st_size // RECORD.size
        while low < high:
            middle = (low + high) // 2
            raw = os.pread(self.index, RECORD.size, middle * RECORD.size)
            if len(raw) == RECORD.size and RECORD.unpack(raw)[0] / 1e9 < since:
                low = middle + 1
            else:
                high = middle
        self.place = max(self.place, (low - 8) * RECORD.size)

    def _names(self) -> list[str]:
        """Oldest first."""
        found, number = [], 1
        while os.path.exists(f"{self.path}.{number}"):
            found.append(f"{self.path}.{number}")
            number += 1
        found.reverse()
        if os.path.exists(self.path):
            found.append(self.path)
        return found

    def _following(self) -> str | None:
        """The file after the present one; None while the present one is the newest."""
        names = self._names()
        for position, name in enumerate(names):
            try:
                if os.stat(name).st_ino == self.inode:
                    return names[position + 1] if position + 1 < len(names) else None
            except FileNotFoundError:
                continue
        return names[0] if names else None

    def _enter(self, name: str) -> bool:
        try:
            data = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            index = os.open(f"{name}.idx", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            os.close(data)
            return False
        self.close()
        self.data, self.index, self.place = data, index, 0
        self.inode = os.fstat(data).st_ino
        return True
