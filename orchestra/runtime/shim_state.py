"""The shim's facts on disk: ``<bundle>/state.json``, replaced atomically before anyone is told.

``{"id", "project", "bundle", "pid", "start_time", "status": "creating|created|running|paused|stopped",
"exit_code", "exit_signal", "oom", "lost", "created_at", "started_at", "finished_at", "shim_pid", "cgroup", "log", "tty",
"stdin_open", "warnings"}``; times are unix seconds.
"""

from __future__ import annotations

import json
import os
from typing import Any

State = dict[str, Any]


def path(bundle: str) -> str:
    return f"{bundle}/state.json"


def save(bundle: str, state: State) -> None:
    """No fsync: /run does not outlive the machine, and a rename is whole for every other reader."""
    target = path(bundle)
    fd = os.open(f"{target}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(state).encode())
    finally:
        os.close(fd)
    os.rename(f"{target}.new", target)


def load(bundle: str) -> State | None:
    try:
        with open(path(bundle), "rb", buffering=0) as file:
            found = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remove(bundle: str) -> None:
    for name in (path(bundle), f"{path(bundle)}.new"):
        try:
            os.unlink(name)
        except FileNotFoundError:
            continue
