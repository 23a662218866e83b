"""The OCI ``linux.namespaces`` of a container, and what sharing one brings with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestra.errors import OrchestraError

PidOf = Callable[[str], int]
"""The pid of a running container by id; raises when it does not run."""

_KINDS = {"network": "net", "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}


def mode_of(modes: Mapping[str, str], kind: str) -> str:
    """'' (private), host, none or container:<id>."""
    mode = modes.get(kind, "")
    return "" if mode in ("private", "shareable", "bridge", "default") else mode


def shared_with(modes: Mapping[str, str], kind: str) -> str:
    """The id of the container whose namespace is joined, or ''."""
    mode = mode_of(modes, kind)
    return mode.removeprefix("container:") if mode.startswith("container:") else ""


def namespaces(modes: Mapping[str, str], pid_of: PidOf) -> list[dict[str, Any]]:
    """New, joined by path, or left out (the host's)."""
    found: list[dict[str, Any]] = [{"type": "mount"}]
    for kind, short in _KINDS.items():
        mode = mode_of(modes, kind)
        if mode == "host":
            continue
        if mode in ("", "none"):
            found.append({"type": kind})
        elif mode.startswith("container:"):
            found.append(
                {"type": kind, "path": f"/proc/{pid_of(mode.removeprefix('container:'))}/ns/{short}"}
            )
        else:
            raise OrchestraError(
                f'invalid {kind} mode "{mode}"', hint="use host, service:NAME or container:NAME"
            )
    return found


def shared_kinds(modes: Mapping[str, str]) -> list[tuple[str, str]]:
    """(kind, id of the container) of all namespaces that are another container's."""
    return [(kind, other) for kind in _KINDS if (other := shared_with(modes, kind))]


def joined(modes: Mapping[str, str]) -> list[str]:
    """Ids of all containers whose namespaces are joined."""
    return sorted({other for _, other in shared_kinds(modes)})
