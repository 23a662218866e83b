"""``system …``: disk use, cleaning up, checking the store, ending the daemon."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from orchestra.cli.client import DaemonAbsent
from orchestra.cli.render import words
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.images.image import Image


def confirm(context: Context, text: str, *, force: bool) -> None:
    """Ask; raises OrchestraError when the answer is not yes."""
    if force:
        return
    print(
        f"WARNING! {text}\nAre you sure you want to continue? [y/N] ", end="", file=context.stderr, flush=True
    )
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise OrchestraError("nothing was removed", hint="answer y, or give --force")


def labelled(labels: dict[str, str], filters: list[str]) -> bool:
    """Whether something passes ``--filter label=KEY[=VALUE]`` and ``label!=…``. Raises UsageError."""
    for word in filters:
        key, _, text = word.partition("=")
        if key not in ("label", "label!"):
            raise UsageError(f"invalid filter {key!r}", hint="label and label! are there")
        name, sep, value = text.partition("=")
        if (name in labels and (not sep or labels[name] == value)) != (key == "label"):
            return False
    return True


def add_df(parser: ArgumentParser) -> None:
    parser.add_argument("--format", default="", help="table, json or a template")


def run_df(context: Context, args: Namespace) -> int:
    from orchestra.cli.render.template import show
    from orchestra.images.store import open_store

    containers = context.client.call("containers")
    volumes = context.client.call("volumes")
    images = open_store(context.paths).list()
    used = {c["image_id"] for c in containers}
    running = [c for c in containers if c["state"] in ("running", "paused", "restarting")]
    sizes = {c["id"]: _tree(context.paths.containers / c["id"] / "upper") for c in containers}
    volume_sizes = {v["name"]: _tree(v["mountpoint"]) for v in volumes}
    idle = {v["name"] for v in volumes if not v["used_by"]}
    rows = [
        _line(
            "Images",
            len(images),
            sum(1 for i in images if i.id in used),
            sum(i.size for i in images),
            sum(i.size for i in images if i.id not in used),
        ),
        _line(
            "Containers",
            len(containers),
            len(running),
            sum(sizes.values()),
            sum(size for cid, size in sizes.items() if cid not in {c["id"] for c in running}),
        ),
        _line(
            "Local Volumes",
            len(volumes),
            len(volumes) - len(idle),
            sum(volume_sizes.values()),
            sum(size for name, size in volume_sizes.items() if name in idle),
        ),
        _build_cache(context, images),
    ]
    if not show(context, args.format, rows, {}):
        keys = ["Type", "TotalCount", "Active", "Size", "Reclaimable"]
        context.table(
            ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"], [[str(r[key]) for key in keys] for r in rows]
        )
    return 0


def _build_cache(context: Context, images: list[Image]) -> dict[str, Any]:
    """Of a layer that images share with the cache nothing would be won."""
    from orchestra.images.cached import records
    from orchestra.images.store import open_store

    held = {layer.digest for image in images for layer in image.manifest.layers}
    found = [digest for _, digest in records(context.paths.builds / "cache")]
    sizes = {str(digest): info.st_size for digest, info in open_store(context.paths).blobs.all()}
    layers = {digest for digest in found if digest in sizes}
    return _line(
        "Build Cache",
        len(found),
        sum(digest in held for digest in found),
        sum(sizes[str(digest)] for digest in layers),
        sum(sizes[str(digest)] for digest in layers - held),
    )


def _line(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": total,
        "Active": active,
        "Size": words.size(size),
        "Reclaimable": f"{words.size(free)}{share}",
    }


def _tree(path: Any) -> int:
    """Bytes that a directory's files take."""
    import os

    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return total


def add_prune(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="all unused images, not only those without a name")
    add("-f", "--force", action="store_true", help="ask nothing")
    add("--volumes", action="store_true", help="anonymous volumes too")


def run_prune(context: Context, args: Namespace) -> int:
    from orchestra.cli.verbs import container, image, network, volume
    from orchestra.images.cached import forget
    from orchestra.images.store import open_store

    confirm(
        context,
        "This will remove stopped containers, unused networks, images and build cache"
        + (" and anonymous volumes." if args.volumes else "."),
        force=args.force,
    )
    container.run_prune(context, Namespace(force=True))
    network.run_prune(context, Namespace(force=True))
    if args.volumes:
        volume.run_prune(context, Namespace(force=True, all=False))
    kept: set[str | None] = set()
    if not args.all:
        kept = {layer.digest for one in open_store(context.paths).list() for layer in one.manifest.layers}
        kept.add(None)  # steps that changed no file
    forget(context.paths.builds / "cache", keep=kept)
    parser = ArgumentParser()
    image.add_prune(parser)
    return int(image.run_prune(context, parser.parse_args(["--force", *(["--all"] if args.all else [])])))


def add_check(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--repair", action="store_true", help="remove what is damaged, so that the next pull brings it again"
    )


def run_check(context: Context, args: Namespace) -> int:
    """Every blob's digest, every layer and reference of the image store."""
    from orchestra.images.store import open_store

    findings = open_store(context.paths).check(mend=args.repair)
    for finding in findings:
        print(finding, file=context.stdout)
    left = [finding for finding in findings if not finding.mended]
    print(f"{len(findings)} problems found, {len(findings) - len(left)} mended", file=context.stdout)
    return 1 if left else 0


def add_shutdown(parser: ArgumentParser) -> None:
    del parser


def run_shutdown(context: Context, args: Namespace) -> int:
    """Ends the daemon; containers run on, the next command starts it again."""
    del args
    try:
        context.client.call("shutdown", start=False)
    except DaemonAbsent:
        print("no daemon runs", file=context.stderr)
    return 0
