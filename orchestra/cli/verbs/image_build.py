"""``image build`` and ``builder build``: one image from a Dockerfile, with the words of ``docker build``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.build.request import BuildRequest, Secret
    from orchestra.cli.context import Context
    from orchestra.events import Sink
    from orchestra.images.image import Image

ATTESTATIONS = ("provenance", "sbom", "attest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-t", "--tag", action="append", default=[], metavar="NAME", help="name of the image (several times)")
    add("-f", "--file", default="", metavar="FILE", help="the Dockerfile (PATH/Dockerfile; - is stdin)")
    add("--build-arg", action="append", default=[], metavar="KEY[=VALUE]")
    add(
        "--build-context",
        action="append",
        default=[],
        metavar="NAME=PLACE",
        help="a further context or image",
    )
    add("--target", default="", metavar="STAGE", help="build this stage")
    add("--no-cache", action="store_true", help="use no cached layer")
    add(
        "--no-cache-filter",
        action="append",
        default=[],
        metavar="STAGE",
        help="no cached layer in this stage",
    )
    add("--pull", action="store_true", help="always ask for newer base images")
    add("--label", action="append", default=[], metavar="KEY=VALUE")
    add("--secret", action="append", default=[], metavar="id=ID[,src=FILE|env=NAME]")
    add("--ssh", action="append", default=[], metavar="default|ID[=SOCKET]")
    add("--platform", default="", metavar="OS/ARCH")
    add("--progress", default="auto", choices=["auto", "plain", "tty", "quiet", "json", "rawjson"])
    add("--iidfile", default="", metavar="FILE", help="write the image id there")
    add("-q", "--quiet", action="store_true", help="print only the image id")
    add("--network", default="", metavar="host|none", help="network of RUN steps")
    add("--add-host", action="append", default=[], metavar="NAME:ADDRESS")
    add("--ulimit", action="append", default=[], metavar="NAME=SOFT[:HARD]")
    add("--shm-size", default="", metavar="BYTES")
    add("--allow", action="append", default=[], metavar="ENTITLEMENT", help="security.insecure")
    add("--load", action="store_true", help="accepted: the image always lands in the store")
    add("--cache-from", action="append", default=[], help="accepted without effect: the cache is local")
    add("--cache-to", action="append", default=[], help="accepted without effect: the cache is local")
    add("--push", action="store_true", help="push the image under each of its names")
    add("--metadata-file", default="", metavar="FILE", help="write names and digests there, as JSON")
    for name in ATTESTATIONS:
        add(f"--{name}", default="", metavar="WHAT", help="not supported: false is accepted")
    add("--builder", default="", metavar="NAME", help="accepted without effect: there is one builder")
    add("--rm", action="store_true", help="accepted: nothing is left behind anyway")
    add("--force-rm", action="store_true", help="accepted: nothing is left behind anyway")
    add("context", metavar="PATH|GIT|-", help="directory, git address, or a tar on standard input")


def _warn(context: Context, args: argparse.Namespace) -> None:
    """About options without effect."""
    if args.builder:
        context.warn("--builder has no effect: there is one builder")
    for name in ATTESTATIONS:
        if getattr(args, name) not in ("", "false", "0"):
            context.warn(f"--{name} is not supported and has no effect")


def _metadata(args: argparse.Namespace, image: Image) -> None:
    import json

    data = {
        "containerimage.config.digest": str(image.id),
        "containerimage.digest": str(image.digest),
        "image.name": ",".join(args.tag),
    }
    try:
        with open(args.metadata_file, "w", encoding="utf-8") as stream:
            json.dump(data, stream, indent=2)
    except OSError as error:
        raise OrchestraError(f"cannot write {args.metadata_file}: {error.strerror}") from None


def _push(context: Context, args: argparse.Namespace) -> None:
    from orchestra.images.reference import Reference
    from orchestra.images.registry.transfer import push
    from orchestra.images.store import open_store

    store = open_store(context.paths)
    for name in args.tag:
        push(store, Reference.parse(name), sink=_sink(context, args))
    context.close_progress()


def run(context: Context, args: argparse.Namespace) -> int:
    from orchestra.build.builder import build
    from orchestra.images.store import open_store

    for name in ("cache_from", "cache_to"):
        if getattr(args, name):
            context.warn(f"--{name.replace('_', '-')} has no effect: the cache is local")
    _warn(context, args)
    if args.push and not args.tag:
        raise UsageError("--push needs a name", hint="give -t NAME")
    request = _request(context, args)
    context.paths.make()
    image = build(request, open_store(context.paths), context.paths, _sink(context, args))
    context.close_progress()
    if args.iidfile:
        try:
            with open(args.iidfile, "w", encoding="ascii") as stream:
                stream.write(image.id)
        except OSError as error:
            raise OrchestraError(f"cannot write {args.iidfile}: {error.strerror}") from None
    if args.metadata_file:
        _metadata(args, image)
    if args.push:
        _push(context, args)
    if args.quiet:
        print(image.id, file=context.stdout)
    return 0


def _request(context: Context, args: argparse.Namespace) -> BuildRequest:
    from orchestra.build.context import is_git
    from orchestra.build.request import BuildRequest
    from orchestra.engine.userns import for_builds

    source = args.context
    if source != "-" and not is_git(source) and "://" not in source:
        source = os.path.join(context.cwd, os.path.expanduser(source))
    file = args.file
    if file and file != "-" and not is_git(source) and source != "-":
        file = os.path.join(context.cwd, file)
    needs_stdin = source == "-" or file == "-"
    return BuildRequest(
        context=source,
        dockerfile=file,
        args=_pairs(args.build_arg, "--build-arg", optional=True),
        target=args.target,
        tags=tuple(args.tag),
        labels={key: value or "" for key, value in _pairs(args.label, "--label", optional=True).items()},
        no_cache=args.no_cache,
        no_cache_stages=tuple(args.no_cache_filter),
        pull=args.pull,
        platform=args.platform,
        network=args.network,
        remap=for_builds(context.paths),
        extra_hosts=tuple(args.add_host),
        secrets=tuple(_secret(context, text) for text in args.secret),
        ssh=tuple(args.ssh),
        contexts={
            key: _place(context, value or "")
            for key, value in _pairs(args.build_context, "--build-context").items()
        },
        shm_size=_bytes(args.shm_size),
        ulimits=_ulimits(args.ulimit),
        privileged="security.insecure" in args.allow,
        environ=context.environ,
        stdin=sys.stdin.buffer if needs_stdin else None,
    )


def _pairs(words: list[str], flag: str, *, optional: bool = False) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not (equals or optional):
            raise UsageError(f"invalid {flag} {word!r}", hint="write KEY=VALUE")
        found[key] = value if equals else None
    return found


def _place(context: Context, value: str) -> str:
    from orchestra.build.context import is_git

    if "://" in value or is_git(value):
        return value
    return os.path.join(context.cwd, value)


def _secret(context: Context, text: str) -> Secret:
    from orchestra.build.request import Secret

    options: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(
                f"invalid --secret {text!r}", hint="write id=NAME,src=FILE or id=NAME,env=VARIABLE"
            )
        options[key] = value
    name = options.get("id", "")
    source = options.get("src") or options.get("source") or ""
    variable = options.get("env") or ("" if source else name)
    if not name:
        raise UsageError(f"--secret {text!r} has no id=")
    if options.get("type", "file") not in ("file", "env"):
        raise UsageError(f"unknown type of secret in {text!r}")
    if source and options.get("type") != "env":
        return Secret(name, file=os.path.join(context.cwd, os.path.expanduser(source)))
    variable = source or variable
    if variable in context.environ:
        return Secret(name, value=context.environ[variable])
    raise UsageError(f"secret {name}: the variable {variable} is not set", hint="name a file with src=FILE")


def _bytes(text: str) -> int | None:
    if not text:
        return None
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    bare = text.lower()
    unit = units.get(bare[-1], 1)
    number = bare[:-1] if bare[-1] in units else bare
    if not number.isdigit():
        raise UsageError(f"invalid size {text!r}", hint="for example 64m")
    return int(number) * unit


def _ulimits(words: list[str]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for word in words:
        name, _, values = word.partition("=")
        soft, _, hard = values.partition(":")
        try:
            found[name] = (int(soft), int(hard or soft))
        except ValueError:
            raise UsageError(f"invalid --ulimit {word!r}", hint="write NAME=SOFT[:HARD]") from None
    return found


def _sink(context: Context, args: argparse.Namespace) -> Sink:
    """Progress as asked: nothing, docker's plain lines, or the common renderer."""
    from orchestra.events import nowhere

    if args.quiet or args.progress == "quiet":
        return nowhere
    if args.progress in ("auto", "plain") and not (args.progress == "auto" and context.stderr.isatty()):
        return PlainLines(context).show
    context.options.progress = {"rawjson": "json"}.get(args.progress, args.progress)
    return context.progress_sink()


class PlainLines:
    """``#3 [build 2/4] RUN make`` and its output, one number a step."""

    def __init__(self, context: Context) -> None:
        self._stream = context.stderr
        self._numbers: dict[str, int] = {}

    def show(self, progress: object) -> None:
        from orchestra.events import Progress, Status

        assert isinstance(progress, Progress)
        known = progress.resource in self._numbers
        number = self._numbers.setdefault(progress.resource, len(self._numbers) + 1)
        if progress.text == "log":
            line = f"#{number} {progress.details}"
        elif progress.status is Status.WORKING and known:
            return
        elif progress.status is Status.WORKING:
            line = f"#{number} {progress.resource}"
        else:
            if not known:
                print(f"#{number} {progress.resource}", file=self._stream)
            line = f"#{number} {progress.text.upper()} {progress.details}".rstrip()
        print(line, file=self._stream, flush=True)
