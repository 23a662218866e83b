"""Numbers about a running container: processes, CPU, memory, network and block IO."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable, Mapping
from typing import Any

from orchestra.linux import procfs

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]


def processes(pids: Iterable[int]) -> tuple[list[str], list[list[str]]]:
    """As ``ps -ef`` shows them (host pids)."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat") as stream:
        boot = next(int(line.split()[1]) for line in stream if line.startswith("btime"))
    rows = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                fields = stat.read().rsplit(b")", 1)[1].split()
            owner = os.stat(f"/proc/{pid}").st_uid
        except (OSError, IndexError):
            continue
        used = (int(fields[11]) + int(fields[12])) // ticks
        started = time.strftime("%H:%M", time.localtime(boot + int(fields[19]) / ticks))
        command = " ".join(procfs.command_line(pid)) or f"[{procfs.status(pid).get('Name', '?')}]"
        clock = f"{used // 3600:02d}:{used % 3600 // 60:02d}:{used % 60:02d}"
        rows.append(
            [
                _user(owner),
                str(pid),
                fields[1].decode(),
                "0",
                started,
                "?" if int(fields[4]) == 0 else "pts",
                clock,
                command,
            ]
        )
    return TITLES, rows


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def stats(raw: Mapping[str, Any], pid: int) -> dict[str, Any]:
    """``time`` and ``cpu`` in seconds, sizes in bytes; from the cgroup manager's statistics."""
    memory, cpu, pids = raw.get("memory") or {}, raw.get("cpu") or {}, raw.get("pids") or {}
    block = raw.get("io") or raw.get("blkio") or {}
    usage = memory.get("usage", 0) if isinstance(memory, Mapping) else 0
    limit = memory.get("limit") or 0 if isinstance(memory, Mapping) else 0
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    used = cpu.get("usage_ns", 0) if isinstance(cpu, Mapping) else 0
    received, sent = _network(pid)
    return {
        "time": time.time(),
        "cpu": used / 1e9,
        "memory": memory.get("working_set", usage),
        "memory_limit": min(limit, total) if limit else total,
        "pids": pids.get("current", 0) if isinstance(pids, Mapping) else 0,
        "rx": received,
        "tx": sent,
        "read": block.get("read", 0) if isinstance(block, Mapping) else 0,
        "write": block.get("write", 0) if isinstance(block, Mapping) else 0,
    }


def _network(pid: int) -> tuple[int, int]:
    """Bytes received and sent on all links but the loopback."""
    received = sent = 0
    try:
        with open(f"/proc/{pid}/net/dev") as stream:
            for line in stream:
                name, colon, rest = line.partition(":")
                if colon and name.strip() != "lo":
                    fields = rest.split()
                    received, sent = received + int(fields[0]), sent + int(fields[8])
    except OSError:
        return 0, 0
    return received, sent
