"""``image …``: the store itself, without the daemon: what is there, names, removal (files: image_files.py)."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

from orchestra.cli.render import words
from orchestra.cli.verbs.image_files import (
    add_bootstrap,
    add_from_host,
    add_import,
    add_load,
    add_save,
    open_store,
    platform_of,
    run_bootstrap,
    run_from_host,
    run_import,
    run_load,
    run_save,
)
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

__all__ = [
    "add_bootstrap", "add_from_host", "add_history", "add_import", "add_inspect", "add_load", "add_ls",
    "add_prune", "add_pull", "add_push", "add_rm", "add_save", "add_tag", "run_bootstrap", "run_from_host",
    "run_history", "run_import", "run_inspect", "run_load", "run_ls", "run_prune", "run_pull", "run_push",
    "run_rm", "run_save", "run_tag",
]  # fmt: skip

_FILTERS = ("dangling", "label", "reference", "before", "since", "until")


# --- ls ------------------------------------------------------------------------------------------


def add_ls(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="accepted for docker's sake: every image is shown anyway")
    add("-q", "--quiet", action="store_true", help="only ids")
    add("-f", "--filter", action="append", default=[], metavar="KEY=VALUE", help=", ".join(_FILTERS))
    add("--format", default="", help="table, json or a template")
    add("--digests", action="store_true", help="show the digests of manifests")
    add("--no-trunc", action="store_true")
    add("name", nargs="?", metavar="REPOSITORY[:TAG]")


def run_ls(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show
    from orchestra.images.usage import unpacked_size

    store = open_store(context)
    found = _filtered(store, store.list(), args)
    if args.quiet:
        for image in found:
            print(image.id if args.no_trunc else image.short_id, file=context.stdout)
        return 0
    rows = [row for image in found for row in _rows(image, unpacked_size(store, image), args)]
    titles = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED"}
    if show(context, args.format, rows, titles):
        return 0
    names = ["Repository", "Tag", *(["Digest"] if args.digests else []), "ID", "CreatedSince", "Size"]
    columns = [titles.get(name, name.upper()) for name in names]
    context.table(columns, [[str(row[name]) for name in names] for row in rows])
    return 0


def _rows(image: Image, size: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    from orchestra.images.gc import created_at
    from orchestra.images.reference import Reference

    created = created_at(image)
    tagged = [Reference.parse(name) for name in image.references if "@" not in name]
    digests = {Reference.parse(name).familiar_name: name for name in image.references if "@" in name}
    named = [(reference.familiar_name, reference.tag or "<none>") for reference in tagged]
    named = named or [(name, "<none>") for name in digests] or [("<none>", "<none>")]
    if args.name and tagged:
        named = [pair for pair in named if _matches_name(pair, args.name)]
    return [
        {
            "Repository": repository,
            "Tag": tag,
            "Digest": image.digest,
            "ID": image.id if args.no_trunc else image.short_id,
            "CreatedSince": f"{words.ago(max(0.0, time.time() - created))} ago",
            "CreatedAt": words.local_stamp(created),
            "Size": words.size(size),
            "Platform": str(image.platform),
        }
        for repository, tag in named
    ]


def _matches_name(pair: tuple[str, str], pattern: str) -> bool:
    """A repository, a repository with tag, or a shell pattern of either."""
    from fnmatch import fnmatchcase

    full = ":".join(pair)
    return any(fnmatchcase(text, pattern) for text in (pair[0], full, pair[0].rpartition("/")[2]))


def _filtered(store: ImageStore, images: list[Image], args: argparse.Namespace) -> list[Image]:
    if args.name:
        images = [image for image in images if _image_matches(image, args.name)]
    for word in args.filter:
        key, sep, value = word.partition("=")
        if key not in _FILTERS or not sep:
            raise UsageError(f"invalid filter {word!r}", hint=f"there are: {', '.join(_FILTERS)}")
        images = _filter(store, images, key, value)
    return images


def _image_matches(image: Image, pattern: str) -> bool:
    from orchestra.images.reference import Reference

    references = [Reference.parse(name) for name in image.references]
    return any(_matches_name((r.familiar_name, r.tag or ""), pattern) for r in references)


def _filter(store: ImageStore, images: list[Image], key: str, value: str) -> list[Image]:
    from orchestra.images.gc import created_at

    if key == "dangling":
        return [image for image in images if bool(image.tags) != (value.lower() in ("1", "true"))]
    if key == "reference":
        return [image for image in images if _image_matches(image, value)]
    if key == "label":
        name, sep, wanted = value.partition("=")
        found = [(image, image.settings.get("Labels") or {}) for image in images]
        return [image for image, labels in found if name in labels and (not sep or labels[name] == wanted)]
    if key == "until":
        moment = words.moment(value)
        return [image for image in images if created_at(image) < moment]
    moment = created_at(store.get(value))
    older = key == "before"
    return [i for i in images if (created_at(i) < moment if older else created_at(i) > moment)]


# --- pull, push, tag, rm -------------------------------------------------------------------------


def add_pull(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true")
    add("--platform", default="", help="os/architecture[/variant]")
    add("--policy", choices=["always", "missing"], default="always")
    add("names", nargs="+", metavar="NAME")


def run_pull(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.registry.transfer import pull

    if args.quiet:
        context.options.progress = "quiet"
    store, sink = open_store(context), context.progress_sink()
    platform = platform_of(args.platform)
    images = []
    try:
        for name in args.names:
            images.append(
                pull(store, name, platform=platform, policy=args.policy, sink=sink, environ=context.environ)
            )
    finally:
        context.close_progress()
    for image in images:
        print(image.id if args.quiet else image.digest, file=context.stdout)
    return 0


def add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-a", "--all-tags", action="store_true", help="every tag of the repository")
    parser.add_argument("name", metavar="NAME")


def run_push(context: Context, args: argparse.Namespace) -> int:
    from orchestra.images.reference import Reference
    from orchestra.images.registry.transfer import push

    if args.quiet:
        context.options.progress = "quiet"
    store, sink = open_store(context), context.progress_sink()
    wanted = [Reference.parse(args.name)]
    if args.all_tags:
        repository = wanted[0].name
        known = [Reference.parse(name) for image in store.list() for name in image.references]
        wanted = sorted(name for name in known if name.name == repository and not name.digest)
        if not wanted:
            raise OrchestraError(f"no image has a tag in {Reference.parse(args.name).familiar_name}")
    digests = []
    try:
        for reference in wanted:
            digests.append(push(store, reference, sink=sink, environ=context.environ))
    finally:
        context.close_progress()
    for digest in digests:
        print(digest, file=context.stdout)
    return 0


def add_tag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IMAGE")
    parser.add_argument("target", metavar="NAME[:TAG]")


def run_tag(context: Context, args: argparse.Namespace) -> int:
    open_store(context).tag(args.source, args.target)
    return 0


def add_rm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="also names of an image in use")
    parser.add_argument("--no-prune", action="store_true", help="leave the content to the next prune")
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run_rm(context: Context, args: argparse.Namespace) -> int:
    from orchestra.errors import NotFoundError

    store = open_store(context)
    code = 0
    for text in args.images:
        try:
            lines = store.remove(text, force=args.force, prune_parents=not args.no_prune)
        except NotFoundError as error:
            if not args.force:
                context.report(error)
                code = 1
            continue
        except OrchestraError as error:
            context.report(error)
            code = 1
            continue
        for line in lines:
            print(line, file=context.stdout)
    return code


# --- inspect, history ----------------------------------------------------------------------------


def add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="", help="json or a template")
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run_inspect(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show

    store = open_store(context)
    found = [_details(store, store.get(text)) for text in args.images]
    if not show(context, args.format, found, {}):
        print(json.dumps(found, indent=4), file=context.stdout)
    return 0


def _details(store: ImageStore, image: Image) -> dict[str, Any]:
    """As ``docker image inspect`` has it."""
    from orchestra.images.rootfs import is_unpacked, layer_dir
    from orchestra.images.usage import unpacked_size

    return {
        "Id": image.id,
        "RepoTags": image.tags,
        "RepoDigests": image.repo_digests,
        "Comment": next((s.get("comment", "") for s in reversed(image.config.get("history") or [])), ""),
        "Created": image.created,
        "Author": image.config.get("author", ""),
        "Config": dict(image.settings),
        "Architecture": image.architecture,
        "Variant": image.platform.variant,
        "Os": image.os,
        "Size": unpacked_size(store, image),
        "Digest": image.digest,
        "MediaType": image.manifest.media_type,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Layers": [
            {"Digest": layer.digest, "MediaType": layer.media_type, "Size": layer.size,
             "Unpacked": str(layer_dir(store, chain) / "fs") if is_unpacked(store, chain) else None}
            for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=True)
        ],
        "Metadata": {"LastTagTime": words.rfc3339(image.entry.added)},
    }  # fmt: skip


def add_history(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="only ids")
    add("--no-trunc", action="store_true")
    add(
        "-H",
        "--human",
        action="store_true",
        default=True,
        help="sizes and dates in words (--human=false: exact)",
    )
    add("--format", default="", help="table, json or a template")
    add("image", metavar="IMAGE")


def run_history(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show

    store = open_store(context)
    rows = _history(store, store.get(args.image), args)
    if args.quiet:
        for row in rows:
            print(row["ID"], file=context.stdout)
        return 0
    titles = {"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedBy": "CREATED BY"}
    if not show(context, args.format, rows, titles):
        names = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
        columns = [titles.get(name, name.upper()) for name in names]
        context.table(columns, [[str(row[name]) for name in names] for row in rows])
    return 0


def _history(store: ImageStore, image: Image, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Newest first; the newest step carries the image's id."""
    from orchestra.images.rootfs import info

    sizes = [
        int(info(store, chain).get("size", layer.size))
        for layer, chain in zip(image.manifest.layers, image.chain_ids, strict=True)
    ]
    rows = []
    for step in image.config.get("history") or [{} for _ in sizes]:
        size = 0 if step.get("empty_layer") or not sizes else sizes.pop(0)
        moment = _moment(str(step.get("created") or ""))
        since = f"{words.ago(max(0.0, time.time() - moment))} ago" if moment is not None else "N/A"
        by = " ".join(str(step.get("created_by") or "").split())
        rows.append(
            {
                "ID": "<missing>",
                "CreatedSince": since if args.human else str(step.get("created") or ""),
                "CreatedAt": str(step.get("created") or ""),
                "CreatedBy": by if args.no_trunc or len(by) <= 45 else by[:44] + "…",
                "Size": words.size(size) if args.human else str(size),
                "Comment": str(step.get("comment") or ""),
            }
        )
    rows.reverse()
    if rows:
        rows[0]["ID"] = image.id if args.no_trunc else image.short_id
    return rows


def _moment(text: str) -> float | None:
    with contextlib.suppress(OrchestraError):
        return words.moment(text) if text else None
    return None


# --- prune ---------------------------------------------------------------------------------------


def add_prune(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="all unused images, not only those without a name")
    add("-f", "--force", action="store_true", help="do not ask")
    add("--filter", action="append", default=[], metavar="KEY=VALUE", help="until, label, label!")


def run_prune(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.system import confirm
    from orchestra.images.gc import PruneFilter

    until: float | None = None
    labels: dict[str, str] = {}
    not_labels: dict[str, str] = {}
    for word in args.filter:
        key, sep, value = word.partition("=")
        if key == "until" and sep:
            until = words.moment(value)
        elif key in ("label", "label!") and sep:
            name, _, wanted = value.partition("=")
            (labels if key == "label" else not_labels)[name] = wanted
        else:
            raise UsageError(f"invalid filter {word!r}", hint="there are: until, label, label!")
    which = PruneFilter(all=args.all, until=until, labels=labels, not_labels=not_labels)
    dry = bool(context.options.dry_run)
    what = "all images without a container" if args.all else "all images without a name"
    if not dry:
        confirm(context, f"This will remove {what}.", force=args.force)
    report = open_store(context).prune(which, dry_run=dry)
    if report.lines:
        print("Would delete:" if dry else "Deleted Images:", file=context.stdout)
    for line in report.lines:
        print(line[:1].lower() + line[1:], file=context.stdout)
    print(f"Total reclaimed space: {words.size(report.size)}", file=context.stdout)
    return 0
