"""``container run`` and ``container create``: a container without a compose file, with docker's options."""

from __future__ import annotations

import argparse
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestra.cli import terminal
from orchestra.cli.shortforms import byte_size, environment_file, mount, mount_option, port
from orchestra.cli.verbs.exec import environment
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context

LEFT = (
    "brave",
    "calm",
    "eager",
    "fair",
    "gentle",
    "keen",
    "lucid",
    "merry",
    "noble",
    "quick",
    "sunny",
    "tidy",
    "vivid",
    "wise",
)
RIGHT = (
    "bach",
    "berlioz",
    "clara",
    "dvorak",
    "elgar",
    "faure",
    "grieg",
    "haydn",
    "ives",
    "liszt",
    "mahler",
    "ravel",
    "satie",
    "verdi",
)


NAME = "[a-zA-Z0-9][a-zA-Z0-9_.-]+"
LISTS = {
    "--add-host": "HOST:IP",
    "--annotation": "KEY=VALUE",
    "--blkio-weight-device": "PATH:WEIGHT",
    "--cap-add": "CAP",
    "--cap-drop": "CAP",
    "--device": "PATH",
    "--dns": "IP",
    "--dns-search": "DOMAIN",
    "--env-file": "FILE",
    "--expose": "PORT",
    "--group-add": "GROUP",
    "--label-file": "FILE",
    "--link": "CONTAINER:ALIAS",
    "--link-local-ip": "IP",
    "--log-opt": "KEY=VALUE",
    "--mount": "SPEC",
    "--security-opt": "OPTION",
    "--storage-opt": "OPTION",
    "--sysctl": "KEY=VALUE",
    "--tmpfs": "PATH",
    "--ulimit": "NAME=N",
    "--volumes-from": "CONTAINER",
    "--device-cgroup-rule": "RULE",
    "--device-read-bps": "PATH:RATE",
    "--device-write-bps": "PATH:RATE",
    "--device-read-iops": "PATH:RATE",
    "--device-write-iops": "PATH:RATE",
}
TEXTS: dict[str, str | None] = {
    "--cgroup-parent": "",
    "--cgroupns": "",
    "--cidfile": "",
    "--cpu-period": "",
    "--cpu-quota": "",
    "--cpu-rt-period": "",
    "--cpu-rt-runtime": "",
    "--cpuset-cpus": "",
    "--cpuset-mems": "",
    "--cpus": "",
    "--domainname": "",
    "--gpus": "",
    "--entrypoint": None,
    "--health-cmd": "",
    "--health-interval": "",
    "--health-retries": "",
    "--health-start-interval": "",
    "--health-start-period": "",
    "--health-timeout": "",
    "--ip": "",
    "--ip6": "",
    "--ipc": "",
    "--isolation": "",
    "--kernel-memory": "",
    "--log-driver": "",
    "--mac-address": "",
    "--memory-reservation": "",
    "--memory-swap": "",
    "--memory-swappiness": "",
    "--name": "",
    "--oom-score-adj": "",
    "--pid": "",
    "--pids-limit": "",
    "--platform": "",
    "--restart": "",
    "--runtime": "",
    "--shm-size": "",
    "--stop-signal": "",
    "--stop-timeout": "",
    "--userns": "",
    "--uts": "",
    "--volume-driver": "",
    "--blkio-weight": "",
}
FLAGS = (
    "--init",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--privileged",
    "--read-only",
    "--rm",
    "--use-api-socket",
)
UNSUPPORTED = {
    "kernel_memory": "Linux has no such limit any more",
    "isolation": "it is for Windows",
    "use_api_socket": "there is no Docker API",
}  # refused by name


def _add_common(parser: argparse.ArgumentParser) -> None:
    for name, meta in LISTS.items():
        parser.add_argument(name, action="append", default=[], metavar=meta)
    for name, default in TEXTS.items():
        parser.add_argument(name, default=default)
    for name in FLAGS:
        parser.add_argument(name, action="store_true")
    add = parser.add_argument
    add("--dns-opt", "--dns-option", dest="dns_option", action="append", default=[], metavar="OPTION")
    add(
        "--net-alias",
        "--network-alias",
        dest="network_alias",
        action="append",
        default=[],
        metavar="NAME",
    )
    add("--disable-content-trust", action="store_true", default=True, help=argparse.SUPPRESS)
    add("-a", "--attach", action="append", default=[], metavar="STREAM")
    add("-c", "--cpu-shares", default="")
    add("-e", "--env", action="append", default=[], metavar="KEY=VALUE")
    add("-h", "--hostname", default="")
    add("-i", "--interactive", action="store_true", help="keep standard input open")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE")
    add("-m", "--memory", default="")
    add("--net", "--network", dest="network", action="append", default=[], metavar="NETWORK")
    add("-p", "--publish", action="append", default=[], metavar="PORT")
    add("-P", "--publish-all", action="store_true", help="publish every exposed port on a free one")
    add("-q", "--quiet", action="store_true", help="pull without progress")
    add("-t", "--tty", action="store_true", help="with a terminal")
    add("-u", "--user", default="")
    add("-v", "--volume", action="append", default=[], metavar="SOURCE:TARGET")
    add("-w", "--workdir", default="")
    add("--pull", choices=["always", "missing", "never"], default="missing")
    add("image", metavar="IMAGE")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def add_create(parser: argparse.ArgumentParser) -> None:
    _drop_help(parser)
    _add_common(parser)


def add_run(parser: argparse.ArgumentParser) -> None:
    _drop_help(parser)
    parser.add_argument("-d", "--detach", action="store_true", help="run in the background and print the id")
    parser.add_argument("--detach-keys", default="")
    parser.add_argument(
        "--sig-proxy", action="store_true", default=True, help="pass signals on (--sig-proxy=false: do not)"
    )
    _add_common(parser)


def _drop_help(parser: argparse.ArgumentParser) -> None:
    """``-h`` is the host name here, as docker has it."""
    parser._handle_conflict_resolve(None, [("-h", parser._option_string_actions["-h"])])  # type: ignore[arg-type]


def run_create(context: Context, args: argparse.Namespace) -> int:
    print(_create(context, args)["id"], file=context.stdout)
    return 0


def run_run(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.execution import attach, warn_new

    tty = args.tty
    try:
        if args.detach and args.attach:
            raise UsageError("conflicting options: -a and -d")
        if tty and args.interactive and not args.detach and not terminal.interactive():
            raise UsageError("the input device is not a terminal", hint="leave -t away in a pipe")
        streams = attached(args)
        info = _create(context, args)
    except OrchestraError as error:
        error.exit_code = 125  # as docker run: the command itself never began
        raise
    if args.detach:
        more = _or_discard(
            context,
            info,
            lambda: context.client.call("container_do", {"verb": "start", "ref": info["id"]}),
            remove=args.rm,
        )
        warn_new(context, more or (), info["warnings"])
        print(info["id"], file=context.stdout)
        return 0
    code = _or_discard(
        context,
        info,
        lambda: attach(
            context,
            info["id"],
            start=True,
            stdin=args.interactive and "stdin" in streams,
            tty=tty,
            keys=args.detach_keys,
            forward=args.sig_proxy,
            streams=streams,
            until="removed" if args.rm else "",
            told=info["warnings"],
        ),
        remove=args.rm,
    )
    return 0 if code is None else int(code)


def attached(args: argparse.Namespace) -> frozenset[str]:
    """The streams of ``-a``; without it the outputs, and the input with ``-i``."""
    found = frozenset(word.lower() for word in args.attach)
    for word in found - {"stdin", "stdout", "stderr"}:
        raise UsageError(f"invalid stream {word!r} for --attach", hint="stdin, stdout or stderr")
    return found or frozenset({"stdin", "stdout", "stderr"} if args.interactive else {"stdout", "stderr"})


def _or_discard(context: Context, info: dict[str, Any], work: Any, *, remove: bool = False) -> Any:
    """A failed start: with docker's exit codes (127 not found, 126 not executable, 125 else). ``remove``:
    what was made for it goes."""
    try:
        return work()
    except OrchestraError as error:
        try:
            found = context.client.call("container", {"ref": info["id"]})
            error.exit_code = found["exit_code"] if found["exit_code"] in (126, 127) else 125
            if remove:
                _discard(context, info["id"])
        except OrchestraError:
            error.exit_code = error.exit_code if error.exit_code in (126, 127) else 125
        raise


def _discard(context: Context, ref: str) -> None:
    context.client.call("container_do", {"verb": "remove", "ref": ref, "force": True, "volumes": True})


def _create(context: Context, args: argparse.Namespace) -> dict[str, Any]:
    if args.cidfile:
        import os

        if os.path.exists(args.cidfile):
            raise OrchestraError(
                f"container ID file found: {args.cidfile}", hint="remove it, or choose another"
            )
    if args.quiet:
        context.options.progress = "quiet"
    info: dict[str, Any] = context.call("container_create", {"spec": spec(context, args), "pull": args.pull})
    for warning in info["warnings"]:
        context.warn(warning)
    if args.cidfile:
        with open(args.cidfile, "w") as stream:
            stream.write(info["id"])
    return info


def spec(context: Context, args: argparse.Namespace) -> dict[str, Any]:
    """The options as a ContainerSpec in data form. Raises UsageError."""
    for option, why in UNSUPPORTED.items():
        if getattr(args, option) not in ("", "default", False):
            raise UsageError(f"--{option.replace('_', '-')} is not supported: {why}")
    if args.volume_driver not in ("", "local"):
        raise UsageError(f"--volume-driver {args.volume_driver} is not supported", hint="local is there")
    labels = {}
    for name in args.label_file:
        labels.update(label_file(context, name))
    labels.update(dict(word.partition("=")[::2] for word in args.label))
    modes = [name for name in args.network if name in ("none", "host") or name.startswith("container:")]
    if modes and len(args.network) > 1:
        raise UsageError(f"network {modes[0]} cannot be combined with others")
    if modes:
        for option in ("network_alias", "ip", "ip6", "mac_address", "link", "link_local_ip"):
            if getattr(args, option):
                flag = option.replace("_", "-")
                raise UsageError(f"conflicting options: --{flag} and the network {modes[0]}")
    if args.name and not re.fullmatch(NAME, args.name):
        raise UsageError(f"invalid container name {args.name!r}", hint=f"only {NAME} is allowed")
    name = args.name or f"{secrets.choice(LEFT)}_{secrets.choice(RIGHT)}{secrets.randbelow(1000)}"
    mounts = [mount(context, word) for word in args.volume] + [
        mount_option(context, word) for word in args.mount
    ]
    return {
        "name": name,
        "service": service(context, args),
        "image_id": "",
        "image_name": args.image,
        "labels": labels,
        "project": "",
        "networks": [] if modes else networks(args),
        "mounts": mounts,
        "auto_remove": args.rm,
        "volumes_from": [[*entry.split(":"), "rw"][:2] for entry in args.volumes_from],
        "namespaces": {
            key: value
            for key, value in {
                "network": modes[0] if modes else "",
                "pid": args.pid,
                "ipc": args.ipc,
                "uts": args.uts,
                "userns": args.userns,
                "cgroup": args.cgroupns,
            }.items()
            if value and (key == "userns" or value not in ("private", "shareable"))
        },
        "restart": restart(args),
    }


def restart(args: argparse.Namespace) -> dict[str, Any]:
    name, _, count = (args.restart or "no").partition(":")
    if name not in ("no", "always", "on-failure", "unless-stopped") or (
        count and (not count.isdigit() or name != "on-failure")
    ):
        raise UsageError(
            f"invalid restart policy {args.restart!r}", hint="no, always, unless-stopped or on-failure[:N]"
        )
    if args.rm and name != "no":
        raise UsageError("conflicting options: --restart and --rm")
    return {"name": name, "maximum": int(count or 0)}


def networks(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The networks to attach to; ``bridge`` when none is named."""
    found = []
    for index, word in enumerate(args.network or ["bridge"]):
        values = network_option(word)
        first = index == 0
        attachment: dict[str, Any] = {
            "aliases": values["alias"] + (args.network_alias if first else []),
            "ipv4_address": values["ip"] or (args.ip if first else ""),
            "ipv6_address": values["ip6"] or (args.ip6 if first else ""),
            "mac_address": values["mac-address"] or (args.mac_address if first else ""),
            "link_local_ips": values["link-local-ip"] + (args.link_local_ip if first else []),
            "driver_opts": dict(entry.partition("=")[::2] for entry in values["driver-opt"]),
            "gw_priority": int(values["gw-priority"] or 0),
        }
        links = {}
        for link in args.link:
            target, _, alias = link.partition(":")
            links[alias or target] = target
        name = {"default": "bridge"}.get(values["name"], values["name"])
        found.append(
            {"network": name, "attachment": attachment, "aliases": attachment["aliases"], "links": links}
        )
    return found


def network_option(word: str) -> dict[str, Any]:
    """``NAME`` or ``name=NAME,alias=…,ip=…``. Raises UsageError."""
    found: dict[str, Any] = {
        "name": "", "alias": [], "driver-opt": [], "link-local-ip": [], "ip": "", "ip6": "", "mac-address": "",
        "gw-priority": "",
    }  # fmt: skip
    if "=" not in word:
        return {**found, "name": word}
    for part in word.split(","):
        key, _, value = part.partition("=")
        if key not in found:
            raise UsageError(
                f"invalid --network {word!r}: unknown key {key!r}", hint=f"known: {', '.join(found)}"
            )
        found[key] = [*found[key], value] if isinstance(found[key], list) else value
    if not found["name"]:
        raise UsageError(f"invalid --network {word!r}: it has no name")
    if found["gw-priority"] and not found["gw-priority"].lstrip("-").isdigit():
        raise UsageError(f"invalid --network {word!r}: gw-priority is not a number")
    return found


def label_file(context: Context, name: str) -> dict[str, str]:
    """KEY[=VALUE] a line; a key alone is an empty label."""
    import os

    place = os.path.join(context.cwd, name)
    try:
        with open(place, encoding="utf-8") as stream:
            lines = [line.strip() for line in stream]
    except (OSError, UnicodeDecodeError) as error:
        raise OrchestraError(
            f"label file {name}: {getattr(error, 'strerror', None) or 'no UTF-8 text'}"
        ) from None
    return dict(line.partition("=")[::2] for line in lines if line and not line.startswith("#"))


def number(option: str, text: str, kind: Callable[[str], Any] = int) -> Any:
    """The value of a numeric option. Raises UsageError."""
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"invalid --{option} {text!r}: not a number") from None


def service(context: Context, args: argparse.Namespace) -> dict[str, Any]:
    """The settings as a Service in data form."""
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    values: dict[str, Any] = {
        "name": "",
        "image": args.image,
        "platform": args.platform,
        "environment": variables(context, args),
        "user": args.user,
        "working_dir": args.workdir,
        "hostname": args.hostname,
        "domainname": args.domainname,
        "tty": args.tty,
        "stdin_open": args.interactive,
        "cap_add": args.cap_add,
        "cap_drop": args.cap_drop,
        "privileged": args.privileged,
        "read_only": args.read_only,
        "security_opt": args.security_opt,
        "group_add": args.group_add,
        "tmpfs": args.tmpfs,
        "dns": args.dns,
        "dns_opt": args.dns_option,
        "dns_search": args.dns_search,
        "extra_hosts": [word.replace(":", "=", 1) if "=" not in word else word for word in args.add_host],
        "ports": [item for word in args.publish for item in port(word)],
        "expose": args.expose,
        "device_cgroup_rules": args.device_cgroup_rule,
        "devices": [device(word) for word in args.device],
        "sysctls": pairs(args.sysctl),
        "storage_opt": pairs(args.storage_opt),
        "annotations": pairs(args.annotation),
        "ulimits": dict(map(ulimit, args.ulimit)),
        "init": args.init or None,
        "stop_signal": args.stop_signal,
        "stop_grace_period": number("stop-timeout", args.stop_timeout, float) if args.stop_timeout else None,
        "cgroup_parent": args.cgroup_parent,
        "runtime": args.runtime,
        "oom_kill_disable": args.oom_kill_disable,
        "extensions": {
            **({"x-publish-all": True} if args.publish_all else {}),
            **({"x-cpuset-mems": args.cpuset_mems} if args.cpuset_mems else {}),
        },
    }
    if command:
        values["command"] = command
    if args.entrypoint is not None:
        values["entrypoint"] = [args.entrypoint] if args.entrypoint else []
        values.setdefault("command", [])
    if args.log_driver or args.log_opt:
        values["logging"] = {"driver": args.log_driver, "options": pairs(args.log_opt)}
    if args.gpus:
        values["gpus"] = [gpus(args.gpus)]
    values |= limits(args)
    check = health(args)
    if check:
        values["healthcheck"] = check
    return values


def variables(context: Context, args: argparse.Namespace) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in args.env_file:
        found.update(environment_file(context, name))
    found.update(environment(context, args.env))
    return found


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """Resource limits that were given. Raises UsageError."""
    found: dict[str, Any] = {}
    sizes = {
        "memory": "mem_limit",
        "memory_reservation": "mem_reservation",
        "memory_swap": "memswap_limit",
        "shm_size": "shm_size",
    }
    numbers = {
        "cpu_period": "cpu_period",
        "cpu_quota": "cpu_quota",
        "cpu_rt_period": "cpu_rt_period",
        "cpu_rt_runtime": "cpu_rt_runtime",
        "cpu_shares": "cpu_shares",
        "memory_swappiness": "mem_swappiness",
        "oom_score_adj": "oom_score_adj",
        "pids_limit": "pids_limit",
    }
    for option, name in sizes.items():
        if getattr(args, option):
            text = getattr(args, option)
            found[name] = -1 if option == "memory_swap" and text == "-1" else byte_size(text)
    for option, name in numbers.items():
        text = getattr(args, option)
        if text:
            try:
                found[name] = int(text)
            except ValueError:
                raise UsageError(f"invalid --{option.replace('_', '-')} {text!r}: not a number") from None
    if args.cpus:
        try:
            found["cpus"] = float(args.cpus)
        except ValueError:
            raise UsageError(f"invalid --cpus {args.cpus!r}: not a number") from None
    if args.cpuset_cpus:
        found["cpuset"] = args.cpuset_cpus
    rates: dict[str, Callable[[str], int]] = {
        "device_read_bps": byte_size,
        "device_write_bps": byte_size,
        "device_read_iops": lambda text: int(number("device-read-iops", text)),
        "device_write_iops": lambda text: int(number("device-write-iops", text)),
        "blkio_weight_device": lambda text: int(number("blkio-weight-device", text)),
    }
    blkio: dict[str, Any] = {"weight": number("blkio-weight", args.blkio_weight)} if args.blkio_weight else {}
    for option, convert in rates.items():
        entries = [
            {"path": path, "rate": convert(rate)}
            for path, _, rate in (w.rpartition(":") for w in getattr(args, option))
        ]
        if entries:
            blkio["weight_device" if option == "blkio_weight_device" else option] = entries
    if blkio:
        found["blkio_config"] = blkio
    return found


def health(args: argparse.Namespace) -> dict[str, Any]:
    from orchestra.cli.render.words import duration

    given = [name for name in vars(args) if name.startswith("health_") and getattr(args, name)]
    if args.no_healthcheck and given:
        raise UsageError(f"conflicting options: --no-healthcheck and --{given[0].replace('_', '-')}")
    if args.no_healthcheck:
        return {"test": ["NONE"], "disable": True}
    found: dict[str, Any] = {"test": ["CMD-SHELL", args.health_cmd]} if args.health_cmd else {}
    for option in ("interval", "timeout", "start_period", "start_interval"):
        text = getattr(args, f"health_{option}")
        if text:
            found[option] = duration(text)
    if args.health_retries:
        found["retries"] = number("health-retries", args.health_retries)
    return found


def pairs(words: list[str]) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def gpus(word: str) -> dict[str, Any]:
    """``all``, a number, or ``device=ID,…`` (``count=N``, ``driver=NAME``). Raises UsageError."""
    found: dict[str, Any] = {"count": -1, "capabilities": ["gpu"]}
    if word == "all":
        return found
    if word.isdigit():
        return {**found, "count": int(word)}
    key, _, value = word.strip("\"'").partition("=")
    if key == "device" and value:
        return {"device_ids": value.split(","), "capabilities": ["gpu"]}
    raise UsageError(f"invalid --gpus {word!r}", hint="write all, a number or device=ID,…")


def device(word: str) -> dict[str, str]:
    """``HOST[:CONTAINER[:PERMISSIONS]]``."""
    parts = word.split(":")
    if len(parts) == 2 and not parts[1].startswith("/"):
        parts = [parts[0], parts[0], parts[1]]
    source, target, permissions = [*parts, *["", ""]][:3]
    return {"source": source, "target": target or source, "permissions": permissions or "rwm"}


def ulimit(word: str) -> tuple[str, dict[str, Any]]:
    """``nofile=1024[:2048]``. Raises UsageError."""
    name, _, text = word.partition("=")
    soft, _, hard = text.partition(":")
    try:
        return name, {"soft": int(soft), "hard": int(hard or soft), "single": not hard}
    except ValueError:
        raise UsageError(f"invalid ulimit {word!r}", hint="write NAME=SOFT[:HARD]") from None
