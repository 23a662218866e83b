"""The commands of ``orchestra-runtime`` that only look: state, list, ps, events, spec, features; and update."""

from __future__ import annotations

import json
import os
import select
import sys
from argparse import Namespace
from typing import Any

from orchestra.errors import ConflictError, OrchestraError, UnsupportedError
from orchestra.runtime import cgroups as groups
from orchestra.runtime import state
from orchestra.runtime.cgroups import CgroupManager
from orchestra.runtime.lifecycle import need
from orchestra.runtime.report import warner
from orchestra.runtime.state import Record, Store


def _print(data: object) -> None:
    json.dump(data, sys.stdout, indent=2)
    sys.stdout.write("\n")


def do_state(store: Store, options: Namespace) -> int:
    _print(state.describe(store, store.load(options.id)))
    return 0


def do_list(store: Store, options: Namespace) -> int:
    records = store.all()
    if options.quiet:
        for record in records:
            print(record.id)
        return 0
    described = [state.describe(store, record) for record in records]
    if options.format == "json":
        _print(described)
        return 0
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    rows += [
        (one["id"], str(one["pid"]), one["status"], one["bundle"], one["created"], one["owner"])
        for one in described
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _group(record: Record) -> CgroupManager:
    group = state.manager(record)
    if group is None:
        raise UnsupportedError(f"container {record.id} has no cgroup")
    return group


def do_ps(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    need(store, record, "created", "running", "paused")
    pids = _group(record).pids()
    if options.format == "json":
        _print(pids)
        return 0
    import subprocess

    result = subprocess.run(
        ["ps", *(options.arguments or ["-ef"])], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise OrchestraError(f"ps failed: {result.stderr.strip()}")
    lines = result.stdout.splitlines()
    heads = lines[0].split()
    if "PID" not in heads:
        raise OrchestraError("the output of ps has no column PID", hint="let ps print the pid: -o pid,…")
    column = heads.index("PID")
    print(lines[0])
    for line in lines[1:]:
        words = line.split()
        if len(words) > column and words[column].isdigit() and int(words[column]) in pids:
            print(line)
    return 0


# Events


def do_events(store: Store, options: Namespace) -> int:
    """One line of JSON an event: statistics at intervals, OOM kills as they come; ends with the container."""
    record = store.load(options.id)
    group = _group(record)
    if options.stats:
        need(store, record, "created", "running", "paused")
        _event(record, "stats", statistics(group.stats()))
        return 0
    watch, seen = group.oom_watch(), group.oom_kills()
    poller = select.poll()
    if watch is not None:
        poller.register(*watch)
    while state.status(store, record) != "stopped":
        for fd, _mask in poller.poll(int(options.interval * 1000)):
            try:
                os.read(fd, 8)
            except OSError:
                os.lseek(fd, 0, os.SEEK_SET)
        if (now := group.oom_kills()) > seen:
            seen = now
            _event(record, "oom", None)
        elif state.status(store, record) != "stopped":
            _event(record, "stats", statistics(group.stats()))
    return 0


def _event(record: Record, kind: str, data: object) -> None:
    event = {"type": kind, "id": record.id}
    if data is not None:
        event["data"] = data  # type: ignore[assignment]
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def statistics(found: dict[str, Any]) -> dict[str, Any]:
    """Our numbers under the names that the users of this command know."""
    cpu, memory, pids, io = found["cpu"], found["memory"], found["pids"], found["io"]
    return {
        "cpu": {
            "usage": {"total": cpu["usage_ns"], "kernel": cpu["system_ns"], "user": cpu["user_ns"]},
            "throttling": {
                "periods": cpu["periods"],
                "throttledPeriods": cpu["throttled_periods"],
                "throttledTime": cpu["throttled_ns"],
            },
        },
        "memory": {
            "cache": memory["cache"],
            "usage": {
                "usage": memory["usage"],
                "limit": memory["limit"],
                "max": memory["max_usage"],
                "failcnt": memory["failures"],
            },
            "swap": {"usage": memory["swap"]},
            "raw": {"rss": memory["rss"], "working_set": memory["working_set"]},
        },
        "pids": {"current": pids["current"], "limit": pids["limit"]},
        "blkio": {
            "ioServiceBytesRecursive": [
                {"op": "Read", "value": io["read_bytes"]},
                {"op": "Write", "value": io["write_bytes"]},
            ],
            "ioServicedRecursive": [
                {"op": "Read", "value": io["read_ops"]},
                {"op": "Write", "value": io["write_ops"]},
            ],
        },
    }


# Update

_NUMBERS = {
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "cpu_share": ("cpu", "shares"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_period": ("cpu", "period"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_idle": ("cpu", "idle"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "blkio_weight": ("blockIO", "weight"),
    "pids_limit": ("pids", "limit"),
}
_TEXTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}
UPDATE_OPTIONS = (*_NUMBERS, *_TEXTS)


def do_update(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    need(store, record, "created", "running", "paused")
    for text in _group(record).update(resources(options)):
        warner(options)(text)
    return 0


def resources(options: Namespace) -> dict[str, Any]:
    """The OCI resources of ``update``: of a file (``-``: standard input), or of the options."""
    from orchestra.runtime import configcheck

    if options.resources:
        try:
            with open(
                0 if options.resources == "-" else options.resources, "rb", closefd=options.resources != "-"
            ) as file:
                data = file.read(configcheck.MAX_SIZE + 1)
        except (OSError, ValueError) as problem:
            raise OrchestraError(f"cannot read the resources: {problem}") from None
        return configcheck.read(
            data, "standard input" if options.resources == "-" else options.resources, configcheck.RESOURCES
        )
    made: dict[str, Any] = {}
    for name, (part, key) in {**_NUMBERS, **_TEXTS}.items():
        value = getattr(options, name)
        if value is not None:
            made.setdefault(part, {})[key] = number(value) if name in _NUMBERS else value
    if not made:
        raise OrchestraError("update needs --resources or a limit")
    configcheck.check(made, configcheck.RESOURCES)
    return made


def number(text: str) -> int:
    """``512``, ``-1``, ``64m``."""
    units = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    word = text.strip().lower()
    digits = word.rstrip("bkmgt")
    unit = word[len(digits) :].removesuffix("b") if len(word) - len(digits) > 1 else word[len(digits) :]
    try:
        return int(digits) * units[unit]
    except (KeyError, ValueError):
        raise OrchestraError(f"{text!r} is no number") from None


# Spec and features


def do_spec(_store: Store, options: Namespace) -> int:
    from orchestra.runtime import defaults

    place = os.path.join(options.bundle or ".", "config.json")
    config = defaults.config(["sh"])
    if options.rootless:
        _rootless(config)
    try:
        with open(place, "x", encoding="utf-8") as file:
            json.dump(config, file, indent=2)
            file.write("\n")
    except FileExistsError:
        raise ConflictError(f"{place} exists already", hint="remove it first") from None
    except OSError as problem:
        raise OrchestraError(f"cannot write {place}: {problem.strerror}") from None
    return 0


def _rootless(config: dict[str, Any]) -> None:
    """A user namespace with the caller as its root; no limits, the host's network."""
    linux = config["linux"]
    linux["namespaces"] = [
        entry for entry in linux["namespaces"] if entry["type"] not in ("network", "cgroup")
    ]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    linux.pop("resources", None)
    kept = []
    for mount in config["mounts"]:
        if mount["type"] == "cgroup":
            continue
        mount["options"] = [word for word in mount["options"] if word != "gid=5"]
        if mount["destination"] == "/sys":
            mount.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "rro"])
        kept.append(mount)
    config["mounts"] = kept


_SECCOMP = {
    "enabled": True,
    "actions": [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ],
    "operators": [
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ],
    "archs": [
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ],
    "knownFlags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
    "supportedFlags": [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
    ],
}


def do_features(_store: Store, _options: Namespace) -> int:
    from orchestra.linux import caps, mount
    from orchestra.runtime import hooks, mountoptions, namespaces

    mode = groups.probe()
    _print(
        {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": "1.2.1",
            "hooks": list(hooks.KINDS),
            "mountOptions": mountoptions.known_words(),
            "linux": {
                "namespaces": sorted(namespaces.FLAGS),
                "capabilities": list(caps.NAMES),
                "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
                "seccomp": _SECCOMP,
                "apparmor": {"enabled": os.path.isdir("/sys/kernel/security/apparmor")},
                "selinux": {"enabled": os.path.exists("/sys/fs/selinux/enforce")},
                "intelRdt": {"enabled": False},
                "mountExtensions": {"idmap": {"enabled": mount.supports_idmap("/")}},
            },
            "annotations": {"orchestra.cgroup": mode.describe()},
            "potentiallyUnsafeConfigAnnotations": [],
        }
    )
    return 0
