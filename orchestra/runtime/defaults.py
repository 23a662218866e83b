"""The default pieces of a container's OCI configuration: the one table of them.

Capabilities are podman's eleven; docker's NET_RAW, MKNOD and AUDIT_WRITE are left out (ping works by
``net.ipv4.ping_group_range``). Every function gives a fresh object: callers may change it.
"""

from __future__ import annotations

import functools
import os
from typing import Any

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

SHM_SIZE = 64 << 20

# (path, type, major, minor, mode): in every container, with the links of DEVICE_LINKS
DEVICES = (
    ("/dev/null", "c", 1, 3, 0o666),
    ("/dev/zero", "c", 1, 5, 0o666),
    ("/dev/full", "c", 1, 7, 0o666),
    ("/dev/random", "c", 1, 8, 0o666),
    ("/dev/urandom", "c", 1, 9, 0o666),
    ("/dev/tty", "c", 5, 0, 0o666),
)
DEVICE_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
)


def capabilities(*, names: tuple[str, ...] = CAPABILITIES, root: bool = True) -> dict[str, list[str]]:
    """The five sets. A user other than root keeps the bounding set only."""
    held = list(names) if root else []
    return {
        "bounding": list(names),
        "effective": held,
        "permitted": list(held),
        "inheritable": [],
        "ambient": [],
    }


def masked_paths() -> list[str]:
    """With the thermal counters of this machine's processors, a side channel."""
    with open("/sys/devices/system/cpu/present", "rb") as file:
        return [*MASKED_PATHS, *_thermal_counters(file.read())]


@functools.lru_cache(maxsize=4)
def _thermal_counters(_processors: bytes) -> tuple[str, ...]:
    folder = "/sys/devices/system/cpu"
    found = [f"{folder}/{name}/thermal_throttle" for name in os.listdir(folder) if name.startswith("cpu")]
    return tuple(sorted(place for place in found if os.path.isdir(place)))


def readonly_paths() -> list[str]:
    return list(READONLY_PATHS)


def mounts(
    *, shm_size: int = SHM_SIZE, cgroup: bool = True, writable_cgroup: bool = False
) -> list[dict[str, Any]]:
    """proc, dev, pts, shm, mqueue, sys and the container's own cgroup."""
    locked = ["nosuid", "noexec", "nodev"]
    found: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": list(locked)},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*locked, "mode=1777", f"size={shm_size}"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": list(locked)},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*locked, "ro"]},
    ]
    if cgroup:
        found.append(
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": [*locked, "relatime", "rw" if writable_cgroup else "ro"],
            }
        )
    return found


def namespaces() -> list[dict[str, str]]:
    return [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]


def sysctls(*, network: bool = True) -> dict[str, str]:
    """For a network namespace of the container's own: low ports and ping for everybody in it."""
    if not network:
        return {}
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


def device_rules() -> list[dict[str, Any]]:
    """Deny all; the cgroup manager adds the harmless basics itself."""
    return [{"allow": False, "access": "rwm"}]


def config(args: list[str], *, root: str = "rootfs", hostname: str = "orchestra") -> dict[str, Any]:
    """A complete configuration with all the defaults: what ``orchestra-runtime spec`` writes."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": capabilities(),
            "noNewPrivileges": True,
        },
        "root": {"path": root, "readonly": True},
        "hostname": hostname,
        "mounts": mounts(),
        "linux": {
            "resources": {"devices": device_rules()},
            "namespaces": namespaces(),
            "maskedPaths": masked_paths(),
            "readonlyPaths": readonly_paths(),
        },
    }
