"""``image save|load|import|from-host|bootstrap``: images as files, and images made on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from orchestra.cli.verbs.container_run import pairs
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestra.cli.context import Context
    from orchestra.images.manifest import Platform
    from orchestra.images.store import ImageStore


def open_store(context: Context) -> ImageStore:
    from orchestra.images.store import open_store as opened

    return opened(context.paths)


def platform_of(text: str) -> Platform | None:
    from orchestra.images.manifest import Platform

    return Platform.parse(text) if text else None


def _epoch(context: Context) -> int | None:
    from orchestra.images.diff import source_date_epoch

    return source_date_epoch(context.environ)


# --- save, load, import --------------------------------------------------------------------------


def add_save(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", default="", metavar="FILE", help="instead of standard output")
    add("--format", choices=["docker-archive", "oci-archive"], default="docker-archive",
        help="docker-archive is an OCI layout as well")  # fmt: skip
    add("images", nargs="+", metavar="IMAGE")


def run_save(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.archive import save

    store = open_store(context)
    with _output(context, args.output) as sink:
        save(store, args.images, sink, docker=args.format == "docker-archive")
    return 0


@contextlib.contextmanager
def _output(context: Context, path: str) -> Iterator[Any]:
    """A function that writes; the file appears only when it is whole."""
    from orchestra.images.problems import from_os_error

    if not path or path == "-":
        if sys.stdout.isatty():
            raise UsageError("an archive does not go to a terminal", hint="use -o FILE, or redirect")
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    aside = f"{path}.part-{os.getpid()}"
    try:
        with open(aside, "wb") as stream:
            yield stream.write
        os.replace(aside, path)
    except OSError as error:
        raise from_os_error(error, f"writing {path}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)


def add_load(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--input", default="", metavar="FILE", help="a file or OCI layout; else standard input")
    add("-q", "--quiet", action="store_true", help="accepted: there is no progress to hide")
    add("--platform", default="", help="of an archive with several")


def run_load(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.archive import load, load_summary

    store, platform = open_store(context), platform_of(args.platform)
    if args.input and os.path.isdir(args.input):
        images = load(store, Path(args.input), platform=platform)
    else:
        with _input(args.input) as stream:
            images = load(store, stream, platform=platform)
    for line in (line for image in images for line in load_summary(image)):
        print(line, file=context.stdout)
    return 0


@contextlib.contextmanager
def _input(path: str) -> Iterator[BinaryIO]:
    if not path or path == "-":
        if sys.stdin.isatty():
            raise UsageError("no archive given", hint="name a file, or redirect one to standard input")
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb", buffering=0)
    except OSError as error:
        raise OrchestraError(f"cannot read {path}: {(error.strerror or '').lower()}") from None
    with stream:
        yield stream


def add_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-c", "--change", action="append", default=[], metavar="INSTRUCTION",
        help="CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR …")  # fmt: skip
    add("-m", "--message", default="")
    add("--platform", default="")
    add("file", metavar="FILE", help="a tar, compressed or not; - is standard input")
    add("name", nargs="?", default="", metavar="NAME[:TAG]")


def run_import(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.archive import import_root
    from orchestra.images.reference import Reference

    name = Reference.parse(args.name) if args.name else None
    epoch = _epoch(context)
    with _input(args.file) as stream:
        image = import_root(
            open_store(context),
            stream,
            name=name,
            changes=args.change,
            created=float(epoch) if epoch is not None else time.time(),
            message=args.message,
            platform=platform_of(args.platform),
        )
    print(image.id, file=context.stdout)
    return 0


# --- from-host, bootstrap ------------------------------------------------------------------------


def add_from_host(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bin", action="append", default=[], metavar="PROGRAM", help="with all it needs (repeatable)")
    add(
        "--path",
        action="append",
        default=[],
        metavar="SOURCE[:TARGET]",
        help="a file or tree of this machine",
    )
    add("--mkdir", action="append", default=[], metavar="PATH[:MODE[:UID[:GID]]]")
    add("--add-user", action="append", default=[], metavar="NAME:UID[:GID]")
    add("--link", action="append", default=[], metavar="PATH:TARGET", help="a symbolic link")
    add("--no-applets", action="store_true", help="busybox without links for its applets")
    add("--no-base", action="store_true", help="no /etc/passwd, /tmp and so on")
    add("--cmd", default=None, help="words, or a JSON list")
    add("--entrypoint", default=None, help="words, or a JSON list")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE")
    add("-w", "--workdir", default="")
    add("-u", "--user", default="")
    add("--expose", action="append", default=[], metavar="PORT[/PROTOCOL]")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE")
    add("--volume", action="append", default=[], metavar="PATH")
    add("--healthcheck", default="", metavar="[OPTIONS] CMD …", help="as in a Dockerfile")
    add("--stop-signal", default="")
    add("-q", "--quiet", action="store_true", help="no warnings")
    add("name", metavar="NAME[:TAG]")


def run_from_host(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.fromhost import HostOptions, from_host

    if not args.bin and not args.path:
        raise UsageError("nothing to put into the image", hint="give --bin PROGRAM or --path FILE")
    options = HostOptions(
        bins=args.bin,
        paths=args.path,
        folders=args.mkdir,
        users=args.add_user,
        links=_links(args.link),
        settings=_settings(args),
        applets=not args.no_applets,
        base=not args.no_base,
        epoch=_epoch(context),
    )
    store = open_store(context)
    image = from_host(store, args.name, options, warn=_silent if args.quiet else context.warn)
    print(image.id, file=context.stdout)
    return 0


def _silent(_text: str) -> None:
    return None


def _links(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        path, sep, target = text.partition(":")
        if not sep or not path.startswith("/") or not target:
            raise UsageError(f"invalid link {text!r}", hint="expected /PATH:TARGET")
        found[path] = target
    return found


def _settings(args: argparse.Namespace) -> Any:
    from orchestra.images.config import Settings

    settings = Settings(user=args.user, working_dir=args.workdir, stop_signal=args.stop_signal)
    for port in args.expose:
        settings.apply(f"EXPOSE {port}")
    settings.env.update(pairs(args.env))
    settings.labels.update(pairs(args.label))
    settings.volumes += args.volume
    settings.cmd = _command(args.cmd)
    settings.entrypoint = _command(args.entrypoint)
    if args.healthcheck:
        settings.apply(f"HEALTHCHECK {args.healthcheck}")
    return settings


def _command(text: str | None) -> list[str] | None:
    """A JSON list, or words as a shell splits them (no shell is put around them)."""
    import shlex

    if text is None:
        return None
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
            raise UsageError(f"not a JSON list of words: {text}")
        return found
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from None


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--include", action="append", default=[], metavar="PACKAGE,…")
    add("--tool", default="", help="mmdebstrap or debootstrap; else what there is")
    add("--mirror", default="", metavar="URL")
    add("--variant", default="minbase")
    add("--arch", default="", dest="architecture")
    add("-t", "--tag", default="", metavar="NAME[:TAG]", help="instead of the base's own name")
    add("-q", "--quiet", action="store_true", help="without the tool's output")
    add("base", metavar="DISTRIBUTION:SUITE", help="for example debian:bookworm")


def run_bootstrap(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.bootstrap import BootstrapOptions, bootstrap

    options = BootstrapOptions(
        args.base,
        name=args.tag,
        include=tuple(word for text in args.include for word in text.split(",") if word),
        tool=args.tool,
        mirror=args.mirror,
        variant=args.variant,
        architecture=args.architecture,
        epoch=_epoch(context),
    )

    def log(line: str) -> None:
        if not args.quiet:
            print(line, file=context.stderr)

    image = bootstrap(open_store(context), options, created=time.time(), log=log)
    print(image.id, file=context.stdout)
    return 0
