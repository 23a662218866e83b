"""The build context: a directory, a git checkout, or a tar or Dockerfile on standard input.

Unpacked contexts live in the build's scratch directory. ``.dockerignore`` is read from
``<Dockerfile>.dockerignore`` or from the context's root; the Dockerfile itself stays readable to the
builder whatever it says.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestra.build.ignore import IgnoreRules
from orchestra.build.problems import BuildError
from orchestra.build.request import BuildRequest
from orchestra.build.view import View
from orchestra.images.tarsafe import Outside, altered, extract

_GIT = re.compile(
    r"(?:git@|git://|ssh://git@|https?://[^#]+\.git(?:#|$)|https?://github\.com/[^/]+/[^/#]+(?:#|$))"
)
_GIT_TIME = 600
_HEAD = 1 << 20
_DOCKERFILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """``dockerfile_name`` is what errors call the Dockerfile."""

    root: Path
    view: View
    dockerfile: str
    dockerfile_name: str


def is_git(text: str) -> bool:
    return _GIT.match(text) is not None


def open_context(request: BuildRequest, scratch: Path) -> Context:
    """Make the context ready; ``scratch`` is an existing directory of this build alone."""
    root, piped = _root(request, scratch)
    text, name, beside = _dockerfile(request, root, piped)
    ignore = _ignore(root, beside)
    return Context(root, View([root], ignore=ignore, overlay=False), text, name)


def open_named(value: str, scratch: Path) -> View:
    """A context of ``--build-context name=value``: a directory or a git address."""
    if is_git(value):
        root = _git(value, scratch)
    else:
        root = Path(value)
        if not root.is_dir():
            raise BuildError(f"build context {value} is not a directory")
    return View([root], ignore=_ignore(root, None), overlay=False)


def _root(request: BuildRequest, scratch: Path) -> tuple[Path, str]:
    """The directory, and a Dockerfile that came by standard input."""
    if request.context == "-":
        if request.stdin is None:
            raise BuildError("no standard input to read the build context from")
        return _piped(request.stdin, scratch)
    if is_git(request.context):
        return _git(request.context, scratch), ""
    if "://" in request.context:
        raise BuildError(
            f"build context {request.context[:200]} is neither a directory nor a git address",
            hint="download it and give the directory, or pipe a tar with `-`",
        )
    root = Path(request.context)
    if not root.is_dir():
        raise BuildError(
            f"build context {root} is not a directory" if root.exists() else f"no directory {root}"
        )
    return root.resolve(), ""


def _piped(stream: BinaryIO, scratch: Path) -> tuple[Path, str]:
    """A tar (maybe compressed), or a Dockerfile without a context."""
    kept = scratch / "context.tar"
    with open(kept, "wb") as copy:
        while data := stream.read(_HEAD):
            copy.write(data)
    root = scratch / "context"
    root.mkdir()
    try:
        unpack_tar(kept, root)
    except tarfile.ReadError:
        if kept.stat().st_size > _DOCKERFILE_LIMIT:
            raise BuildError("standard input is neither a tar archive nor a Dockerfile") from None
        text = kept.read_bytes().decode("utf-8", "replace")
        if "\0" in text:
            raise BuildError("standard input is neither a tar archive nor a Dockerfile") from None
        return root, text
    finally:
        kept.unlink(missing_ok=True)
    return root, ""


def unpack_tar(path: Path, root: Path) -> None:
    """Unpack an archive that may be hostile below ``root``."""

    def unpack(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        if member.isdev():
            return
        if member.islnk():
            inside = posixpath.normpath(posixpath.join("/", member.linkname)).lstrip("/")
            member = altered(member, linkname=inside)
        extract(archive, member, str(root))

    try:
        with tarfile.open(path) as archive:
            for member in archive:
                unpack(archive, member)
    except Outside as error:
        raise BuildError(f"unsafe member in the archive: {error}") from None
    except tarfile.ReadError:
        raise
    except (tarfile.TarError, EOFError, OSError, KeyError) as error:
        raise BuildError(f"cannot unpack the build context: {error}") from None


def _git(address: str, scratch: Path) -> Path:
    """Clone ``url[#[ref][:subdirectory]]``; the directory."""
    url, _, fragment = address.partition("#")
    ref, _, folder = fragment.partition(":")
    root = scratch / f"git-{len(list(scratch.iterdir()))}"
    if ref.startswith("-") or url.startswith("-"):
        raise BuildError(f"invalid git address {address[:200]!r}")
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    steps = [
        ["git", "init", "-q", str(root)],
        ["git", "-C", str(root), "fetch", "-q", "--depth", "1", "--", url, ref or "HEAD"],
        ["git", "-C", str(root), "checkout", "-q", "FETCH_HEAD"],
    ]
    for step in steps:
        try:
            done = subprocess.run(
                step, env=environment, capture_output=True, text=True, timeout=_GIT_TIME, check=False
            )
        except FileNotFoundError:
            raise BuildError("git is not installed", hint=f"it is needed for {url}") from None
        except subprocess.TimeoutExpired:
            raise BuildError(f"git did not end within {_GIT_TIME} s for {url}") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise BuildError(f"cannot fetch {address}", details=tuple(said[-5:]))
    node = View([root], overlay=False).find(folder)
    if node is None or not node.is_dir:
        raise BuildError(f"no directory {folder!r} in {url}")
    return Path(node.real)


def _dockerfile(request: BuildRequest, root: Path, piped: str) -> tuple[str, str, Path | None]:
    """Its text, its name for messages, and its place for ``<place>.dockerignore``."""
    if request.inline:
        return request.inline, "dockerfile_inline", None
    if piped:
        return piped, "Dockerfile", None
    if request.dockerfile == "-":
        if request.stdin is None or request.context == "-":
            raise BuildError("the Dockerfile and the context cannot both come from standard input")
        return request.stdin.read(_DOCKERFILE_LIMIT).decode("utf-8", "replace"), "Dockerfile", None
    candidates = [request.dockerfile] if request.dockerfile else ["Dockerfile", "Containerfile"]
    for name in candidates:
        place = _place(root, name)
        if place is None:
            continue
        try:
            with open(place, "rb") as stream:
                text = stream.read(_DOCKERFILE_LIMIT).decode("utf-8", "replace")
        except OSError as error:
            raise BuildError(f"cannot read {place}: {error.strerror}") from None
        return text, _shown(place, request, root), place
    raise BuildError(f"no {' or '.join(candidates)} in {request.context}", hint="name it with -f FILE")


def _place(root: Path, name: str) -> Path | None:
    """A Dockerfile named by the caller may be anywhere; a relative one is in the context."""
    if os.path.isabs(name):
        return Path(name) if os.path.isfile(name) else None
    if name.startswith("../"):
        beside = root / name
        return beside if beside.is_file() else None
    node = View([root], overlay=False).find(name)
    return Path(node.real) if node and node.is_file else None


def _shown(place: Path, request: BuildRequest, root: Path) -> str:
    if request.context == "-" or is_git(request.context):
        return os.path.relpath(place, root)
    shown = os.path.relpath(place)
    return str(place) if shown.startswith("../..") else shown


def _ignore(root: Path, beside: Path | None) -> IgnoreRules:
    if beside is not None:
        own = beside.with_name(beside.name + ".dockerignore")
        if own.is_file():
            return IgnoreRules.parse(own.read_text(encoding="utf-8", errors="replace"))
    for name in (".dockerignore", ".containerignore"):
        node = View([root], overlay=False).find(name)
        if node and node.is_file:
            return IgnoreRules.parse(Path(node.real).read_text(encoding="utf-8", errors="replace"))
    return IgnoreRules()
