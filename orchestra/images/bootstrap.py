"""``image bootstrap debian:bookworm``: a base image made by mmdebstrap or debootstrap of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.errors import OrchestraError, UnsupportedError, UsageError
from orchestra.images.archive import import_root
from orchestra.images.config import DEFAULT_PATH, Settings
from orchestra.images.diff import TreeOptions, write_tree
from orchestra.images.reference import Reference

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

TOOLS = ("mmdebstrap", "debootstrap")
_DISTRIBUTIONS = ("debian", "ubuntu", "devuan", "kali")
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.:-]*")


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """``base`` is ``DISTRIBUTION:SUITE``; ``tool`` empty: the first one there is; ``mirror`` empty: the
    tool's own."""

    base: str
    name: str = ""
    include: tuple[str, ...] = ()
    tool: str = ""
    mirror: str = ""
    variant: str = "minbase"
    architecture: str = ""
    epoch: int | None = None


def find_tool(wanted: str = "") -> str:
    """The path of the tool to use."""
    if wanted and wanted not in TOOLS:
        raise UsageError(f"unknown tool {wanted!r}", hint=f"one of {', '.join(TOOLS)}")
    for tool in (wanted,) if wanted else TOOLS:
        if path := shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return path
    missing = wanted or " nor ".join(TOOLS)
    raise UnsupportedError(
        f"{'' if wanted else 'neither '}{missing} is installed",
        hint="install mmdebstrap, or make an image of this machine's programs: `orchestra image from-host`",
    )


def command(options: BootstrapOptions, tool: str, target: str) -> list[str]:
    """What is run; ``target`` is ``-`` (mmdebstrap writes a tar) or a directory (debootstrap)."""
    distribution, _, suite = options.base.partition(":")
    if distribution not in _DISTRIBUTIONS:
        known = ", ".join(_DISTRIBUTIONS)
        raise UsageError(f"cannot bootstrap {distribution!r}", hint=f"one of {known}, as debian:bookworm")
    if not _SUITE.fullmatch(suite):
        raise UsageError(f"{options.base!r} names no suite", hint="for example debian:bookworm")
    for package in options.include:
        if not _PACKAGE.fullmatch(package):
            raise UsageError(f"{package!r} is not the name of a package")
    words = [tool, f"--variant={options.variant}"]
    if options.architecture:
        flag = "--architectures=" if os.path.basename(tool) == "mmdebstrap" else "--arch="
        words.append(flag + options.architecture)
    if options.include:
        words.append("--include=" + ",".join(options.include))
    return [*words, suite, target, *([options.mirror] if options.mirror else [])]


def bootstrap(
    store: ImageStore, options: BootstrapOptions, *, created: float, log: Callable[[str], object]
) -> Image:
    """Run the tool and import what it makes. ``log`` gets its output line by line."""
    tool = find_tool(options.tool)
    reference = Reference.parse(options.name or options.base)
    settings = Settings(env={"PATH": DEFAULT_PATH}, cmd=["/bin/bash"])
    moment = float(options.epoch) if options.epoch is not None else created
    if os.path.basename(tool) == "mmdebstrap":
        plain = _stream(command(options, tool, "-"), log)
        return import_root(store, plain, name=reference, created=moment, settings=settings)
    store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.blobs.ingest, prefix="bootstrap-") as folder:
        root = Path(folder) / "root"
        _run(command(options, tool, str(root)), log)
        with tempfile.TemporaryFile(dir=folder) as archive:
            write_tree(root, archive.write, TreeOptions(epoch=options.epoch, exclude=_is_cache))
            archive.seek(0)
            return import_root(store, archive, name=reference, created=moment, settings=settings)


def _is_cache(path: bytes) -> bool:
    return path.startswith((b"var/cache/apt/archives/", b"var/lib/apt/lists/")) and path.endswith(
        (b".deb", b"_Packages", b"_Release", b"_InRelease")
    )


def _stream(words: list[str], log: Callable[[str], object]) -> Iterator[bytes]:
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages) as child,
    ):
        assert child.stdout is not None
        try:
            while data := child.stdout.read(1 << 20):
                yield data
        except GeneratorExit:
            child.terminate()
            raise
        code = child.wait()
        messages.seek(0)
        lines = messages.read().decode(errors="replace").splitlines()
        for line in lines:
            log(line)
        if code:
            raise _failed(words[0], code, lines)


def _run(words: list[str], log: Callable[[str], object]) -> None:
    lines: list[str] = []
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            lines = [*lines[-20:], line.rstrip()]
            log(line.rstrip())
        code = child.wait()
    if code:
        raise _failed(words[0], code, lines)


def _failed(tool: str, code: int, lines: list[str]) -> OrchestraError:
    return OrchestraError(
        f"{os.path.basename(tool)} failed with code {code}",
        details=tuple(lines[-10:]),
        hint="does this machine reach the distribution's mirror? another one: --mirror URL",
    )
