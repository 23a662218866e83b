"""The OCI ``linux.resources`` of a service: cpu, memory, pids, block I/O. Device rules: devices.py.

``deploy.resources.limits`` win over nothing: the loader has checked that they agree with the service's
own keys. What the machine cannot do is the cgroup manager's to say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestra.compose.model import BlkioConfig, DeviceRate, ResourceSet, Service
from orchestra.errors import OrchestraError

PERIOD = 100_000


def resources(service: Service, *, cpus: int, swap: bool, warnings: list[str]) -> dict[str, Any]:
    """``cpus`` is the number of the machine's processors, ``swap`` whether it has swap space."""
    deploy = service.deploy
    limits = (deploy.limits if deploy else None) or ResourceSet()
    reserved = (deploy.reservations if deploy else None) or ResourceSet()
    found: dict[str, Any] = {}
    _put(found, "cpu", _cpu(service, limits, reserved, cpus))
    _put(found, "memory", _memory(service, limits, reserved, swap=swap))
    pids = service.pids_limit if service.pids_limit is not None else limits.pids
    if pids is not None and pids > 0:
        found["pids"] = {"limit": pids}
    if service.blkio_config:
        _put(found, "blockIO", _block_io(service.blkio_config))
    for where, resource in (("limits", limits), ("reservations", reserved)):
        if resource.generic_resources:
            warnings.append(f"deploy.resources.{where}.generic_resources is not supported and was ignored")
    return found


def _put(found: dict[str, Any], key: str, value: Mapping[str, Any]) -> None:
    if value:
        found[key] = dict(value)


def _cpu(service: Service, limits: ResourceSet, reserved: ResourceSet, count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if service.cpu_shares:
        found["shares"] = service.cpu_shares
    elif reserved.cpus:
        found["shares"] = max(1024, round(reserved.cpus * 1024))
    cores = service.cpus or limits.cpus or service.cpu_count
    if not cores and service.cpu_percent:
        cores = count * service.cpu_percent / 100
    if cores:
        if cores > count:
            raise OrchestraError(f"range of cpus is from 0.01 to {count}, {cores:g} were asked for")
        found |= {"quota": max(1000, round(cores * PERIOD)), "period": PERIOD}
    if service.cpu_quota:
        found["quota"] = service.cpu_quota
    if service.cpu_period:
        found["period"] = service.cpu_period
        if cores and not service.cpu_quota:
            found["quota"] = max(1000, round(cores * service.cpu_period))
    if service.cpu_rt_period:
        found["realtimePeriod"] = service.cpu_rt_period
    if service.cpu_rt_runtime:
        found["realtimeRuntime"] = service.cpu_rt_runtime
    if service.cpuset:
        found["cpus"] = service.cpuset
    if service.extensions.get("x-cpuset-mems"):
        found["mems"] = str(service.extensions["x-cpuset-mems"])
    return found


def _memory(service: Service, limits: ResourceSet, reserved: ResourceSet, *, swap: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    limit = service.mem_limit or limits.memory
    if limit:
        if limit < 6 << 20:
            raise OrchestraError(f"minimum memory limit allowed is 6MB, {limit} bytes were asked for")
        found["limit"] = limit
    if service.memswap_limit:
        if service.memswap_limit > 0 and not limit:
            raise OrchestraError("memswap_limit needs mem_limit to be set too")
        if limit and 0 < service.memswap_limit < limit:
            raise OrchestraError("memswap_limit must be at least mem_limit")
        found["swap"] = service.memswap_limit
    elif limit and swap:
        found["swap"] = 2 * limit
    reservation = service.mem_reservation or reserved.memory
    if reservation:
        if limit and reservation > limit:
            raise OrchestraError("the memory reservation must not be above the memory limit")
        found["reservation"] = reservation
    if service.mem_swappiness is not None and service.mem_swappiness >= 0:
        found["swappiness"] = service.mem_swappiness
    if service.oom_kill_disable:
        found["disableOOMKiller"] = True
    return found


def _block_io(config: BlkioConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if config.weight:
        _in_range(config.weight, "weight")
        found["weight"] = config.weight
    for one in config.weight_device:
        _in_range(one.rate, "weight_device")
    if config.weight_device:
        found["weightDevice"] = [
            {**_device(one.path, "weight_device"), "weight": one.rate} for one in config.weight_device
        ]
    for key, name in (
        ("throttleReadBpsDevice", "device_read_bps"),
        ("throttleReadIOPSDevice", "device_read_iops"),
        ("throttleWriteBpsDevice", "device_write_bps"),
        ("throttleWriteIOPSDevice", "device_write_iops"),
    ):
        rates: Sequence[DeviceRate] = getattr(config, name)
        if rates:
            found[key] = [{**_device(one.path, name), "rate": one.rate} for one in rates]
    return found


def _in_range(weight: int, key: str) -> None:
    if not 10 <= weight <= 1000:
        problem = OrchestraError(f"blkio_config.{key}: {weight} is not within 10 and 1000")
        problem.attribute = f"blkio_config.{key}"  # type: ignore[attr-defined]
        raise problem


def _device(path: str, key: str) -> dict[str, int]:
    try:
        info = os.stat(path)
        reason = "" if stat.S_ISBLK(info.st_mode) else "is not a disk"
    except OSError as error:
        reason = f"cannot be used: {(error.strerror or '').lower()}"
    if reason:
        problem = OrchestraError(
            f"blkio_config.{key}: {path} {reason}", hint="name a whole disk, as lsblk lists"
        )
        problem.attribute = f"blkio_config.{key}"  # type: ignore[attr-defined]
        raise problem
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


# what the cgroup manager calls a limit, and where a compose file may have asked for it
_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "memory limit": ("mem_limit", "deploy.resources.limits.memory"),
    "swap limit": ("memswap_limit",),
    "memory reservation": ("mem_reservation", "deploy.resources.reservations.memory"),
    "memory swappiness": ("mem_swappiness",),
    "oom killer switch": ("oom_kill_disable",),
    "cpu shares": ("cpu_shares", "deploy.resources.reservations.cpus"),
    "cpu quota": ("cpu_quota", "cpus", "deploy.resources.limits.cpus", "cpu_count", "cpu_percent"),
    "cpu period": ("cpu_period", "cpus", "deploy.resources.limits.cpus", "cpu_count", "cpu_percent"),
    "realtime runtime": ("cpu_rt_runtime",),
    "realtime period": ("cpu_rt_period",),
    "cpuset cpus": ("cpuset",),
    "pids limit": ("pids_limit", "deploy.resources.limits.pids"),
    **{f"{kind} weight": ("blkio_config.weight",) for kind in ("io", "blkio")},
    **{f"{kind} device weight": ("blkio_config.weight_device",) for kind in ("io", "blkio")},
    **{
        f"{kind} {name} limit": (f"blkio_config.device_{name}",)
        for kind in ("io", "blkio")
        for name in ("read_bps", "write_bps", "read_iops", "write_iops")
    },
}


def attribute(text: str, service: Service) -> tuple[str, str]:
    """The service's attribute that a word of the cgroup manager ("limit: reason") is about, and the reason;
    ("", text) for what is about none."""
    what, _, reason = text.partition(": ")
    for path in _ATTRIBUTES.get(what, ()):
        if _given(service, path):
            return path, reason
    return "", text


def warning(text: str, service: Service) -> str:
    """A warning of the runtime in the words of the compose file."""
    path, reason = attribute(text, service)
    return f"{path} has no effect: {reason}" if path else text


def refused(error: OrchestraError, service: Service) -> None:
    """Makes the runtime's refusal of a limit say the attribute, so that its place can be shown."""
    path, reason = attribute(error.brief, service)
    if path:
        error.brief = f"{path}: {reason}"
        error.args = (error.brief,)
        error.attribute = path  # type: ignore[attr-defined]


def _given(service: Service, path: str) -> bool:
    value: Any = service
    for part in path.removeprefix("deploy.resources.").split("."):
        if value is service and path.startswith("deploy."):
            value = service.deploy
        value = getattr(value, part, None)
    return value is not None and value is not False and value not in ((), "")


# what ``update`` can change: the section of the OCI object and its keys; and what a new value takes the place of
_CHANGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpus": ("cpu", ("quota", "period")),
    "cpu_quota": ("cpu", ("quota",)),
    "cpu_period": ("cpu", ("quota", "period")),
    "cpu_shares": ("cpu", ("shares",)),
    "cpu_rt_period": ("cpu", ("realtimePeriod",)),
    "cpu_rt_runtime": ("cpu", ("realtimeRuntime",)),
    "cpuset": ("cpu", ("cpus",)),
    "mem_limit": ("memory", ("limit", "swap")),  # version 2 counts swap apart
    "mem_reservation": ("memory", ("reservation",)),
    "memswap_limit": ("memory", ("limit", "swap")),
    "pids_limit": ("pids", ("limit",)),
    "blkio_config": ("blockIO", ("weight",)),
}
_REPLACED: dict[str, tuple[str, ...]] = {
    "cpus": ("cpu_quota", "cpu_period"),
    "cpu_quota": ("cpus", "cpu_count", "cpu_percent"),
}


def updated(service: Service, changes: Mapping[str, Any]) -> Service:
    """The service with what ``update`` is given, by the names of its keys (``blkio_config``: an object with
    ``weight`` alone)."""
    unknown = sorted(set(changes) - set(_CHANGES))
    block = changes.get("blkio_config") or {}
    unknown += [f"blkio_config.{key}" for key in sorted(set(block) - {"weight"})]
    if unknown:
        raise OrchestraError(f"cannot update {', '.join(unknown)} of a container")
    values: dict[str, Any] = dict(changes)
    for name in changes:
        values |= {other: None for other in _REPLACED.get(name, ()) if other not in changes}
    if block:
        values["blkio_config"] = replace(service.blkio_config or BlkioConfig(), **block)
    return replace(service, **values)


def resources_from_update(service: Service, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The OCI object with what ``changes`` alter; ``service`` has them already."""
    weight = service.blkio_config.weight if service.blkio_config and "blkio_config" in changes else None
    service = replace(service, blkio_config=BlkioConfig(weight))  # the disks are not looked at again
    whole = resources(service, cpus=os.cpu_count() or 1, swap=False, warnings=[])
    if "pids_limit" in changes:
        whole.setdefault("pids", {"limit": -1})
    found: dict[str, Any] = {}
    for name in changes:
        part, keys = _CHANGES[name]
        values = whole.get(part, {})
        kept = {key: values[key] for key in keys if key in values}
        if kept:
            found.setdefault(part, {}).update(kept)
    return found
