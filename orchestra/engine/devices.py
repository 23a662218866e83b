"""Device nodes of a container and what the devices cgroup lets it do with them."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Sequence
from typing import Any

from orchestra.compose.model import Device, Service
from orchestra.errors import OrchestraError

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")


def devices(service: Service, warnings: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """OCI ``linux.devices`` beyond the usual ones, and rules beyond the usual ones."""
    nodes: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    if service.privileged:
        nodes += [node for path in _host_nodes() if (node := _node(path, path))]
        rules.append({"allow": True, "access": "rwm"})
    for device in (*service.devices, *_gpus(service, warnings)):
        for node in _expand(device, warnings):
            nodes = [other for other in nodes if other["path"] != node["path"]] + [node]
            rules.append(
                {
                    "allow": True,
                    "type": node["type"],
                    "major": node["major"],
                    "minor": node["minor"],
                    "access": device.permissions or "rwm",
                }
            )
    rules += [_rule(text) for text in service.device_cgroup_rules]
    return nodes, rules


def _expand(device: Device, warnings: list[str]) -> list[dict[str, Any]]:
    if not device.source.startswith("/"):
        warnings.append(f'devices: "{device.source}" (a CDI name) is not supported and was ignored')
        return []
    try:
        info = os.stat(device.source)
    except OSError as error:
        raise OrchestraError(f"cannot use device {device.source}: {error.strerror}") from None
    if stat.S_ISDIR(info.st_mode):
        found = []
        for folder, _, names in os.walk(device.source):
            for name in sorted(names):
                path = os.path.join(folder, name)
                inside = device.target + path[len(device.source) :]
                if node := _node(path, inside):
                    found.append(node)
        return found
    node = _node(device.source, device.target or device.source)
    if node is None:
        raise OrchestraError(f"cannot use device {device.source}: it is not a device node")
    return [node]


def _node(path: str, target: str) -> dict[str, Any] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


def _host_nodes() -> list[str]:
    found = []
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [
            one for one in folders if os.path.join(folder, one) not in ("/dev/pts", "/dev/shm", "/dev/mqueue")
        ]
        found += [os.path.join(folder, name) for name in names if name not in ("console", "ptmx", "core")]
    return [path for path in sorted(found) if not os.path.islink(path)]


def _rule(text: str) -> dict[str, Any]:
    match = _RULE.fullmatch(text.strip())
    if not match:
        raise OrchestraError(f'invalid device_cgroup_rules entry "{text}"', hint="write it like: c 1:3 mr")
    kind, major, minor, access = match.groups()
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    if major != "*":
        rule["major"] = int(major)
    if minor != "*":
        rule["minor"] = int(minor)
    return rule


def _gpus(service: Service, warnings: list[str]) -> Sequence[Device]:
    """The GPU device nodes of the machine, when some are asked for."""
    reserved = service.deploy.reservations if service.deploy else None
    wanted = [*service.gpus, *(reserved.devices if reserved else ())]
    if not wanted:
        return ()
    nodes = sorted(glob.glob("/dev/nvidia*") + glob.glob("/dev/dri/*") + glob.glob("/dev/kfd"))
    found = [Device(path, path) for path in nodes if not os.path.isdir(path)]
    where = "gpus" if service.gpus else "deploy.resources.reservations.devices"
    if not found:
        warnings.append(f"{where}: this machine has no such devices; started without them")
    else:
        warnings.append(f"{where}: device nodes are passed, drivers and libraries are not")
    return found
