"""``images``: the images that the project's containers run."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from orchestra.cli.projects import containers
from orchestra.cli.render import words

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="only ids")
    parser.add_argument("--format", choices=["table", "json"], default="table", help="table or json")
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    from orchestra.images.store import open_store

    _, found = containers(context, args.services)
    store = open_store(context.paths)
    rows = [_row(store, info) for info in sorted(found, key=lambda c: c["name"])]
    if args.quiet:
        for image in dict.fromkeys(row["ID"] for row in rows):
            print(image.removeprefix("sha256:")[:12], file=context.stdout)
    elif args.format == "json":
        print(json.dumps(rows), file=context.stdout)
    else:
        columns = ["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE"]
        table = [
            [
                r["ContainerName"],
                r["Repository"],
                r["Tag"],
                r["Platform"],
                r["ID"].removeprefix("sha256:")[:12],
                words.size(r["Size"]),
            ]
            for r in rows
        ]
        context.table(columns, table)
    return 0


def _row(store: Any, info: dict[str, Any]) -> dict[str, Any]:
    repository, tag = words.split_image(info["image"])
    image = store.resolve(info["image_id"]) or store.resolve(info["image"])
    return {
        "ID": info["image_id"],
        "ContainerName": info["name"],
        "Repository": repository,
        "Tag": tag,
        "Platform": f"{image.os}/{image.architecture}" if image else "",
        "Size": image.size if image else 0,
        "Created": image.created if image else None,
    }
