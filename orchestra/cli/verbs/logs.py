"""``logs``: print or follow the output of services."""

from __future__ import annotations

import threading
from argparse import ArgumentParser, Namespace

from orchestra.cli.projects import containers
from orchestra.cli.render import words
from orchestra.errors import NotFoundError, OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.cli.render.logs import LogPrinter


def add_arguments(parser: ArgumentParser) -> None:
    add_log_options(parser)
    add = parser.add_argument
    add("--index", type=int, default=0, help="number of the replica")
    add("--no-color", action="store_true", help="monochrome")
    add("--no-log-prefix", action="store_true", help="without prefix")
    add("services", nargs="*", metavar="SERVICE")


def add_log_options(parser: ArgumentParser) -> None:
    """Those that ``container logs`` has too."""
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on with new output")
    add("-n", "--tail", default="all", metavar="N", help="lines from the end, for each container")
    add("-t", "--timestamps", action="store_true", help="show times")
    add("--since", default="", help="from this time on (RFC 3339, or 42m for relative)")
    add("--until", default="", help="up to this time")


def log_args(args: Namespace) -> dict[str, Any]:
    """The options as the daemon takes them."""
    tail = None
    if args.tail != "all":
        try:
            tail = int(args.tail)
        except ValueError:
            raise OrchestraError(f"invalid --tail {args.tail!r}", hint="give a number, or all") from None
        if tail < 0:
            tail = None
    return {
        "follow": args.follow,
        "tail": tail,
        "since": words.moment(args.since) if args.since else None,
        "until": words.moment(args.until) if args.until else None,
    }


def run(context: Context, args: Namespace) -> int:
    from orchestra.cli.render.logs import printer, short_name

    name, found = containers(context, args.services)
    if args.index:
        found = [c for c in found if c["number"] == args.index]
        if not found:
            raise NotFoundError(f"no container number {args.index}")
    show = printer(context, args)
    for info in found:
        show.register(short_name(info))
    options = log_args(args)
    if not args.follow:
        _merged(context, found, options, show)
        return 0
    _follow(context, name, args, found, options, show)
    return 0


def _merged(context: Context, found: list[dict[str, Any]], options: dict[str, Any], show: LogPrinter) -> None:
    """All containers' lines, each container's in one piece (as docker compose prints them)."""
    from orchestra.cli.render.logs import short_name

    names = {info["id"]: short_name(info) for info in found}
    if not found:
        return
    for kind, payload in context.client.stream("logs", {"refs": [c["id"] for c in found], **options}):
        if kind == "data":
            for stamp, stream, text, partial in payload["lines"]:
                show.line(names[payload["id"]], stamp, stream, text, partial)
            show.check()
    show.flush()


def _follow(
    context: Context,
    project: str,
    args: Namespace,
    found: list[dict[str, Any]],
    options: dict[str, Any],
    show: LogPrinter,
) -> None:
    """Follow what is there and what starts later, until nothing of it runs any more."""
    followers = Followers(context, show, options)
    for info in found:
        followers.follow(info)
    watcher = threading.Thread(
        target=_newcomers, args=(context, project, args.services, followers), daemon=True
    )
    watcher.start()
    followers.join()
    show.flush()


def _newcomers(context: Context, project: str, services: list[str], followers: Followers) -> None:
    for kind, event in context.client.stream("events", {"project": project}):
        if kind != "data" or event["type"] != "container" or event["action"] != "start":
            continue
        try:
            info = context.client.call("container", {"ref": event["id"]})
        except OrchestraError:
            continue
        if not info["oneoff"] and (not services or info["service"] in services):
            followers.follow(info, since=event["time"])


class Followers:
    """One thread a followed container."""

    def __init__(self, context: Context, show: LogPrinter, options: dict[str, Any]) -> None:
        self.context, self.show, self.options = context, show, options
        self.threads: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()

    def follow(self, info: dict[str, Any], *, since: float | None = None) -> None:
        """Begin to follow, unless it is being followed."""
        with self._lock:
            old = self.threads.get(info["id"])
            if old is not None and old.is_alive():
                return
            thread = threading.Thread(target=self._copy, args=(info, since), daemon=True)
            self.threads[info["id"]] = thread
            thread.start()

    def _copy(self, info: dict[str, Any], since: float | None) -> None:
        from orchestra.cli.render.logs import short_name

        name = short_name(info)
        options = {**self.options, "follow": True}
        if since is not None:
            options |= {"since": since, "tail": None}
        try:
            for kind, payload in self.context.client.stream("logs", {"refs": [info["id"]], **options}):
                if kind == "data":
                    for stamp, stream, text, partial in payload["lines"]:
                        self.show.line(name, stamp, stream, text, partial)
        except OrchestraError:
            return
        finally:
            self.show.flush(name)

    def join(self) -> None:
        """Until every follower has ended. Raises OSError when nobody reads what they write."""
        while True:
            self.show.check()
            with self._lock:
                alive = [thread for thread in self.threads.values() if thread.is_alive()]
            if not alive:
                return
            alive[0].join(0.2)
