"""What a shim does for a container, done a few times before there is one.

The interpreter writes to its objects when code runs for the first time: it counts runs, fills caches and
replaces instructions by quicker ones. In a nursery that has been through it, this is done once for all shims,
and a shim's first container starts as quickly as its second.

The containers are real ones whose program ends at once. They live in a mount namespace of their own, on a
tmpfs that nobody else sees, with plain files in the place of cgroups: however this ends, nothing is left. It is
for a process of one thread that nobody waits for.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from typing import Any

from orchestra.linux import calls
from orchestra.linux import constants as C
from orchestra.linux.program import NR, Program, Values, available
from orchestra.runtime import defaults, quick, seccomp
from orchestra.runtime import plan as plans
from orchestra.runtime import shim_wire as wire
from orchestra.runtime.cgroups import manager
from orchestra.runtime.cgroups.probe import Mode, probe
from orchestra.runtime.logfile import files_of
from orchestra.runtime.shim_birth import inherit
from orchestra.runtime.shim_loop import READ
from orchestra.runtime.shim_server import Shim

_PATIENCE = 5.0
_PLACES = ("/tmp", "/run", "/var")
_CONTROLLERS = ("memory", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio", "pids")
_FILES = (
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control", "cpu.cfs_period_us",
    "cpu.cfs_quota_us", "cpu.shares", "cpuset.cpus", "cpuset.mems", "devices.allow", "devices.deny", "pids.max", "freezer.state",
)  # fmt: skip


def rehearse(rounds: int, stop: Callable[[], bool]) -> bool:
    """Whether it went well, to its end: ``stop`` is asked before each round. The caller's namespaces, root and
    signal mask are as before, its working directory is the root; ``OSError`` when they could not be."""
    folder = next((place for place in _PLACES if os.path.isdir(place)), None)
    if folder is None or not available():
        return False
    space = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        try:
            calls.unshare(C.CLONE_NEWNS)
            calls.mount(None, "/", None, C.MS_REC | C.MS_PRIVATE)
            calls.mount("tmpfs", folder, "tmpfs", C.MS_NOSUID | C.MS_NODEV, "mode=700,size=4m")
            stage = _Stage(folder)
            well = all(not stop() and stage.play(number) for number in range(rounds))
            return well and stage.foresee()
        except OSError:
            return False
        finally:
            calls.setns(space, C.CLONE_NEWNS)
            os.fchdir(root)
            os.chroot(".")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(root)
        os.close(space)


class _Stage:
    """The place, and what stands there."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._prepare()

    def play(self, number: int) -> bool:
        """One shim's life with one container; whether nothing failed."""
        shim = Shim("rehearsal", f"{self.folder}/socket", self.folder)
        shim.operations.mode = Mode("v1", {name: f"{self.folder}/{name}" for name in _CONTROLLERS}, None, ())
        shim.adopt(self.folder, "rehearsal")
        shim.listen()
        client = _Client(self, shim, number)
        shim.run()
        return client.well

    def foresee(self) -> bool:
        """Write down what the inits of usual containers do on this machine."""
        mode, bundle = probe(), self.bundle(-1)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for words in (["program"], ["/program"]):
                for limited in (False, True):
                    config = self._config(bundle, -1)
                    config["process"]["args"] = words
                    inherit(config["process"], resource.getrlimit(resource.RLIMIT_NOFILE))
                    limits = config["linux"]["resources"]
                    if not limited:
                        limits = {"devices": limits["devices"]}
                    group = manager("/rehearsal/-1", mode)
                    plan = plans.make(config, container_id="rehearsal", bundle=bundle, cgroups=group)
                    recipe = group.foresee(limits)
                    if recipe or mode.kind == "v2":
                        plan.joins = recipe.folders() if recipe else []
                        quick.foresee(plan, (null, null, null), recipe, files_of(f"{bundle}/log"))
        finally:
            os.close(null)
        return True

    def _prepare(self) -> None:
        """What all bundles share."""
        program = Program(0)
        program.call(NR.exit_group, 0)
        for name in ("lower", "root", *_CONTROLLERS):
            os.mkdir(f"{self.folder}/{name}")
        for name in ("hosts", "hostname", "resolv.conf"):
            _write(f"{self.folder}/{name}", b"")
        _write(f"{self.folder}/lower/init", program.file(Values()), 0o700)

    def bundle(self, number: int) -> str:
        bundle = f"{self.folder}/{number}"
        for name in ("", "/upper", "/work"):
            os.mkdir(bundle + name)
        for controller in _CONTROLLERS:
            os.mkdir(f"{self.folder}/{controller}/{number}")
            for name in (
                "tasks",
                "cgroup.procs",
                *(name for name in _FILES if name.startswith(f"{controller}.")),
            ):
                _write(f"{self.folder}/{controller}/{number}/{name}", b"")
        config = self._config(bundle, number)
        _write(f"{bundle}/config.json", json.dumps(config).encode())
        return bundle

    def empty(self, name: str) -> None:
        """Its cgroups: the kernel's files do not keep one from being removed, ours do."""
        for controller in _CONTROLLERS:
            folder = f"{self.folder}/{controller}/{name}"
            for file in os.listdir(folder):
                os.unlink(f"{folder}/{file}")

    def _config(self, bundle: str, number: int) -> dict[str, Any]:
        """As the engine writes it for a service with limits."""
        config = defaults.config(["/init"], root=f"{self.folder}/root", hostname="rehearsal___")
        layers = [f"{name}={place}" for name, place in self._layers(bundle)]
        overlay = {
            "destination": "/",
            "type": "overlay",
            "source": "overlay",
            "options": [*layers, "volatile", "redirect_dir=off", "metacopy=off"],
        }
        binds = [
            {"destination": f"/etc/{name}", "type": "bind", "source": f"{self.folder}/{name}", "options": ["bind", "rprivate"]}
            for name in ("hosts", "hostname", "resolv.conf")
        ]  # fmt: skip
        config["mounts"] = [overlay, *config["mounts"], *binds]
        config["root"]["readonly"] = config["process"]["terminal"] = False
        config["process"]["noNewPrivileges"] = False
        config["process"]["env"].append("HOME=/root")
        config["process"]["user"] = {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [0]}
        linux = config["linux"]
        linux["resources"] |= {
            "cpu": {"quota": 50000, "period": 100000},
            "memory": {"limit": 64 << 20},
            "pids": {"limit": 64},
        }
        linux["cgroupsPath"] = f"/{number}"
        linux["sysctl"] = defaults.sysctls()
        linux["seccomp"] = seccomp.default_profile(defaults.CAPABILITIES)
        return config

    def _layers(self, bundle: str) -> tuple[tuple[str, str], ...]:
        return (
            ("lowerdir", f"{self.folder}/lower"),
            ("upperdir", f"{bundle}/upper"),
            ("workdir", f"{bundle}/work"),
        )


class _Client:
    """Asks for one thing after the other, and leaves; so the shim does, too."""

    def __init__(self, stage: _Stage, shim: Shim, number: int) -> None:
        self.stage, self.shim, self.name = stage, shim, str(number)
        self.well = True
        bundle = stage.bundle(number)
        self.arguments = {"create": {"id": self.name, "bundle": bundle, "log": {"path": f"{bundle}/log"}}}
        self.left = ["hello", "create", "start", "wait", "delete"]
        self.link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.connect(shim.socket_path)
        shim.loop.add(self.link.fileno(), READ, lambda mask: self._answer())
        shim.loop.after(_PATIENCE, self._late)
        self._ask()

    def _ask(self) -> None:
        if self.left:
            step = self.left.pop(0)
            if step == "delete":
                self.stage.empty(self.name)
            arguments = self.arguments.get(step, {"id": self.name})
            wire.send(self.link, {"op": step, "args": arguments})
        else:
            self.shim.loop.drop(self.link.fileno())
            self.link.close()

    def _answer(self) -> None:
        found = wire.receive(self.link)
        if found is None or "ok" not in found[0]:
            self.well, self.left = False, []
        self._ask()

    def _late(self) -> None:
        self.well, self.shim.loop.done = False, True


def _write(path: str, data: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
