"""An OCI configuration, parsed and checked: all that can be computed before the container's process exists.

Raises ``OrchestraError`` for what is wrong and ``UnsupportedError`` for what cannot be done; what
the machine merely lacks becomes an entry of ``warnings``.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import userns
from orchestra.linux.mount import PROPAGATION
from orchestra.record import field, shape
from orchestra.runtime import devices, hooks, mounts, namespaces, process
from orchestra.runtime.cgroups import CgroupManager

_PERSONALITIES = {"LINUX": 0, "LINUX32": 8}
_IPC_SYSCTLS = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
_LINUX = frozenset(
    (
        "namespaces",
        "uidMappings",
        "gidMappings",
        "timeOffsets",
        "devices",
        "cgroupsPath",
        "resources",
        "rootfsPropagation",
        "seccomp",
        "sysctl",
        "maskedPaths",
        "readonlyPaths",
        "mountLabel",
        "personality",
        "netDevices",
    )
)


@shape
class Plan:
    """``cgroup_places`` are (name, host directory) of the container's own cgroups, ``joins`` those that its
    init goes into by itself (else its parent puts it there); ``root_mount`` is the first mount when its destination is ``/``."""

    id: str
    bundle: str
    version: str
    namespaces: namespaces.Namespaces
    process: process.Process
    root: str
    root_readonly: bool = False
    root_mount: mounts.Mount | None = None
    mounts: list[mounts.Mount] = field(default_factory=list)
    devices: list[devices.Device] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    protected: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    uids: userns.Map = field(default_factory=list)
    gids: userns.Map = field(default_factory=list)
    hostname: str = ""
    domainname: str = ""
    propagation: str = ""
    personality: int | None = None
    time_offsets: str = ""
    hooks: dict[str, list[hooks.Hook]] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    cgroup_places: list[tuple[str, str]] = field(default_factory=list)
    cgroup_unified: str = ""
    joins: list[str] = field(default_factory=list)
    pivot: bool = True
    new_keyring: bool = True
    preserve_fds: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def sets_up_dev(self) -> bool:
        """/dev is ours to fill unless something of the host is bound there."""
        return not any(mount.destination == "/dev" and mount.bind for mount in self.mounts)

    def state(self, status: str, pid: int) -> dict[str, Any]:
        """The state as hooks and ``orchestra-runtime state`` give it."""
        found: dict[str, Any] = {
            "ociVersion": self.version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        }
        if status != "stopped":
            found["pid"] = pid
        if self.annotations:
            found["annotations"] = self.annotations
        return found


def make(
    config: dict[str, Any], *, container_id: str, bundle: str, cgroups: CgroupManager | None = None
) -> Plan:
    """The plan of a whole container."""
    version = str(config.get("ociVersion") or "")
    if not version.startswith("1."):
        raise UnsupportedError(f"ociVersion {version!r} is not 1.x")
    linux = config.get("linux") or {}
    root = config.get("root") or {}
    if not root.get("path"):
        raise OrchestraError("root.path is missing")
    if not config.get("process"):
        raise OrchestraError("process is missing")
    spaces = namespaces.parse(linux.get("namespaces"))
    if not spaces.own("mount"):
        raise UnsupportedError("linux.namespaces: a container without a mount namespace is not supported")
    program = process.parse(config["process"], linux.get("seccomp"))
    listed = mounts.parse(config.get("mounts"), bundle)
    first = listed.pop(0) if listed and listed[0].destination == "/" else None
    found = Plan(
        container_id,
        bundle,
        version,
        spaces,
        program,
        os.path.normpath(os.path.join(bundle, str(root["path"]))),
        bool(root.get("readonly")),
        first,
        listed,
        devices.parse(linux.get("devices")),
        [str(path) for path in linux.get("maskedPaths") or ()],
        [str(path) for path in linux.get("readonlyPaths") or ()],
        {str(key): str(value) for key, value in (linux.get("sysctl") or {}).items()},
        mounts.ids(linux.get("uidMappings")),
        mounts.ids(linux.get("gidMappings")),
        str(config.get("hostname") or ""),
        str(config.get("domainname") or ""),
        str(linux.get("rootfsPropagation") or ""),
        hooks=hooks.parse(config.get("hooks")),
        annotations=dict(config.get("annotations") or {}),
        warnings=program.warnings,
    )
    _users(found)
    _names(found)
    _sysctls(found)
    _odds(found, linux)
    if cgroups is not None:
        _cgroups(found, cgroups)
    return found


def _users(plan: Plan) -> None:
    new = "user" in plan.namespaces.new
    if new and not (plan.uids and plan.gids):
        raise OrchestraError("linux.uidMappings and gidMappings are needed with a new user namespace")
    if (plan.uids or plan.gids) and not plan.namespaces.own("user"):
        raise OrchestraError("linux.uidMappings need a user namespace")
    for mount in [*plan.mounts, *([plan.root_mount] if plan.root_mount else [])]:
        if mount.words.idmap and not mount.uids:
            if not plan.uids:
                raise OrchestraError(f"mounts: {mount.words.idmap} at {mount.destination} needs uidMappings")
            mount.uids, mount.gids = plan.uids, plan.gids
    if new:
        for kind, name, number, entries in (
            ("uid", "process.user.uid", plan.process.uid, plan.uids),
            ("gid", "process.user.gid", plan.process.gid, plan.gids),
            *(
                ("gid", "process.user.additionalGids:", group, plan.gids)
                for group in plan.process.groups or ()
            ),
            ("uid", "the container's root", 0, plan.uids),
            ("gid", "the container's root", 0, plan.gids),
        ):
            if not any(inside <= number < inside + count for inside, _, count in entries):
                raise OrchestraError(f"{name} {number} is not in the {kind} mappings")


def _names(plan: Plan) -> None:
    for key in ("hostname", "domainname"):
        if getattr(plan, key) and not plan.namespaces.own("uts"):
            raise OrchestraError(f"{key} needs a uts namespace of its own")
    if plan.propagation and plan.propagation not in PROPAGATION:
        raise OrchestraError(f"linux.rootfsPropagation: unknown word {plan.propagation!r}")
    if plan.root == "/":
        raise OrchestraError("root.path is the root of this machine")
    if not os.path.isdir(plan.root):
        raise OrchestraError(f"root.path {plan.root} is not a directory")


def _sysctls(plan: Plan) -> None:
    """Only those of a namespace of the container's own: the others would change the host."""
    for name in plan.sysctls:
        path = sysctl_path(name)
        dotted = path.replace("/", ".")
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            kind = "ipc"
        elif dotted.startswith("net."):
            kind = "network"
        elif dotted in ("kernel.domainname", "kernel.hostname"):
            kind = "uts"
        elif dotted.startswith("user.") and plan.namespaces.own("user"):
            kind = "user"
        else:
            raise UnsupportedError(f"linux.sysctl: {name} is not separate for each container")
        if not plan.namespaces.own(kind):
            raise OrchestraError(f"linux.sysctl: {name} needs a {kind} namespace of the container's own")


@functools.lru_cache(maxsize=64)
def sysctl_path(name: str) -> str:
    """The file below /proc/sys. Whichever of ``.`` and ``/`` comes first separates (man 8 sysctl)."""
    first = next((letter for letter in name if letter in "./"), ".")
    path = name if first == "/" else name.translate(str.maketrans("./", "/."))
    parts = path.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise OrchestraError(f"linux.sysctl: bad name {name!r}")
    return path


def _odds(plan: Plan, linux: dict[str, Any]) -> None:
    persona = linux.get("personality")
    if persona:
        if persona.get("domain") not in _PERSONALITIES:
            raise OrchestraError(f"linux.personality: unknown domain {persona.get('domain')!r}")
        if persona.get("flags"):
            raise UnsupportedError("linux.personality.flags are not supported")
        plan.personality = _PERSONALITIES[persona["domain"]]
    lines = []
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        if clock not in ("monotonic", "boottime"):
            raise OrchestraError(f"linux.timeOffsets: unknown clock {clock!r}")
        lines.append(f"{clock} {int(offset.get('secs') or 0)} {int(offset.get('nanosecs') or 0)}\n")
    if lines and "time" not in plan.namespaces.new:
        raise OrchestraError("linux.timeOffsets need a new time namespace")
    plan.time_offsets = "".join(lines)
    if linux.get("mountLabel") and os.path.exists("/sys/fs/selinux/enforce"):
        plan.warnings.append("linux.mountLabel is not supported and was ignored")
    plan.warnings += [
        f"linux.{key} is not supported and was ignored" for key in sorted(set(linux) - _LINUX) if linux[key]
    ]
    if linux.get("netDevices"):
        raise UnsupportedError("linux.netDevices: moving network devices into the container is not supported")


def _cgroups(plan: Plan, cgroups: CgroupManager) -> None:
    mode = cgroups.mode
    for root in mode.hierarchies():
        plan.cgroup_places.append((os.path.basename(root), root + cgroups.path))
    if mode.v2:
        if mode.kind == "v2":
            plan.cgroup_unified = mode.v2 + (cgroups.path if "cgroup" in plan.namespaces.new else "")
        else:
            plan.cgroup_places.append((os.path.basename(mode.v2), mode.v2 + cgroups.path))
