"""Write tar archives byte for byte the same every time: ustar headers, PAX records only where needed.

Member order and attributes are the caller's; nothing of this machine (user names, inode numbers) gets in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestra.images.problems import LayerError
from orchestra.images.tar import BLOCK, DIRECTORY, LINK, REGULAR, SYMLINK

_BUFFER = 1 << 20


@dataclass(slots=True)
class Member:
    """``name`` without a slash at either end; ``mtime`` in nanoseconds."""

    name: bytes
    kind: bytes = REGULAR
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def check_layer_name(name: bytes) -> None:
    """In a layer such a name hides what is below, so a file that really has it cannot be kept (OCI image
    specification, layer.md)."""
    if any(part.startswith(b".wh.") for part in name.split(b"/")):
        raise LayerError(
            f"/{os.fsdecode(name).strip('/')} cannot be part of an image: names that begin with .wh. mark deleted files",
            hint="rename or remove it",
        )


class TarWriter:
    """Sends an archive to ``sink`` in large pieces. ``exact_times`` keeps fractions of a second."""

    def __init__(self, sink: Callable[[bytes], object], *, exact_times: bool = False) -> None:
        self._sink = sink
        self._exact = exact_times
        self._parts: list[bytes] = []
        self._pending = 0
        self.size = 0

    def _emit(self, data: bytes) -> None:
        self._parts.append(data)
        self._pending += len(data)
        self.size += len(data)
        if self._pending >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._parts:
            self._sink(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
            self._parts, self._pending = [], 0

    def add(self, member: Member, content: bytes = b"") -> None:
        """A member with its content in memory."""
        if member.kind == REGULAR:
            member.size = len(content)
        self._emit(header(member, exact_times=self._exact))
        if content and member.kind == REGULAR:
            self._emit(content)
            self._pad(len(content))

    def add_file(self, member: Member, fd: int) -> None:
        """A member whose ``size`` bytes are read from ``fd``; a file that shrinks is filled with zeros."""
        self._emit(header(member, exact_times=self._exact))
        left = member.size
        while left:
            data = os.read(fd, min(left, _BUFFER))
            if not data:
                data = bytes(min(left, _BUFFER))
            self._emit(data)
            left -= len(data)
        self._pad(member.size)

    def add_sparse(self, member: Member, fd: int, segments: Sequence[tuple[int, int]]) -> None:
        """A file of ``member.size`` bytes of which only ``segments`` (offset, length) hold data (GNU tar's
        format 1.0 in PAX headers, which Go's and Python's readers know as well)."""
        parts = [segment for segment in segments if segment[1]]
        if not parts or sum(parts[-1]) < member.size:
            parts.append((member.size, 0))
        numbers = [len(parts), *(number for part in parts for number in part)]
        table = "".join(f"{number}\n" for number in numbers).encode()
        table += bytes(-len(table) % BLOCK)
        stored = replace(
            member,
            name=b"GNUSparseFile.0/" + member.name,
            size=len(table) + sum(length for _offset, length in parts),
        )
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": member.name,
            b"GNU.sparse.realsize": b"%d" % member.size,
        }
        self._emit(header(stored, exact_times=self._exact, extra=records))
        self._emit(table)
        for offset, length in parts:
            while length:
                data = os.pread(fd, min(length, _BUFFER), offset) or bytes(min(length, _BUFFER))
                self._emit(data)
                offset, length = offset + len(data), length - len(data)
        self._pad(stored.size)

    def _pad(self, size: int) -> None:
        if size % BLOCK:
            self._emit(bytes(-size % BLOCK))

    def finish(self) -> None:
        self._emit(bytes(2 * BLOCK))
        self._flush()


def header(member: Member, *, exact_times: bool = False, extra: Mapping[bytes, bytes] | None = None) -> bytes:
    """The blocks before a member's content; ``extra`` are further PAX records."""
    name = member.name + b"/" if member.kind == DIRECTORY else member.name
    records: dict[bytes, bytes] = dict(extra or {})
    prefix, short = _split_name(name)
    if short is None or not name.isascii():
        records[b"path"] = name
    if short is None:
        prefix, short = b"", name[-100:] if member.kind == DIRECTORY else name[:100]
    link = member.link
    if member.kind in (LINK, SYMLINK) and (len(link) > 100 or not link.isascii()):
        records[b"linkpath"] = link
    for key, value in ((b"uid", member.uid), (b"gid", member.gid)):
        if value > 0o7777777:
            records[key] = b"%d" % value
    if member.size > 0o77777777777:
        records[b"size"] = b"%d" % member.size
    seconds, fraction = divmod(member.mtime, 1_000_000_000)
    if (fraction and exact_times) or not 0 <= seconds <= 0o77777777777:
        records[b"mtime"] = _time(member.mtime if exact_times else seconds * 1_000_000_000)
    for key_text, value_bytes in sorted(member.xattrs.items()):
        records[b"SCHILY.xattr." + os.fsencode(key_text)] = value_bytes
    block = _block(member, prefix, short, link[:100], max(0, seconds))
    return _pax(records) + block if records else block


def _split_name(name: bytes) -> tuple[bytes, bytes | None]:
    if len(name) <= 100:
        return b"", name
    if len(name) > 256:
        return b"", None
    cut = name.find(b"/", len(name) - 101)
    if not 0 < cut <= 155 or cut == len(name) - 1:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    text = b"%s%d" % (sign, seconds)
    return text + (b".%09d" % fraction).rstrip(b"0") if fraction else text


def _octal(value: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, value) if value < 8**digits else b"0" * digits + b"\0"


def _block(member: Member, prefix: bytes, name: bytes, link: bytes, seconds: int) -> bytes:
    data = b"".join(
        (
            name.ljust(100, b"\0"),
            _octal(member.mode & 0o7777, 7),
            _octal(member.uid, 7),
            _octal(member.gid, 7),
            _octal(member.size if member.kind == REGULAR else 0, 11),
            _octal(seconds, 11),
            b"        ",
            member.kind,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            _octal(member.major, 7),
            _octal(member.minor, 7),
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return data[:148] + b"%06o\0 " % sum(data) + data[156:]


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    head = Member(b"PaxHeaders/0", b"x", 0o644, size=len(body))
    block = _block_with_size(head, len(body))
    return block + body + bytes(-len(body) % BLOCK)


def _block_with_size(member: Member, size: int) -> bytes:
    data = bytearray(_block(member, b"", member.name, b"", 0))
    data[124:136] = _octal(size, 11)
    data[148:156] = b"        "
    return bytes(data[:148]) + b"%06o\0 " % sum(data) + bytes(data[156:])


def _record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body
