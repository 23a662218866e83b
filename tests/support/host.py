"""What of orchestra's is on this machine: mounts, links, cgroups, nft tables, processes, files outside of its roots.

Only objects that carry our names are looked at, so that nothing else that goes on here disturbs.
"""

from __future__ import annotations

import os
import subprocess
import time


def snapshot() -> set[str]:
    """One word for each object."""
    return {*_mounts(), *_links(), *_cgroups(), *_tables(), *_processes(), *_files()}


def wait_clean(before: set[str], seconds: float = 30.0) -> list[str]:
    """What is there now and was not before, once that is nothing or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        left = sorted(snapshot() - before)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.2)


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo", errors="replace") as stream:
        lines = [line.split() for line in stream]
    return {f"mount {words[4]}" for words in lines if "orchestra" in words[4] or "/pytest-of-" in words[4]}


def _links() -> set[str]:
    names = os.listdir("/sys/class/net") if os.path.isdir("/sys/class/net") else []
    return {f"link {name}" for name in names if name.startswith(("oc", "ov"))}


def _cgroups() -> set[str]:
    found = set()
    for folder, folders, _files in os.walk("/sys/fs/cgroup"):
        if folder.count("/") > 5:
            folders.clear()
        found |= {f"cgroup {folder}/{name}" for name in folders if name.startswith("orchestra")}
    return found


def _tables() -> set[str]:
    try:
        output = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return set()
    return {f"nft {line.strip()}" for line in output.splitlines() if "orchestra" in line}


def _processes() -> set[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                words = stream.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        line = " ".join(words).strip()
        commands = {os.path.basename(word) for word in words[:3]}  # python […] orchestra
        if "orchestra.controller.daemon" in line or "runtime/shim" in line or commands & {"orchestra", "orchestra-runtime"}:
            found.add(f"process {pid} {line[:120]}")
    return found


def _files() -> set[str]:
    """Where the default engine, the stand-alone runtime and shared notes would lie; what is in folders, too."""
    found = set()
    for folder in ("/run", "/dev/shm", "/var/lib", "/etc", "/var/run"):
        names = os.listdir(folder) if os.path.isdir(folder) and not os.path.islink(folder) else []
        for name in names:
            if name.startswith("orchestra"):
                for place, _folders, files in os.walk(f"{folder}/{name}"):
                    found |= {f"file {place}/{file}" for file in files}
                found.add(f"file {folder}/{name}")
    return found
