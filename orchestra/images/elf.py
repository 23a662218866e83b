"""What a program needs to run: its ELF interpreter and shared libraries, found as the loader would.

Reads files of this machine only; runs nothing. Names of libraries are looked up in RPATH or RUNPATH, the
loader's cache, then the default directories; a candidate counts only if it is of the same kind (class,
byte order, machine).
"""

from __future__ import annotations

import contextlib
import glob
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.images.problems import ImageError

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_DEFAULT = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Elf:
    """``kind`` is (class, byte order, machine); ``rpath`` counts only without a ``runpath``."""

    path: str
    kind: tuple[int, int, int]
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


def read_elf(path: str) -> Elf | None:
    """The dynamic part of an ELF file; None for other files."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(64)
            if len(head) < 52 or head[:4] != b"\x7fELF":
                return None
            return _Parser(path, head, stream.fileno()).elf()
    except (struct.error, IndexError, ValueError, OverflowError):
        raise ImageError(f"{path} is a damaged ELF file") from None


class _Parser:
    def __init__(self, path: str, head: bytes, fd: int) -> None:
        self._path, self._head, self._fd = path, head, fd
        self._wide = head[4] == 2
        self._order = "<" if head[5] == 1 else ">"

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, data)

    def elf(self) -> Elf:
        machine = self._unpack("H", self._head[18:20])[0]
        kind = (self._head[4], self._head[5], machine)
        if self._wide:
            offset, size, count = (
                self._unpack("Q", self._head[32:40])[0],
                *self._unpack("HH", self._head[54:58]),
            )
        else:
            offset, size, count = (
                self._unpack("I", self._head[28:32])[0],
                *self._unpack("HH", self._head[42:46]),
            )
        table = os.pread(self._fd, min(size * count, 1 << 20), offset)
        segments = [self._segment(table[n * size : (n + 1) * size]) for n in range(count)]
        interpreter = ""
        dynamic = b""
        for what, where, length, _address in segments:
            if what == _PT_INTERP:
                interpreter = os.fsdecode(os.pread(self._fd, min(length, 4096), where).rstrip(b"\0"))
            elif what == _PT_DYNAMIC:
                dynamic = os.pread(self._fd, min(length, 1 << 20), where)
        return self._with_dynamic(kind, interpreter, dynamic, segments)

    def _segment(self, entry: bytes) -> tuple[int, int, int, int]:
        """(type, file offset, file size, address)"""
        if self._wide:
            what, _flags, offset, address, _physical, size = self._unpack("IIQQQQ", entry)
        else:
            what, offset, address, _physical, size = self._unpack("IIIII", entry)
        return what, offset, size, address

    def _with_dynamic(
        self, kind: tuple[int, int, int], interpreter: str, dynamic: bytes,
        segments: list[tuple[int, int, int, int]],
    ) -> Elf:  # fmt: skip
        step = 16 if self._wide else 8
        form = "qQ" if self._wide else "iI"
        tags: list[tuple[int, int]] = []
        for at in range(0, len(dynamic) - step + 1, step):
            tag, value = self._unpack(form, dynamic[at : at + step])
            if tag == 0:
                break
            tags.append((tag, value))
        strings = next((value for tag, value in tags if tag == _DT_STRTAB), None)
        base = self._file_offset(strings, segments) if strings is not None else 0

        def texts(wanted: int) -> tuple[str, ...]:
            return tuple(self._string(base + value) for tag, value in tags if tag == wanted)

        def paths(wanted: int) -> tuple[str, ...]:
            return tuple(part for text in texts(wanted) for part in text.split(":") if part)

        return Elf(self._path, kind, interpreter, texts(_DT_NEEDED), paths(_DT_RPATH), paths(_DT_RUNPATH))

    def _file_offset(self, address: int, segments: list[tuple[int, int, int, int]]) -> int:
        for what, offset, size, start in segments:
            if what == _PT_LOAD and start <= address < start + size:
                return address - start + offset
        raise ValueError("string table outside of the file")

    def _string(self, offset: int) -> str:
        return os.fsdecode(os.pread(self._fd, 4096, offset).split(b"\0", 1)[0])


@dataclass(slots=True)
class Libraries:
    """Finds shared libraries. Keeps what it has read."""

    cache: dict[str, list[str]] = field(default_factory=dict)
    known: dict[str, Elf | None] = field(default_factory=dict)

    @classmethod
    def of_host(cls) -> Libraries:
        return cls(read_cache(Path("/etc/ld.so.cache")))

    def elf(self, path: str) -> Elf | None:
        if path not in self.known:
            self.known[path] = read_elf(path)
        return self.known[path]

    def closure(self, path: str) -> tuple[list[str], list[str]]:
        """Everything ``path`` needs, as (paths, names that were not found); the file itself not included."""
        first = self.elf(path)
        if first is None:
            return [], []
        found: dict[str, None] = {}
        missing: dict[str, None] = {}
        if first.interpreter:
            found[first.interpreter] = None
        pending: list[tuple[Elf, tuple[str, ...]]] = [(first, ())]
        while pending:
            elf, inherited = pending.pop()
            rpath = inherited if elf.runpath else (*_expanded(elf.rpath, elf.path), *inherited)
            for name in elf.needed:
                target = self._find(name, elf, rpath, first.interpreter)
                if target is None:
                    missing[name] = None
                elif target not in found:
                    found[target] = None
                    library = self.elf(target)
                    if library is not None:
                        pending.append((library, rpath))
        return list(found), list(missing)

    def find(self, name: str, like: Elf) -> str | None:
        """A library by its name for a program like ``like`` (what dlopen would find)."""
        return self._find(name, like, (), like.interpreter)

    def _find(self, name: str, elf: Elf, rpath: tuple[str, ...], interpreter: str) -> str | None:
        if "/" in name:
            return name if self._suits(name, elf) else None
        if os.path.basename(interpreter) == name and self._suits(interpreter, elf):
            return interpreter
        runpath = _expanded(elf.runpath, elf.path)
        for folder in (*(() if elf.runpath else rpath), *runpath):
            if self._suits(candidate := os.path.join(folder, name), elf):
                return candidate
        if "musl" not in interpreter:
            for candidate in self.cache.get(name, ()):
                if self._suits(candidate, elf):
                    return candidate
        for folder in _default_folders(interpreter):
            if self._suits(candidate := os.path.join(folder, name), elf):
                return candidate
        return None

    def _suits(self, path: str, elf: Elf) -> bool:
        if not os.path.isfile(path):
            return False
        with contextlib.suppress(ImageError, OSError):
            other = self.elf(path)
            return other is not None and other.kind == elf.kind
        return False


def _expanded(folders: tuple[str, ...], path: str) -> tuple[str, ...]:
    origin = os.path.dirname(os.path.realpath(path))
    return tuple(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for folder in folders)


def _default_folders(interpreter: str) -> list[str]:
    if "musl" in interpreter:
        with contextlib.suppress(OSError):
            stem = os.path.basename(interpreter).removesuffix(".so.1")
            text = Path(f"/etc/{stem}.path").read_text()
            return text.replace(":", "\n").split()
        return ["/lib", "/usr/local/lib", "/usr/lib"]
    return [*glob.glob("/lib/*-linux-*"), *glob.glob("/usr/lib/*-linux-*"), *_DEFAULT]


def read_cache(path: Path) -> dict[str, list[str]]:
    """The loader's cache (``ld.so.cache``, new format): library name → paths. Empty if there is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return {}
    start = data.find(_CACHE_MAGIC)
    if start < 0:
        return {}
    data = data[start:]
    found: dict[str, list[str]] = {}
    with contextlib.suppress(struct.error):
        (count,) = struct.unpack_from("=I", data, 20)
        for number in range(count):
            _flags, key, value = struct.unpack_from("=iII", data, 48 + 24 * number)
            name, target = _text_at(data, key), _text_at(data, value)
            found.setdefault(name, []).append(target)
    return found


def _text_at(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset)
    return os.fsdecode(data[offset : end if end >= 0 else None])
