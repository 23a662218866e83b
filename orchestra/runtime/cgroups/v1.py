"""Cgroup version 1 and hybrid: one directory in every mounted hierarchy of controllers.

Trees without controllers (``name=…``, the unified one of a hybrid machine) are joined only where systemd
runs, which follows the processes of its services in them and would end ours with the service that
started us; elsewhere they would only cost (each move may wait for the kernel). Limits are written before any process is inside, so their order matters
only on ``update()``: memory and memory+swap bound each other, quota and period too.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from typing import Any

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.runtime.cgroups import devices, files, limits
from orchestra.runtime.cgroups.base import (
    CgroupManager,
    Recipe,
    Resources,
    Write,
    device_name,
    limit_text,
    make_path,
    section,
)

_SYSTEMD = "/run/systemd/system"
_USUAL = frozenset(("memory", "cpu", "pids", "devices"))  # what a recipe has words for
_NO_LIMIT = 1 << 63
_UNLIMITED = 1 << 62  # v1 shows "no limit" as a page-rounded number near 2^63


_parents: set[str] = set()  # where cgroups were made before: with all parents, in every hierarchy
_writes: dict[str, list[Write]] = {}  # by the hierarchies and the resources: where all controls were there
_KEPT = 64


class Version1(CgroupManager):
    def create(self, resources: Resources | None = None) -> list[str]:
        tracked = os.path.isdir(_SYSTEMD)
        for root, controllers in self.mode.hierarchies().items():
            if tracked or not self._nameless(root):
                self._make(root, controllers, self.path)
        if self.mode.v2 and tracked:
            try:
                make_path(self.mode.v2, self.path)
            except OSError:
                pass  # only cgroup.kill is lost; kill() then signals one by one
        return self._apply(resources or {}, fresh=True)

    def recipe(self, resources: Resources | None = None) -> Recipe | None:
        wanted = resources or {}
        if "devices" not in self.mode.v1 or not _USUAL.issuperset(wanted) or os.path.isdir(_SYSTEMD):
            return None
        roots = self._controlled()
        self._make_parents(roots)
        key = ":".join((*roots, json.dumps(wanted)))
        writes = _writes.get(key)
        if writes is None:
            try:
                writes = self._writes(wanted)
            except _Unusual:
                return None
            while len(_writes) >= _KEPT:
                del _writes[next(iter(_writes))]
            _writes[key] = writes
        return Recipe(self, wanted, roots, writes, self.mode.v1.get("cpuset", ""))

    def foresee(self, resources: Resources) -> Recipe | None:
        if "devices" not in self.mode.v1 or os.path.isdir(_SYSTEMD):
            return None
        try:
            writes = self._writes(resources, sure=True)
        except _Unusual:
            return None
        return Recipe(self, resources, self._controlled(), writes, self.mode.v1.get("cpuset", ""))

    def _controlled(self) -> list[str]:
        return [root for root in self._order() if not self._nameless(root)]

    def _writes(self, resources: Resources, *, sure: bool = False) -> list[Write]:
        """All that is written into a new cgroup. ``_Unusual`` where there is something to say. ``sure``: without a
        look at what controls there are."""
        warnings: list[str] = []
        recorder = _Recorder(self, warnings, sure=sure)
        self._limits(recorder, resources)
        if warnings:
            raise _Unusual
        root = self.mode.v1["devices"]
        allow, lines = devices.lines(resources.get("devices"))
        recorder.writes.append((root, f"devices.{'allow' if allow else 'deny'}", ("a",)))
        recorder.writes.append((root, f"devices.{'deny' if allow else 'allow'}", lines))
        return recorder.writes

    def update(self, resources: Resources) -> list[str]:
        return self._apply(resources, fresh=False)

    def fds_for_clone(self) -> int | None:
        return None

    def dirs(self) -> list[str]:
        return [folder for folder in self.places() if files.exists(folder)]

    def places(self) -> list[str]:
        roots = self._order()
        if self.mode.v2:
            roots.append(self.mode.v2)
        return [root + self.path for root in roots]

    def freeze(self, *, timeout: float = 5.0) -> None:
        """Returns when every process stands still. Tried again and again: a fork during freezing can
        leave the state at FREEZING until the next write."""
        state = self._need("freezer", "freezer.state")
        deadline, pause = time.monotonic() + timeout, 0.0005
        while True:
            files.write(state, "FROZEN")
            if files.read(state).strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                files.write(state, "THAWED")
                raise OSError(errno.ETIMEDOUT, "the cgroup does not freeze", state)
            time.sleep(pause)
            pause = min(pause * 2, 0.02)

    def thaw(self) -> None:
        state = self._file("freezer", "freezer.state")
        if state and files.exists(state):
            files.write(state, "THAWED")

    def frozen(self) -> bool:
        state = self._file("freezer", "freezer.state")
        return bool(state) and files.read_or(state or "").strip() in ("FROZEN", "FREEZING")

    def kill(self) -> None:
        """Frozen first, so that no fork outruns the signals; a tree that does not freeze is killed all the
        same."""
        if self.pids() and self._folder("freezer"):
            try:
                self.freeze(timeout=0.5)
            except OSError:
                pass
        super().kill()

    def oom_kills(self) -> int:
        folder = self._folder("memory")
        if not folder:
            return 0
        return sum(
            files.pairs(f"{group}/memory.oom_control").get("oom_kill", 0) for group in files.subtree(folder)
        )

    def oom_watch(self) -> tuple[int, int] | None:
        """An eventfd registered with cgroup.event_control."""
        folder = self._folder("memory")
        if not folder:
            return None
        watch = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(f"{folder}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                files.write(f"{folder}/cgroup.event_control", f"{watch} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(watch)
            return None
        return watch, 1  # EPOLLIN

    def stats(self) -> dict[str, Any]:
        get = self._file
        throttled = files.pairs(get("cpu", "cpu.stat") or "")
        ticks = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        split = files.pairs(get("cpuacct", "cpuacct.stat") or "")
        memory = files.pairs(get("memory", "memory.stat") or "")
        limit = files.number(get("memory", "memory.limit_in_bytes") or "")
        usage = files.number(get("memory", "memory.usage_in_bytes") or "")
        io = self._io()
        return {
            "cpu": {
                "usage_ns": files.number(get("cpuacct", "cpuacct.usage") or ""),
                "user_ns": split.get("user", 0) * ticks,
                "system_ns": split.get("system", 0) * ticks,
                "periods": throttled.get("nr_periods", 0),
                "throttled_periods": throttled.get("nr_throttled", 0),
                "throttled_ns": throttled.get("throttled_time", 0),
            },
            "memory": {
                "usage": usage,
                "limit": limit if 0 < limit < _UNLIMITED else 0,
                "max_usage": files.number(get("memory", "memory.max_usage_in_bytes") or ""),
                "working_set": max(0, usage - memory.get("total_inactive_file", 0)),
                "cache": memory.get("total_cache", 0),
                "rss": memory.get("total_rss", 0),
                "swap": memory.get("total_swap", 0),
                "failures": files.number(get("memory", "memory.failcnt") or ""),
            },
            "pids": {
                "current": files.number(get("pids", "pids.current") or ""),
                "limit": files.number(get("pids", "pids.max") or ""),
            },
            "io": io,
            "oom_kills": self.oom_kills(),
        }

    # Directories

    def _order(self) -> list[str]:
        roots = list(self.mode.hierarchies())
        first = self.mode.v1
        roots.sort(key=lambda root: (root != first.get("pids"), root != first.get("memory")))
        return roots

    def _nameless(self, root: str) -> bool:
        """Whether it is a tree without controllers."""
        return all(name.startswith("name=") for name in self.mode.hierarchies()[root])

    def _prune(self, folder: str) -> None:
        _parents.clear()
        super()._prune(folder)

    def _folder(self, controller: str) -> str | None:
        root = self.mode.v1.get(controller)
        return root + self.path if root else None

    def _file(self, controller: str, name: str) -> str | None:
        folder = self._folder(controller)
        return f"{folder}/{name}" if folder else None

    def _need(self, controller: str, name: str) -> str:
        found = self._file(controller, name)
        if not found:
            raise UnsupportedError(f"this machine has no {controller} cgroup controller")
        return found

    def _make(self, root: str, controllers: list[str], path: str) -> None:
        try:
            folders = make_path(root, path)
        except OSError as problem:
            if all(name.startswith("name=") for name in controllers):
                return  # a service manager's own tree may refuse us; it limits nothing
            raise OSError(problem.errno, "cannot make the cgroup", problem.filename) from None
        if "cpuset" in controllers:
            for folder in folders:
                for name in ("cpuset.cpus", "cpuset.mems"):
                    _inherit(folder, name)

    def _make_parents(self, roots: list[str]) -> None:
        parent = os.path.dirname(self.path)
        key = ":".join((parent, *roots))
        if key not in _parents:
            for root in roots if parent != "/" else ():
                self._make(root, self.mode.hierarchies()[root], parent)
            _parents.add(key)

    # Limits

    def _apply(self, resources: Resources, *, fresh: bool) -> list[str]:
        warnings: list[str] = []
        self._limits(_Writer(self, warnings), resources)
        if fresh or resources.get("devices") is not None:
            self._devices(resources.get("devices"), warnings)
        return warnings

    def _limits(self, writer: _Writer, resources: Resources) -> None:
        if resources.get("unified"):
            raise UnsupportedError(
                "resources.unified needs cgroup version 2; this machine has version 1",
                hint="name the limit by its own attribute (mem_limit, cpus, pids_limit …)",
            )
        _memory(writer, section(resources, "memory"))
        _cpu(writer, section(resources, "cpu"))
        pids = section(resources, "pids").get("limit")
        if pids is not None:
            writer.put("pids", "pids.max", limit_text(int(pids)), "pids limit")
        _blkio(writer, section(resources, "blockIO"))
        for entry in resources.get("hugepageLimits") or ():
            writer.put(
                "hugetlb",
                f"hugetlb.{entry['pageSize']}.limit_in_bytes",
                str(entry["limit"]),
                f"hugepage limit {entry['pageSize']}",
            )
        network = section(resources, "network")
        if network.get("classID"):
            writer.put("net_cls", "net_cls.classid", str(network["classID"]), "network class id")
        for entry in network.get("priorities") or ():
            writer.put(
                "net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}", "network priority"
            )
        for device, entry in section(resources, "rdma").items():
            words = [f"hca_handle={entry['hcaHandles']}"] if entry.get("hcaHandles") is not None else []
            words += [f"hca_object={entry['hcaObjects']}"] if entry.get("hcaObjects") is not None else []
            writer.put("rdma", "rdma.max", " ".join([device, *words]), "rdma limit")

    def _devices(self, rules: list[dict[str, Any]] | None, warnings: list[str]) -> None:
        folder = self._folder("devices")
        allow, lines = devices.lines(rules)
        if not folder:
            if not allow:
                warnings.append("device rules: this machine has no devices cgroup controller")
            return
        files.write(f"{folder}/devices.{'allow' if allow else 'deny'}", "a")
        files.write_each(f"{folder}/devices.{'deny' if allow else 'allow'}", lines)

    def _io(self) -> dict[str, int]:
        total = {"read_bytes": 0, "write_bytes": 0, "read_ops": 0, "write_ops": 0}
        folder = self._folder("blkio")
        if not folder:
            return total
        for name, unit in (("io_service_bytes", "bytes"), ("io_serviced", "ops")):
            for kind in ("blkio.throttle.{}_recursive", "blkio.throttle.{}", "blkio.bfq.{}_recursive"):
                text = files.read_or(f"{folder}/{kind.format(name)}")
                rows = [line.split() for line in text.splitlines()]
                rows = [row for row in rows if len(row) == 3]
                if not rows:
                    continue
                for _device, word, value in rows:
                    if word in ("Read", "Write"):
                        total[f"{word.lower()}_{unit}"] += int(value)
                break
        return total


class _Writer:
    """Writes one limit, or notes by name that the machine has no such control."""

    def __init__(self, owner: Version1, warnings: list[str]) -> None:
        self.owner = owner
        self.warnings = warnings

    def path(self, controller: str, name: str, what: str) -> str | None:
        found = self.owner._file(controller, name)
        if found and files.exists(found):
            return found
        reason = f"this machine has no {controller} cgroup controller"
        if found:
            reason = f"the kernel has no {name}"
        self.warnings.append(f"{what}: {reason}")
        return None

    def put(self, controller: str, name: str, text: str, what: str) -> None:
        found = self.path(controller, name, what)
        if found:
            limits.put(found, text, what)

    def number(self, controller: str, name: str, fresh: int) -> int:
        """What a control says; ``fresh`` is what it says in a new cgroup."""
        return files.number(self.owner._file(controller, name) or "")


class _Recorder(_Writer):
    """Notes down what is to be written. For what the parent has no control for, ``_Unusual``."""

    def __init__(self, owner: Version1, warnings: list[str], *, sure: bool) -> None:
        super().__init__(owner, warnings)
        self.sure = sure
        self.writes: list[Write] = []

    def path(self, controller: str, name: str, what: str) -> str | None:
        root = self.owner.mode.v1.get(controller)
        parent = os.path.dirname(self.owner.path)
        if not root or not (self.sure or files.exists(f"{root}{parent}/{name}")):
            raise _Unusual
        return root

    def put(self, controller: str, name: str, text: str, what: str) -> None:
        root = self.path(controller, name, what)
        if root:
            self.writes.append((root, name, (text,)))

    def number(self, controller: str, name: str, fresh: int) -> int:
        return fresh


class _Unusual(Exception):
    """What a recipe has no words for."""


def _inherit(folder: str, name: str) -> None:
    target = f"{folder}/{name}"
    if not files.read_or(target, "x").strip():
        files.write(target, files.read_or(f"{os.path.dirname(folder)}/{name}").strip())


def _memory(writer: _Writer, memory: dict[str, Any]) -> None:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit is not None and memory.get("checkBeforeUpdate"):
        usage = writer.number("memory", "memory.usage_in_bytes", 0)
        if 0 < int(limit) < usage:
            raise OSError(errno.EBUSY, f"memory limit {limit} is below the present usage {usage}")
    writes: list[Callable[[], None]] = []
    if limit is not None:
        writes.append(lambda: writer.put("memory", "memory.limit_in_bytes", str(limit), "memory limit"))
    if swap is not None:
        writes.append(lambda: writer.put("memory", "memory.memsw.limit_in_bytes", str(swap), "swap limit"))
    if limit is not None and swap is not None:
        now = writer.number("memory", "memory.memsw.limit_in_bytes", _NO_LIMIT)
        if int(swap) < 0 or int(limit) > now:
            writes.reverse()  # raise the outer bound first
    for each in writes:
        each()
    if memory.get("reservation") is not None:
        writer.put("memory", "memory.soft_limit_in_bytes", str(memory["reservation"]), "memory reservation")
    if memory.get("kernelTCP") is not None:
        writer.put("memory", "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"]), "kernel tcp memory")
    if memory.get("kernel"):
        writer.warnings.append("kernel memory limit: obsolete, kernels no longer honour it")
    if memory.get("swappiness") is not None:
        writer.put("memory", "memory.swappiness", str(memory["swappiness"]), "memory swappiness")
    if memory.get("disableOOMKiller") is not None:
        text = "1" if memory["disableOOMKiller"] else "0"
        writer.put("memory", "memory.oom_control", text, "oom killer switch")


def _cpu(writer: _Writer, cpu: dict[str, Any]) -> None:
    if cpu.get("shares"):
        writer.put("cpu", "cpu.shares", str(cpu["shares"]), "cpu shares")
    _bandwidth(writer, cpu)
    for key, name in (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")):
        if cpu.get(key):
            writer.put("cpu", name, str(cpu[key]), "realtime " + name.split("_")[1])
    if cpu.get("idle") is not None:
        writer.put("cpu", "cpu.idle", str(cpu["idle"]), "cpu idle")
    for key in ("cpus", "mems"):
        if cpu.get(key):
            writer.put("cpuset", f"cpuset.{key}", str(cpu[key]), f"cpuset {key}")


def _bandwidth(writer: _Writer, cpu: dict[str, Any]) -> None:
    """Period, quota, burst. The kernel checks their ratio at each write, also against the parent's,
    so the other order is tried before giving up; a burst beyond the new quota is dropped first."""
    quota, period, burst = cpu.get("quota"), cpu.get("period"), cpu.get("burst")
    if quota and burst is not None:
        held = writer.owner._file("cpu", "cpu.cfs_burst_us")
        if held and writer.number("cpu", "cpu.cfs_burst_us", 0) > max(0, int(quota)):
            files.write(held, "0")
    steps = [("cpu.cfs_period_us", str(period), "cpu period")] if period else []
    steps += [("cpu.cfs_quota_us", str(quota), "cpu quota")] if quota else []
    try:
        for name, text, what in steps:
            writer.put("cpu", name, text, what)
    except OrchestraError:
        if len(steps) < 2:
            raise
        for name, text, what in reversed(steps):
            writer.put("cpu", name, text, what)
    if burst is not None:
        writer.put("cpu", "cpu.cfs_burst_us", str(burst), "cpu burst")


def _blkio(writer: _Writer, block: dict[str, Any]) -> None:
    if block.get("weight"):
        folder, text = writer.owner._folder("blkio"), str(block["weight"])
        if folder:
            names = [("blkio.weight", text), ("blkio.bfq.weight", text)]
            limits.weight(folder, names, "blkio weight", writer.warnings)
        else:
            writer.path("blkio", "", "blkio weight")
    if block.get("leafWeight"):
        writer.put("blkio", "blkio.leaf_weight", str(block["leafWeight"]), "blkio leaf weight")
    for entry in block.get("weightDevice") or ():
        if entry.get("weight"):
            _device_weight(writer, f"{device_name(entry)} {entry['weight']}")
        if entry.get("leafWeight"):
            writer.put(
                "blkio",
                "blkio.leaf_weight_device",
                f"{device_name(entry)} {entry['leafWeight']}",
                "blkio device leaf weight",
            )
    for key, name in (
        ("throttleReadBpsDevice", "read_bps"),
        ("throttleWriteBpsDevice", "write_bps"),
        ("throttleReadIOPSDevice", "read_iops"),
        ("throttleWriteIOPSDevice", "write_iops"),
    ):
        for entry in block.get(key) or ():
            writer.put(
                "blkio",
                f"blkio.throttle.{name}_device",
                f"{device_name(entry)} {entry['rate']}",
                f"blkio {name} limit",
            )


def _device_weight(writer: _Writer, text: str) -> None:
    folder, what = writer.owner._folder("blkio"), "blkio device weight"
    if folder:
        names = [("blkio.weight_device", text), ("blkio.bfq.weight_device", text)]
        limits.device_weight(folder, names, what, writer.warnings)
    else:
        writer.path("blkio", "", what)
