"""``pull``: the images of services, side by side."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from orchestra.cli import dryrun
from orchestra.controller.naming import image_name
from orchestra.errors import OrchestraError
from orchestra.events import Progress, Status

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("-q", "--quiet", action="store_true", help="without progress")
    add("--ignore-pull-failures", action="store_true", help="go on when an image cannot be pulled")
    add("--ignore-buildable", action="store_true", help="leave out images that can be built")
    add("--include-deps", action="store_true", help="dependencies of the named services too")
    add("--policy", choices=["always", "missing"], default="always", help="when to pull")
    add("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    from orchestra.controller.reconcile import closure

    project = context.load(args.services)
    if args.quiet:
        context.options.progress = "quiet"
    names = closure(project, tuple(args.services), deps=args.include_deps or not args.services)
    wanted = _wanted(project, names, args)
    if context.options.dry_run:
        return dryrun.lines(context, [f"pull {image}: policy {args.policy}" for image in wanted])
    context.paths.make()
    errors = pull_all(context, wanted, args.policy)
    context.close_progress()
    for error in errors:
        if args.ignore_pull_failures:
            context.warn(error.brief)
        else:
            context.report(error)
    return 1 if errors and not args.ignore_pull_failures else 0


def _wanted(project: Project, names: list[str], args: Namespace) -> dict[str, tuple[str, str]]:
    """image → (platform, policy)"""
    wanted = {}
    for name in names:
        service = project.services[name]
        text = image_name(project, service)
        buildable = service.build is not None
        if not service.image or service.pull_policy == "build" or (buildable and args.ignore_buildable):
            continue
        if service.pull_policy == "never":
            continue
        wanted[text] = (service.platform, "buildable" if buildable else "")
    return wanted


def pull_all(context: Context, wanted: dict[str, tuple[str, str]], policy: str) -> list[OrchestraError]:
    """Pull each image; the errors (an image that can be built only warns)."""
    from orchestra.images.reference import Reference
    from orchestra.images.registry.transfer import pull
    from orchestra.images.store import open_store

    store, sink = open_store(context.paths), context.progress_sink()

    def one(text: str) -> OrchestraError | None:
        platform, kind = wanted[text]
        if policy == "missing" and store.resolve(text) is not None:
            sink(Progress(f"Image {text}", "Skipped", Status.DONE, "is already here"))
            return None
        try:
            pull(store, Reference.parse(text), platform=platform or None, sink=sink)
        except OrchestraError as error:
            if kind == "buildable":
                sink(
                    Progress(f"Image {text}", "Skipped", Status.WARNING, "cannot be pulled; it can be built")
                )
                return None
            sink(Progress(f"Image {text}", "Error", Status.ERROR, error.brief))
            return error
        return None

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(context.parallel() or 4) as pool:
        return [error for error in pool.map(one, wanted) if error is not None]
