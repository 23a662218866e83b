"""``build``: the images of services that have a ``build`` section."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.cli import dryrun
from orchestra.controller.naming import image_name
from orchestra.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.compose.model import Project, Service


OBSOLETE = ("compress", "force-rm", "no-rm")  # docker compose takes them without effect


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--no-cache", action="store_true", help="use no cached layer")
    add("--pull", action="store_true", help="always ask for newer base images")
    add("--build-arg", action="append", default=[], metavar="KEY=VALUE", help="set a build argument")
    add("-q", "--quiet", action="store_true", help="print only ids of images")
    add("--with-dependencies", action="store_true", help="build dependencies too")
    add("--push", action="store_true", help="push the images")
    add("--check", action="store_true", help="only read the Dockerfiles")
    add("--print", action="store_true", help="print what would be built, as JSON")
    add("--ssh", default="", metavar="ID", help="ssh agent socket or keys")
    add("-m", "--memory", default="", help="memory limit of the builder (not supported)")
    add("--builder", default="", help="not supported: there is one builder")
    add("--provenance", default="", help="not supported")
    add("--sbom", default="", help="not supported")
    for name in OBSOLETE:
        add(f"--{name}", action="store_true", help=SUPPRESS)
    add("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    from orchestra.build.service import build_service, check_service
    from orchestra.controller.reconcile import closure
    from orchestra.engine.userns import for_builds
    from orchestra.images.store import open_store

    for name in ("memory", "builder", "provenance", "sbom", *OBSOLETE):
        if getattr(args, name.replace("-", "_")) not in ("", False, "false", "0"):
            context.warn(f"--{name} is not supported and has no effect")
    project = context.load(args.services)
    names = closure(project, tuple(args.services), deps=args.with_dependencies or not args.services)
    services = [project.services[name] for name in names if project.services[name].build]
    if args.services and not services:
        raise NotFoundError(f"no build section in {', '.join(args.services)}")
    if not services:
        context.warn("no service has a build section")
        return 0
    if args.print:
        return _print(context, project, services)
    if context.options.dry_run:
        return _would_build(context, project, services, args)
    if args.quiet:
        context.options.progress = "quiet"
    store = open_store(context.paths)
    context.paths.make()
    sink = context.progress_sink()
    for service in services:
        changed = _with_options(context, service, args)
        if args.check:
            check_service(project, changed)
            continue
        image = build_service(
            project, changed, store=store, paths=context.paths, sink=sink, remap=for_builds(context.paths)
        )
        if args.quiet:
            print(image.id, file=context.stdout)
    context.close_progress()
    if args.push and not args.check:
        from orchestra.cli.verbs.push import push_services

        return push_services(context, project, [service.name for service in services], ignore=False)
    return 0


def _would_build(context: Context, project: Project, services: list[Service], args: Namespace) -> int:
    """``--dry-run``: the images and where they would be built from."""
    what = "check" if args.check else "build"
    lines = [
        f"{what} {image_name(project, service)}: {service.build.context} for service {service.name}"
        for service in services
        if service.build
    ]
    dryrun.lines(context, lines)
    if args.push and not args.check:
        from orchestra.cli.verbs.push import push_services

        return push_services(context, project, [service.name for service in services], ignore=False)
    return 0


def _with_options(context: Context, service: Service, args: Namespace) -> Service:
    build = service.build
    assert build is not None
    values = dict(build.args)
    for word in args.build_arg:
        key, sep, value = word.partition("=")
        if not key:
            raise UsageError(f"invalid --build-arg {word!r}", hint="write KEY=VALUE")
        values[key] = value if sep else context.environ.get(key)
    ssh = (args.ssh,) if args.ssh else build.ssh
    return replace(
        service,
        build=replace(
            build,
            args=values,
            no_cache=build.no_cache or args.no_cache,
            pull=build.pull or args.pull,
            ssh=ssh,
        ),
    )


def _print(context: Context, project: Project, services: list[Service]) -> int:
    import json

    targets = {
        service.name: {
            "context": service.build.context,
            "dockerfile": service.build.dockerfile,
            "tags": [image_name(project, service)],
            "args": dict(service.build.args),
            "target": service.build.target,
        }
        for service in services
        if service.build
    }
    print(
        json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets}, indent=2),
        file=context.stdout,
    )
    return 0
