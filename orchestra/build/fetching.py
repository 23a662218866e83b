"""What ADD brings besides files of the context: downloads, git checkouts, unpacked archives.

All of it goes into the build's scratch directory; archives are unpacked by the layer code, which treats
them as hostile.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import posixpath
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestra.build.problems import BuildError
from orchestra.errors import OrchestraError
from orchestra.images.compress import chunks
from orchestra.images.layer import ApplyOptions, apply
from orchestra.images.mediatype import sniff

_PIECE = 1 << 20
_TIME = 60
_LIMIT = 64 << 30


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


class _Careful(urllib.request.HTTPRedirectHandler):
    """Only http and https, never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_url(newurl) or (req.full_url.startswith("https:") and newurl.startswith("http:")):
            raise BuildError(f"{_shown(req.full_url)} redirects to an address that is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, folder: Path, checksum: str = "") -> Path:
    """The file behind ``url``, named as the address ends; ``checksum`` is ``sha256:hex``."""
    if checksum and not checksum.startswith(("sha256:", "sha384:", "sha512:")):
        raise BuildError(f"unsupported checksum {checksum[:80]!r}", hint="expected sha256:HEX")
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if not name or name in (".", ".."):
        name = "download"
    hasher = hashlib.new(checksum.partition(":")[0] or "sha256")
    path = folder / name.replace("/", "_")
    opener = urllib.request.build_opener(_Careful)
    request = urllib.request.Request(url, headers={"User-Agent": "orchestra"})
    total = 0
    try:
        with opener.open(request, timeout=_TIME) as answer, open(path, "wb") as out:
            while data := answer.read(_PIECE):
                total += len(data)
                if total > _LIMIT:
                    raise BuildError(f"{_shown(url)} has more than {_LIMIT} bytes")
                hasher.update(data)
                out.write(data)
            promised = answer.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        raise BuildError(f"{_shown(url)} answered {error.code}") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise BuildError(f"cannot download {_shown(url)}: {getattr(error, 'reason', error)}") from None
    if promised and promised.isdigit() and int(promised) != total:
        raise BuildError(f"{_shown(url)} broke off after {total} of {promised} bytes")
    if checksum and hasher.hexdigest() != checksum.partition(":")[2]:
        raise BuildError(f"{_shown(url)} has the wrong digest {hasher.name}:{hasher.hexdigest()}")
    return path


def is_archive(path: str) -> bool:
    """Whether the file is a tar, plain or compressed by gzip, bzip2, xz or zstd."""
    try:
        with open(path, "rb") as stream:
            first = b""
            for chunk in _plain(stream):
                first += chunk
                if len(first) >= tarfile.BLOCKSIZE:
                    break
        if len(first) < tarfile.BLOCKSIZE:
            return False
        tarfile.TarInfo.frombuf(first[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, OrchestraError, OSError, EOFError, ValueError, lzma.LZMAError):
        return False
    return True


def unpack(path: str, folder: Path) -> None:
    """Unpack the archive at ``path`` into the directory ``folder``."""
    with open(path, "rb") as stream:
        apply(_plain(stream), folder, ApplyOptions.for_process())


def _plain(stream: Any) -> Iterator[bytes]:
    head = stream.read(6)
    stream.seek(0)
    if head.startswith(b"BZh"):
        return _decompressed(stream, bz2.BZ2Decompressor)
    if head.startswith(b"\xfd7zXZ\0"):
        return _decompressed(stream, lzma.LZMADecompressor)
    return chunks(stream, sniff(head))


def _decompressed(stream: Any, make: Callable[[], Any]) -> Iterator[bytes]:
    """All members of a bzip2 or xz file."""
    machine = make()
    while data := stream.read(256 << 10):
        while data:
            if machine.eof:
                machine = make()
            plain = machine.decompress(data, _PIECE)
            if plain:
                yield plain
            while not machine.eof and not machine.needs_input:
                yield machine.decompress(b"", _PIECE)
            data = machine.unused_data if machine.eof else b""
    if not machine.eof:
        raise BuildError("the archive ends in the middle")


def _shown(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]
