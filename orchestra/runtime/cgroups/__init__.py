"""Control groups of a container: version 1, version 2 and both at once (hybrid), behind one protocol.

``probe()`` says what the machine has; ``manager(path, mode)`` gives the object for one container.
A path is absolute from the root of every hierarchy (``/orchestra-x/project/id``): never below the
caller's own cgroup. Resources are the OCI ``linux.resources`` object. A setting that the machine
has no controller for becomes a named warning in the list that ``create`` and ``update`` return;
a setting that the kernel refuses is an ``OSError`` with the file's name.

Standard library and ``orchestra.linux`` only: the shim imports this.
"""

from __future__ import annotations

from orchestra.runtime.cgroups.base import CgroupManager
from orchestra.runtime.cgroups.probe import Mode, probe

__all__ = ["CgroupManager", "Mode", "manager", "probe"]


def manager(path: str, mode: Mode | None = None) -> CgroupManager:
    """The manager for the cgroup ``path``. Nothing is created before ``create()``."""
    mode = mode or probe()
    if mode.kind == "v2":
        from orchestra.runtime.cgroups.v2 import Version2

        return Version2(path, mode)
    from orchestra.runtime.cgroups.v1 import Version1

    return Version1(path, mode)
