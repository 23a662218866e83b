"""``push``: the images of services that have a build section and a name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli import dryrun
from orchestra.errors import NotFoundError, OrchestraError

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="without progress")
    add("--ignore-push-failures", action="store_true", help="go on when an image cannot be pushed")
    add("--include-deps", action="store_true", help="dependencies of the named services too")
    add("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    from orchestra.controller.reconcile import closure

    project = context.load(args.services)
    if args.quiet:
        context.options.progress = "quiet"
    names = closure(project, tuple(args.services), deps=args.include_deps or not args.services)
    return push_services(context, project, names, ignore=args.ignore_push_failures)


def push_services(context: Context, project: Project, names: list[str], *, ignore: bool) -> int:
    """Push each named service's image (and its further tags); 1 when one failed and ``ignore`` is false."""
    from orchestra.images.reference import Reference
    from orchestra.images.registry.transfer import push
    from orchestra.images.store import open_store

    store, sink, code = open_store(context.paths), context.progress_sink(), 0
    for name in names:
        service = project.services[name]
        if service.build is None:
            continue
        if not service.image:
            context.warn(f"service {name} has no image name of its own and is not pushed")
            continue
        for text in (service.image, *service.build.tags):
            if context.options.dry_run:
                dryrun.lines(context, [f"push {text}: service {name}"])
                continue
            try:
                if store.resolve(text) is None:
                    raise NotFoundError(f"no such image: {text}", hint=f"build it: orchestra build {name}")
                push(store, Reference.parse(text), sink=sink)
            except OrchestraError as error:
                context.report(error)
                code = 0 if ignore else 1
    context.close_progress()
    return code
