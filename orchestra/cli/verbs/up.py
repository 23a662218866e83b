"""``up``: converge to the file and start; attached unless ``-d``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from orchestra.cli import dryrun
from orchestra.cli.projects import image_options, project_data, scales, timeout_of
from orchestra.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


TRUTHY = ("1", "true", "yes", "y")


def add_converge(parser: ArgumentParser) -> None:
    """The options that ``up``, ``create`` and ``plan`` share."""
    add = parser.add_argument
    add("--build", action="store_true", help="build images before starting")
    add("--no-build", action="store_true", help="never build an image, even a missing one")
    add("--force-recreate", action="store_true", help="recreate even what is as wanted")
    add("--no-recreate", action="store_true", help="leave existing containers as they are")
    add("--remove-orphans", action="store_true", help="remove containers of services the file does not have")
    add("--scale", action="append", default=[], metavar="SERVICE=N", help="number of replicas, for this run")
    add(
        "--pull",
        choices=["always", "missing", "never", "build", "policy"],
        default="policy",
        help="pull policy for this run",
    )
    add("--quiet-pull", action="store_true", help="pull without its layers")
    add("--quiet-build", action="store_true", help="build without its steps")
    add("-y", "--yes", action="store_true", help='assume "yes" for every question')
    add("services", nargs="*", metavar="SERVICE")


def add_arguments(parser: ArgumentParser) -> None:
    add_converge(parser)
    add = parser.add_argument
    add("-d", "--detach", action="store_true", help="run in the background")
    add("--wait", action="store_true", help="wait until services are running or healthy; implies -d")
    add("--wait-timeout", type=float, default=0, metavar="SECONDS", help="the longest wait")
    add("-V", "--renew-anon-volumes", action="store_true", help="fresh anonymous volumes")
    add("--always-recreate-deps", action="store_true", help="recreate the dependencies of the named services")
    add("--no-deps", action="store_true", help="leave dependencies alone")
    add("--no-start", action="store_true", help="create, start nothing")
    add("--abort-on-container-exit", action="store_true", help="stop all when one container stops")
    add("--abort-on-container-failure", action="store_true", help="stop all when one container fails")
    add(
        "--exit-code-from",
        default="",
        metavar="SERVICE",
        help="return this service's exit code; implies --abort-on-container-exit",
    )
    add("--attach", action="append", default=[], metavar="SERVICE", help="show only these services' logs")
    add(
        "--no-attach", action="append", default=[], metavar="SERVICE", help="do not show these services' logs"
    )
    add("--attach-dependencies", action="store_true", help="show the logs of dependencies too")
    add("--no-color", action="store_true", help="monochrome logs")
    add("--no-log-prefix", action="store_true", help="logs without prefix")
    add("--timestamps", action="store_true", help="logs with time stamps")
    add("-t", "--timeout", type=float, default=None, metavar="SECONDS", help="stop timeout")
    add("--menu", action="store_true", default=None, help="keys while attached: d detaches, w watches")
    add("-w", "--watch", action="store_true", help="watch source files and update services")


def run(context: Context, args: Namespace) -> int:
    check(context, args)
    project = context.load(args.services)
    if not project.services:
        from orchestra.errors import OrchestraError

        raise OrchestraError("no service selected")
    options = reconcile_options(context, args, project)
    context.hush(args)
    if context.options.dry_run:
        return show_plan(context, project, options, args)
    detached = args.detach or args.wait or args.no_start
    if detached:
        result = context.call("up", up_args(context, args, project, options))
        say_nothing_to_do(context, result)
        return 0
    from orchestra.cli.attached import Attached

    return Attached(context, args, project, options).run()


def say_nothing_to_do(context: Context, result: dict[str, Any]) -> None:
    """A second ``up`` says that nothing had to change."""
    changing = [a for a in result["actions"] if a["action"] not in ("keep", "wait for")]
    if not changing and context.progress_kind() in ("plain", "tty"):
        print(f"{result['project']}: everything is as wanted, nothing to do", file=context.stderr)


def up_args(context: Context, args: Namespace, project: Project, options: dict[str, Any]) -> dict[str, Any]:
    return {
        "project": project_data(project),
        "options": options,
        "images": image_options(args),
        "wait_timeout": getattr(args, "wait_timeout", 0) or None,
        "parallel": context.parallel(),
    }


def reconcile_options(context: Context, args: Namespace, project: Project) -> dict[str, Any]:
    """The verb's options as the daemon takes them."""
    environ = {**project.environment, **context.environ}
    return {
        "services": list(args.services),
        "no_deps": getattr(args, "no_deps", False),
        "force_recreate": args.force_recreate,
        "always_recreate_deps": getattr(args, "always_recreate_deps", False),
        "no_recreate": args.no_recreate,
        "scale": scales(args.scale, project),
        "remove_orphans": args.remove_orphans or environ.get("COMPOSE_REMOVE_ORPHANS", "").lower() in TRUTHY,
        "ignore_orphans": environ.get("COMPOSE_IGNORE_ORPHANS", "").lower() in TRUTHY,
        "renew_anon_volumes": getattr(args, "renew_anon_volumes", False),
        "start": not getattr(args, "no_start", False),
        "recreate_volumes": args.yes,
        "wait": getattr(args, "wait", False),
        "timeout": timeout_of(args),
    }


def show_plan(context: Context, project: Project, options: dict[str, Any], args: Namespace) -> int:
    """``--dry-run``: the plan, with its causes; nothing is touched."""
    plan = context.call(
        "plan", {"project": project_data(project), "options": options, "images": image_options(args)}
    )
    return dryrun.show(context, plan)


def check_converge(context: Context, args: Namespace) -> None:
    """Combinations of the options of ``add_converge`` that docker compose refuses too."""
    ignore = context.truth("COMPOSE_IGNORE_ORPHANS")
    _refuse(
        [
            (args.build and args.no_build, "--build and --no-build are incompatible"),
            (args.force_recreate and args.no_recreate, "--force-recreate and --no-recreate are incompatible"),
            (ignore and args.remove_orphans, "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans"),
        ]
    )


def check(context: Context, args: Namespace) -> None:
    """Combinations that docker compose refuses too."""
    if args.exit_code_from:
        args.abort_on_container_exit = True
    check_converge(context, args)
    _refuse(
        [
            (
                args.abort_on_container_exit and args.abort_on_container_failure,
                "cannot combine --abort-on-container-exit and --abort-on-container-failure",
            ),
            (
                args.renew_anon_volumes and args.no_recreate,
                "--no-recreate and --renew-anon-volumes are incompatible",
            ),
            (
                args.always_recreate_deps and args.no_recreate,
                "--always-recreate-deps and --no-recreate are incompatible",
            ),
            (
                bool(args.attach) and args.attach_dependencies,
                "cannot combine --attach and --attach-dependencies",
            ),
            (args.no_build and args.watch, "--no-build and --watch are incompatible"),
        ]
    )
    if args.detach or args.wait:
        attached = [
            (args.abort_on_container_exit, "--abort-on-container-exit"),
            (args.abort_on_container_failure, "--abort-on-container-failure"),
            (bool(args.attach), "--attach"),
            (args.attach_dependencies, "--attach-dependencies"),
            (args.watch, "--watch"),
            (bool(args.menu), "--menu"),
        ]
        _refuse([(given, f"--detach and --wait cannot be combined with {name}") for given, name in attached])
    if args.wait_timeout and not args.wait:
        context.warn("--wait-timeout has no effect without --wait")


def _refuse(together: list[tuple[bool, str]]) -> None:
    for wrong, message in together:
        if wrong:
            raise UsageError(message)
