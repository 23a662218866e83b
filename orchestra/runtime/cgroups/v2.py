"""Cgroup version 2: one directory in the unified tree, controllers enabled from the root down.

Numbers of the OCI spec that mean version 1 are converted: shares to a weight, memory+swap to swap
alone, block weights to io weights. Device rules become a BPF program (see ``devices``).
"""

from __future__ import annotations

import errno
import math
import os
import time
from typing import Any

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import bpf
from orchestra.runtime.cgroups import devices, files, limits
from orchestra.runtime.cgroups.base import (
    CgroupManager,
    Resources,
    device_name,
    limit_text,
    make_path,
    section,
)

_parents: set[str] = set()  # cgroups whose children have every controller


class Version2(CgroupManager):
    @property
    def folder(self) -> str:
        return f"{self.mode.v2}{self.path}"

    def create(self, resources: Resources | None = None) -> list[str]:
        try:  # a cgroup that was killed once kills what clone3 puts into it (seen with Linux 6.18): begin afresh
            os.rmdir(self.folder)
        except OSError:
            pass
        root, parent = str(self.mode.v2), os.path.dirname(self.path)
        folders = make_path(root, self.path)
        if len(folders) > 1 or root + parent not in _parents:
            for folder in [root, *folders[:-1]]:
                _enable(folder)
            if parent != "/":  # what its children have, nobody can take from it
                _parents.add(root + parent)
        return self._apply(resources or {}, fresh=True)

    def update(self, resources: Resources) -> list[str]:
        return self._apply(resources, fresh=False)

    def _prune(self, folder: str) -> None:
        _parents.clear()
        super()._prune(folder)

    def fds_for_clone(self) -> int | None:
        return os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def dirs(self) -> list[str]:
        return [self.folder] if files.exists(self.folder) else []

    def places(self) -> list[str]:
        return [self.folder]

    def freeze(self, *, timeout: float = 5.0) -> None:
        files.write(f"{self.folder}/cgroup.freeze", "1")
        deadline, pause = time.monotonic() + timeout, 0.0005
        while files.pairs(f"{self.folder}/cgroup.events").get("frozen") != 1:
            if time.monotonic() > deadline:
                files.write(f"{self.folder}/cgroup.freeze", "0")
                raise OSError(errno.ETIMEDOUT, "the cgroup does not freeze", self.folder)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def thaw(self) -> None:
        if files.exists(f"{self.folder}/cgroup.freeze"):
            files.write(f"{self.folder}/cgroup.freeze", "0")

    def frozen(self) -> bool:
        return files.read_or(f"{self.folder}/cgroup.freeze").strip() == "1"

    def oom_kills(self) -> int:
        """memory.events counts the whole subtree."""
        return files.pairs(f"{self.folder}/memory.events").get("oom_kill", 0)

    def oom_watch(self) -> tuple[int, int] | None:
        """memory.events itself: the kernel flags a change with EPOLLPRI (man 7 cgroups)."""
        try:
            watch = os.open(f"{self.folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        os.read(watch, 4096)  # arms the notification
        return watch, 2  # EPOLLPRI

    def stats(self) -> dict[str, Any]:
        place = self.folder
        cpu, memory = files.pairs(f"{place}/cpu.stat"), files.pairs(f"{place}/memory.stat")
        usage = files.number(f"{place}/memory.current")
        io = {"read_bytes": 0, "write_bytes": 0, "read_ops": 0, "write_ops": 0}
        names = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "read_ops", "wios": "write_ops"}
        for line in files.read_or(f"{place}/io.stat").splitlines():
            for word in line.split()[1:]:
                key, _, value = word.partition("=")
                if key in names:
                    io[names[key]] += int(value)
        return {
            "cpu": {
                "usage_ns": cpu.get("usage_usec", 0) * 1000,
                "user_ns": cpu.get("user_usec", 0) * 1000,
                "system_ns": cpu.get("system_usec", 0) * 1000,
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
            },
            "memory": {
                "usage": usage,
                "limit": files.number(f"{place}/memory.max"),
                "max_usage": files.number(f"{place}/memory.peak"),
                "working_set": max(0, usage - memory.get("inactive_file", 0)),
                "cache": memory.get("file", 0),
                "rss": memory.get("anon", 0),
                "swap": files.number(f"{place}/memory.swap.current"),
                "failures": files.pairs(f"{place}/memory.events").get("max", 0),
            },
            "pids": {
                "current": files.number(f"{place}/pids.current"),
                "limit": files.number(f"{place}/pids.max"),
            },
            "io": io,
            "oom_kills": self.oom_kills(),
        }

    # Limits

    def _apply(self, resources: Resources, *, fresh: bool) -> list[str]:
        warnings: list[str] = []
        for name, text, what in _settings(resources, warnings, self.folder):
            try:
                limits.put(f"{self.folder}/{name}", text, what)
            except FileNotFoundError:
                warnings.append(f"{what}: the {name.partition('.')[0]} controller has no {name} here")
        self._weights(section(resources, "blockIO"), warnings)
        for name, value in section(resources, "unified").items():
            self._unified(name, str(value))
        if fresh or resources.get("devices") is not None:
            self._devices(resources.get("devices"), warnings)
        return warnings

    def _unified(self, name: str, value: str) -> None:
        if "/" in name or "." not in name or name.startswith("cgroup."):
            raise OrchestraError(f"resources.unified: {name!r} is not the name of a controller's file")
        target = f"{self.folder}/{name}"
        if not files.exists(target):
            raise UnsupportedError(f"resources.unified: the kernel has no {name} here")
        for line in value.splitlines() or [""]:
            limits.put(target, line, name)

    def _weights(self, block: dict[str, Any], warnings: list[str]) -> None:
        if block.get("weight"):
            value = int(block["weight"])
            both = [("io.bfq.weight", str(value)), ("io.weight", f"default {io_weight(value)}")]
            limits.weight(self.folder, both, "io weight", warnings)
        for entry in block.get("weightDevice") or ():
            if entry.get("weight"):
                name, value = device_name(entry), int(entry["weight"])
                both = [("io.bfq.weight", f"{name} {value}"), ("io.weight", f"{name} {io_weight(value)}")]
                limits.device_weight(self.folder, both, "io device weight", warnings)

    def _devices(self, rules: list[dict[str, Any]] | None, warnings: list[str]) -> None:
        """Attach the new program, then take older ones off: at no moment is everything allowed."""
        state = devices.normalise(rules)
        code = None if state.allow and not state.exceptions else devices.compiled(rules)
        try:
            group = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf.replace_device_program(group, code)
            finally:
                os.close(group)
        except OSError as problem:
            if state.allow:
                warnings.append(f"device rules: {problem.strerror}")
                return
            raise OSError(problem.errno, "cannot attach the device program", self.folder) from None


def _enable(folder: str) -> None:
    """Give every available controller to the children. One that refuses (a realtime task in cpu, a
    process in an inner node) leaves the others alone; its limits then warn by name."""
    wanted = set(files.read_or(f"{folder}/cgroup.controllers").split())
    held = set(files.read_or(f"{folder}/cgroup.subtree_control").split())
    missing = sorted(wanted - held)
    if not missing:
        return
    try:
        files.write(f"{folder}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
    except OSError:
        for name in missing:
            try:
                files.write(f"{folder}/cgroup.subtree_control", f"+{name}")
            except OSError:
                continue


Setting = tuple[str, str, str]


def _settings(resources: Resources, warnings: list[str], folder: str) -> list[Setting]:
    """(file, text, what it is for) in the order of writing."""
    found = _memory(section(resources, "memory"), warnings, folder)
    found += _cpu(section(resources, "cpu"), warnings, folder)
    pids = section(resources, "pids").get("limit")
    if pids is not None:
        found.append(("pids.max", limit_text(int(pids)), "pids limit"))
    found += _io(section(resources, "blockIO"), warnings)
    for entry in resources.get("hugepageLimits") or ():
        size, text = entry["pageSize"], str(entry["limit"])
        found.append((f"hugetlb.{size}.max", text, f"hugepage limit {size}"))
        if files.exists(f"{folder}/hugetlb.{size}.rsvd.max"):
            found.append((f"hugetlb.{size}.rsvd.max", text, f"hugepage limit {size}"))
    for device, entry in section(resources, "rdma").items():
        words = [f"hca_handle={entry['hcaHandles']}"] if entry.get("hcaHandles") is not None else []
        words += [f"hca_object={entry['hcaObjects']}"] if entry.get("hcaObjects") is not None else []
        found.append(("rdma.max", " ".join([device, *words]), "rdma limit"))
    if section(resources, "network"):
        warnings.append("network class and priorities: cgroup version 2 has no such controller")
    return found


def _memory(memory: dict[str, Any], warnings: list[str], folder: str) -> list[Setting]:
    found: list[Setting] = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and memory.get("checkBeforeUpdate"):
        usage = files.number(f"{folder}/memory.current")
        if 0 < int(limit) < usage:
            raise OSError(errno.EBUSY, f"memory limit {limit} is below the present usage {usage}")
    if swap is not None:
        found.append(("memory.swap.max", swap_max(int(swap), int(limit or 0)), "swap limit"))
    if limit is not None:
        found.append(("memory.max", limit_text(int(limit)), "memory limit"))
    if memory.get("reservation") is not None:
        found.append(("memory.low", limit_text(int(memory["reservation"])), "memory reservation"))
    for key, what in (
        ("swappiness", "memory swappiness"),
        ("kernelTCP", "kernel tcp memory"),
        ("kernel", "kernel memory limit"),
    ):
        if memory.get(key) is not None:
            warnings.append(f"{what}: cgroup version 2 has no such control")
    if memory.get("disableOOMKiller"):
        warnings.append("oom killer switch: cgroup version 2 has no such control")
    return found


def swap_max(total: int, limit: int) -> str:
    """memory.swap.max from the memory+swap total of the spec."""
    if total < 0:
        return "max"
    if limit <= 0:
        if total == 0:
            return "0"
        raise OrchestraError("a swap limit needs a memory limit")
    if total < limit:
        raise OrchestraError(f"memory+swap limit {total} is below the memory limit {limit}")
    return str(total - limit)


def _cpu(cpu: dict[str, Any], warnings: list[str], folder: str) -> list[Setting]:
    found: list[Setting] = []
    idle = cpu.get("idle")
    if idle is not None:
        found.append(("cpu.idle", str(idle), "cpu idle"))
    if cpu.get("shares") and not idle:
        found.append(("cpu.weight", str(weight_of_shares(int(cpu["shares"]))), "cpu shares"))
    quota, period, burst = cpu.get("quota"), cpu.get("period"), cpu.get("burst")
    if burst is not None and quota and files.number(f"{folder}/cpu.max.burst") > max(0, int(quota)):
        found.append(("cpu.max.burst", "0", "cpu burst"))
    if quota or period:
        first = limit_text(int(quota)) if quota else files.read_or(f"{folder}/cpu.max", "max").split()[0]
        found.append(("cpu.max", f"{first} {period}" if period else first, "cpu quota"))
    if burst is not None:
        found.append(("cpu.max.burst", str(burst), "cpu burst"))
    for key in ("cpus", "mems"):
        if cpu.get(key):
            found.append((f"cpuset.{key}", str(cpu[key]), f"cpuset {key}"))
    for key, what in (("realtimeRuntime", "realtime runtime"), ("realtimePeriod", "realtime period")):
        if cpu.get(key):
            warnings.append(f"{what}: cgroup version 2 has no such control")
    return found


def weight_of_shares(shares: int) -> int:
    """Shares 2 … 262144 to weight 1 … 10000 so that the default 1024 becomes the default 100: a
    parabola through the three points on logarithmic axes (the one the OCI runtimes agreed on)."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612.0 - 7.0 / 34.0))


def io_weight(weight: int) -> int:
    """Block weight 10 … 1000 to io weight 1 … 10000."""
    return 1 + (weight - 10) * 9999 // 990


def _io(block: dict[str, Any], warnings: list[str]) -> list[Setting]:
    found: list[Setting] = []
    if block.get("leafWeight") or any(entry.get("leafWeight") for entry in block.get("weightDevice") or ()):
        warnings.append("io leaf weight: cgroup version 2 has no such control")
    for key, word, name in (
        ("throttleReadBpsDevice", "rbps", "read_bps"),
        ("throttleWriteBpsDevice", "wbps", "write_bps"),
        ("throttleReadIOPSDevice", "riops", "read_iops"),
        ("throttleWriteIOPSDevice", "wiops", "write_iops"),
    ):
        for entry in block.get(key) or ():
            rate = int(entry["rate"])
            found.append(("io.max", f"{device_name(entry)} {word}={limit_text(rate)}", f"io {name} limit"))
    return found
