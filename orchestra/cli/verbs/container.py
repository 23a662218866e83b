"""``container …``: single containers, with docker's verbs and options."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from orchestra.cli.render import words
from orchestra.errors import NotFoundError, OrchestraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestra.cli.context import Context


def _refs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("refs", nargs="+", metavar="CONTAINER")


def each(context: Context, refs: list[str], work: Callable[[str], Any], *, show: bool = True) -> int:
    """Do something to every container named; all are tried, 1 when one failed."""
    code = 0
    for ref in refs:
        try:
            work(ref)
        except OrchestraError as error:
            context.report(error)
            code = 1
            continue
        if show:
            print(ref, file=context.stdout)
    return code


def _do(context: Context, verb: str, ref: str, **more: Any) -> Any:
    return context.client.call("container_do", {"verb": verb, "ref": ref, **more})


# ls


def add_ls(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="stopped containers too")
    add("-q", "--quiet", action="store_true", help="only ids")
    add(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="status, name, id, label, ancestor, network, volume, health",
    )
    add("-n", "--last", type=int, default=-1, help="the last N created")
    add("-l", "--latest", action="store_true", help="the last one created")
    add("-s", "--size", action="store_true", help="how much each has written")
    add("--format", default="", help="table, json or a template")
    add("--no-trunc", action="store_true")


def run_ls(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show

    found = sorted(context.client.call("containers", {"size": args.size}), key=lambda c: -float(c["created"]))
    last = 1 if args.latest else args.last
    stateful = any(word.startswith(("status=", "health=")) for word in args.filter)
    if not args.all and not stateful and last < 0:
        found = [c for c in found if c["state"] in ("running", "paused", "restarting")]
    found = [c for c in found if all(matches(c, word) for word in args.filter)]
    if last >= 0:
        found = found[:last]
    if args.quiet:
        for info in found:
            print(info["id"] if args.no_trunc else info["id"][:12], file=context.stdout)
        return 0
    rows = [row(info, full=args.no_trunc) for info in found]
    if not show(context, args.format, rows, {"ID": "CONTAINER ID", "RunningFor": "CREATED"}):
        keys = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
        titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
        if args.size:
            keys.append("Size")
            titles.append("SIZE")
        context.table(titles, [[str(r[key]) for key in keys] for r in rows])
    return 0


def row(info: dict[str, Any], *, full: bool = False) -> dict[str, Any]:
    now = time.time()
    return {
        "ID": info["id"] if full else info["id"][:12],
        "Image": info["image"],
        "Command": words.command(info, full=full),
        "CreatedAt": words.local_stamp(info["created"]),
        "RunningFor": f"{words.ago(max(0.0, now - info['created']))} ago",
        "Status": words.status(info, now),
        "State": info["state"],
        "Ports": words.ports(info),
        "Names": info["name"],
        "Labels": ",".join(f"{key}={value}" for key, value in info["labels"].items()),
        "Networks": ",".join(info["networks"]),
        "Mounts": ",".join(m.get("Name") or m.get("Source", "") for m in info["mounts"]),
        "Size": (
            f"{words.size(info['size_rw'])} (virtual {words.size(info['size_root'])})"
            if "size_rw" in info
            else "0B"
        ),
        "LocalVolumes": str(sum(1 for m in info["mounts"] if m.get("Type") == "volume")),
    }


def matches(info: dict[str, Any], word: str) -> bool:
    """Whether a container passes one ``--filter``. Raises UsageError for an unknown key."""
    import re

    key, _, value = word.partition("=")
    if key == "label":
        name, sep, wanted = value.partition("=")
        return name in info["labels"] and (not sep or info["labels"][name] == wanted)
    tests: dict[str, Callable[[], bool]] = {
        "status": lambda: info["state"] == value,
        "name": lambda: re.search(value, info["name"]) is not None,
        "id": lambda: info["id"].startswith(value),
        "health": lambda: (info["health"] or "none") == value,
        "ancestor": lambda: (
            value in (info["image"], info["image_id"]) or words.split_image(info["image"])[0] == value
        ),
        "network": lambda: value in info["networks"],
        "exited": lambda: info["state"] == "exited" and str(info["exit_code"]) == value,
        "volume": lambda: any(value in (m.get("Name"), m.get("Destination")) for m in info["mounts"]),
    }
    if key not in tests:
        raise UsageError(f"invalid filter {key!r}", hint=f"there are: label, {', '.join(sorted(tests))}")
    return tests[key]()


# inspect


def add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="", help="a template")
    parser.add_argument("-s", "--size", action="store_true", help="how much each has written, too")
    _refs(parser)


def run_inspect(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import render

    found, code = [], 0
    sizes = {c["id"]: c for c in context.client.call("containers", {"size": True})} if args.size else {}
    for ref in args.refs:
        try:
            item = context.client.call("inspect", {"ref": ref})
            if args.size:
                size = sizes.get(item["Id"], {})
                item |= {"SizeRw": size.get("size_rw", 0), "SizeRootFs": size.get("size_root", 0)}
            found.append(item)
        except NotFoundError as error:
            context.report(error)
            code = 1
        except OrchestraError as error:
            context.report(error)
            code = 1
    if args.format and args.format != "json":
        for item in found:
            print(render(args.format, item), file=context.stdout)
    else:
        print(json.dumps(found, indent=4, default=str), file=context.stdout)
    return code


# logs, exec, attach, cp, commit, export, diff


def add_logs(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.logs import add_log_options

    add_log_options(parser)
    parser.add_argument("--details", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("ref", metavar="CONTAINER")


def run_logs(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.logs import printer
    from orchestra.cli.verbs.logs import log_args

    args.no_log_prefix = True
    if args.details:
        context.warn("--details has no effect: log drivers add nothing to lines")
    show = printer(context, args)
    for kind, payload in context.client.stream("logs", {"refs": [args.ref], **log_args(args)}):
        if kind == "data":
            for stamp, stream, text, partial in payload["lines"]:
                show.line("", stamp, stream, text, partial)
            show.check()
    show.flush()
    return 0


def add_exec(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.exec import add_exec_options

    add_exec_options(parser)
    parser.add_argument("-i", "--interactive", action="store_true", help="pass standard input")
    parser.add_argument("-t", "--tty", action="store_true", help="with a terminal")
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE")
    parser.add_argument("--detach-keys", default="", help="not supported: a command ends with its terminal")
    parser.add_argument("ref", metavar="CONTAINER")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def run_exec(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli import terminal
    from orchestra.cli.execution import run_exec as execute
    from orchestra.cli.shortforms import environment_file
    from orchestra.cli.verbs.exec import spec_of

    if args.detach_keys:
        raise UsageError("exec --detach-keys is not supported", hint="exec -d runs in the background")
    if args.tty and args.interactive and not terminal.interactive():
        raise UsageError("the input device is not a terminal", hint="leave -t away in a pipe")
    spec = spec_of(context, args, tty=args.tty and not args.detach)
    for name in args.env_file:
        spec["environment"] = {**environment_file(context, name), **spec["environment"]}
    return execute(context, args.ref, spec, detach=args.detach, stdin=args.interactive)


def add_attach(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.attach import add_attach_options

    add_attach_options(parser)
    parser.add_argument("ref", metavar="CONTAINER")


def run_attach(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.attach import attach_to

    return attach_to(context, args, args.ref)


def add_cp(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.cp import add_cp_options

    add_cp_options(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("source")
    parser.add_argument("target")


def run_cp(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.copy import copy_from, copy_to
    from orchestra.cli.verbs.cp import split_ref

    ref, path = split_ref(args.source)
    other, target = split_ref(args.target)
    if bool(ref) == bool(other):
        raise UsageError(
            "copying between containers is not supported" if ref else "one side must be CONTAINER:PATH"
        )
    if ref:
        copy_from(context, ref, path, target, follow=args.follow_link, archive=args.archive)
    else:
        context.client.call("container", {"ref": other})
        copy_to(context, args.source, other, target, follow=args.follow_link, archive=args.archive)
    return 0


def add_commit(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.commit import add_commit_options

    add_commit_options(parser)
    parser.add_argument("ref", metavar="CONTAINER")
    parser.add_argument("image", nargs="?", default="", metavar="REPOSITORY[:TAG]")


def run_commit(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.commit import commit_to

    return commit_to(context, args, args.ref)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="")
    parser.add_argument("ref", metavar="CONTAINER")


def run_export(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.export import export_to

    export_to(context, args.ref, args.output)
    return 0


def add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="CONTAINER")


def run_diff(context: Context, args: argparse.Namespace) -> int:
    for kind, path in context.client.call("changes", {"ref": args.ref}):
        print(f"{kind} {path}", file=context.stdout)
    return 0


# life


def add_start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--attach", action="store_true", help="show output and pass signals on")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass standard input")
    parser.add_argument("--detach-keys", default="")
    _refs(parser)


def run_start(context: Context, args: argparse.Namespace) -> int:
    if args.attach or args.interactive:
        from orchestra.cli.execution import attach

        if len(args.refs) > 1:
            raise UsageError("you cannot start and attach multiple containers at once")
        tty = bool(context.client.call("inspect", {"ref": args.refs[0]})["Config"].get("Tty"))
        code = attach(
            context, args.refs[0], start=True, stdin=args.interactive, tty=tty, keys=args.detach_keys
        )
        return 0 if code is None else code

    def start(ref: str) -> None:
        for text in _do(context, "start", ref) or ():
            context.warn(f"{ref}: {text}")

    return each(context, args.refs, start)


def _add_timed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--timeout", "--time", type=float, default=None, metavar="SECONDS")
    parser.add_argument("-s", "--signal", default="")
    _refs(parser)


add_stop = add_restart = _add_timed


def run_stop(context: Context, args: argparse.Namespace) -> int:
    return each(
        context, args.refs, lambda ref: _do(context, "stop", ref, timeout=args.timeout, signal=args.signal)
    )


def run_restart(context: Context, args: argparse.Namespace) -> int:
    def restart(ref: str) -> None:
        if not args.signal:
            _do(context, "restart", ref, timeout=args.timeout)
            return
        _do(context, "stop", ref, timeout=args.timeout, signal=args.signal)
        _do(context, "start", ref)

    return each(context, args.refs, restart)


def add_kill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--signal", default="SIGKILL")
    _refs(parser)


def run_kill(context: Context, args: argparse.Namespace) -> int:
    return each(context, args.refs, lambda ref: _do(context, "kill", ref, signal=args.signal))


def add_rm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="running ones too")
    parser.add_argument("-v", "--volumes", action="store_true", help="anonymous volumes too")
    parser.add_argument("-l", "--link", action="store_true", help=argparse.SUPPRESS)
    _refs(parser)


def run_rm(context: Context, args: argparse.Namespace) -> int:
    if args.link:
        raise UsageError("rm --link is not supported", hint="a link goes with its container")

    def remove(ref: str) -> None:
        try:
            _do(context, "remove", ref, force=args.force, volumes=args.volumes)
        except OrchestraError as error:
            if args.force and "no such container" in error.brief.lower():
                return
            raise

    return each(context, args.refs, remove)


add_pause = add_unpause = _refs


def run_pause(context: Context, args: argparse.Namespace) -> int:
    return each(context, args.refs, lambda ref: _do(context, "pause", ref))


def run_unpause(context: Context, args: argparse.Namespace) -> int:
    return each(context, args.refs, lambda ref: _do(context, "unpause", ref))


def add_rename(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="CONTAINER")
    parser.add_argument("name", metavar="NEW_NAME")


def run_rename(context: Context, args: argparse.Namespace) -> int:
    _do(context, "rename", args.ref, name=args.name)
    return 0


add_wait = _refs


def run_wait(context: Context, args: argparse.Namespace) -> int:
    return each(
        context,
        args.refs,
        lambda ref: print(context.client.call("wait", {"ref": ref}), file=context.stdout),
        show=False,
    )


def add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="ask nothing")
    parser.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE", help="until, label, label!"
    )


def pruned(info: dict[str, Any], word: str) -> bool:
    """Whether a container passes a filter of ``prune``. Raises UsageError."""
    key, _, value = word.partition("=")
    if key == "until":
        return float(info["created"]) <= words.moment(value)
    if key in ("label", "label!"):
        return matches(info, f"label={value}") == (key == "label")
    raise UsageError(f"invalid filter {key!r}", hint="until, label and label! are there")


def run_prune(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.system import confirm

    confirm(context, "This will remove all stopped containers.", force=args.force)
    removed = [
        c
        for c in context.client.call("containers")
        if c["state"] in ("created", "exited", "dead") and all(pruned(c, word) for word in args.filter)
    ]
    for info in removed:
        _do(context, "remove", info["id"])
    if removed:
        print("Deleted Containers:", file=context.stdout)
    for info in removed:
        print(info["id"], file=context.stdout)
    return 0


# figures


def add_stats(parser: argparse.ArgumentParser) -> None:
    from orchestra.cli.verbs.stats import add_stats_options

    add_stats_options(parser)
    parser.add_argument("refs", nargs="*", metavar="CONTAINER")


def run_stats(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.stats import show

    if args.refs:
        found = [context.client.call("container", {"ref": ref}) for ref in args.refs]
    else:
        found = context.client.call("containers")
    return show(context, args, found)


def add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="CONTAINER")


def run_top(context: Context, args: argparse.Namespace) -> int:
    table = context.client.call("top", {"ref": args.ref})
    context.table(table["titles"], table["rows"])
    return 0


def add_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ref", metavar="CONTAINER")
    parser.add_argument("port", nargs="?", default="", metavar="PORT[/PROTOCOL]")


def run_port(context: Context, args: argparse.Namespace) -> int:
    info = context.client.call("container", {"ref": args.ref})
    number, _, protocol = args.port.partition("/")
    shown = 0
    for url, target, published, kind in info["publishers"]:
        if not published or (number and (str(target) != number or kind != (protocol or "tcp"))):
            continue
        host = f"[{url}]" if ":" in url else url or "0.0.0.0"
        head = "" if number else f"{target}/{kind} -> "
        print(f"{head}{host}:{published}", file=context.stdout)
        shown += 1
    if number and not shown:
        raise NotFoundError(f"no public port {args.port} published for {args.ref}")
    return 0


def add_update(parser: argparse.ArgumentParser) -> None:
    for name in (
        "--cpu-period",
        "--cpu-quota",
        "--cpuset-cpus",
        "--cpus",
        "--memory-reservation",
        "--memory-swap",
        "--pids-limit",
        "--restart",
        "--blkio-weight",
        "--cpu-rt-period",
        "--cpu-rt-runtime",
    ):
        parser.add_argument(name, default="")
    parser.add_argument("-c", "--cpu-shares", default="")
    parser.add_argument("-m", "--memory", default="")
    _refs(parser)


def run_update(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs import container_run

    for name in ("shm_size", "memory_swappiness", "oom_score_adj"):
        setattr(args, name, "")
    for name in (
        "device_read_bps",
        "device_write_bps",
        "device_read_iops",
        "device_write_iops",
        "blkio_weight_device",
    ):
        setattr(args, name, [])
    resources = container_run.limits(args)
    if args.restart:
        args.rm = False
        resources["restart"] = container_run.restart(args)

    def update(ref: str) -> None:
        for warning in _do(context, "update", ref, resources=resources) or ():
            context.warn(warning)

    return each(context, args.refs, update)
