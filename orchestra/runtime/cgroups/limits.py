"""Writing one limit: what the kernel refuses is an error that names the limit and the value, and a block I/O
weight that no disk heeds is told.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from orchestra.errors import OrchestraError
from orchestra.runtime.cgroups import files

# what the kernel answers to a value that it does not like; other errors are not the value's fault
_REFUSALS = {
    errno.EINVAL,
    errno.ERANGE,
    errno.EBUSY,
    errno.ENODEV,
    errno.ENXIO,
    errno.ENOSPC,
    errno.EOPNOTSUPP,
    errno.E2BIG,
}


def put(path: str, text: str, what: str) -> None:
    """Raises OrchestraError "what: the kernel refuses text: reason"."""
    try:
        files.write(path, text)
    except OSError as problem:
        if problem.errno not in _REFUSALS:
            raise
        raise refusal(what, text, problem) from None


def refusal(what: str, text: str, problem: OSError) -> OrchestraError:
    reason = os.strerror(problem.errno or 0).lower()
    return OrchestraError(f'{what}: the kernel refuses "{text}" ({reason})', hint=_hint(what, problem))


def _hint(what: str, problem: OSError) -> str | None:
    if what.startswith("cpuset"):
        return "see /sys/devices/system/cpu/online and /sys/devices/system/node/online for what there is"
    if what in ("io weight", "blkio weight"):
        return "a weight is from 10 to 1000"
    if what.startswith(("io ", "blkio ")):
        return "name a whole disk, not a partition or another device"
    if what.startswith("realtime"):
        return "the cgroups above must be given realtime, too"
    if what == "memory limit" and problem.errno == errno.EBUSY:
        return "more memory than that is in use"
    return None


def weight(
    folder: str,
    choices: Sequence[tuple[str, str]],
    what: str,
    warnings: list[str],
    *,
    disks: str = "/sys/block",
) -> None:
    """A weight for all disks into each of the files (name, text) that exist; a warning where that changes
    nothing."""
    found = [(name, text) for name, text in choices if files.exists(f"{folder}/{name}")]
    for name, text in found:
        put(f"{folder}/{name}", text, what)
    if not found:
        warnings.append(f"{what}: the kernel has no {' and no '.join(name for name, _ in choices)} here")
    elif not _heeded(folder, disks):
        warnings.append(f"{what}: no disk uses the scheduler bfq, nor is iocost switched on for one")


def device_weight(folder: str, choices: Sequence[tuple[str, str]], what: str, warnings: list[str]) -> None:
    """The same for one disk; the kernel refuses where the disk has no use for it."""
    found = [(name, text) for name, text in choices if files.exists(f"{folder}/{name}")]
    if not found:
        warnings.append(f"{what}: the kernel has no {' and no '.join(name for name, _ in choices)} here")
        return
    heeded = False
    for name, text in found:
        try:
            files.write(f"{folder}/{name}", text)
            heeded = True
        except OSError as problem:
            if problem.errno != errno.EOPNOTSUPP:
                raise refusal(what, text, problem) from None
    if not heeded:
        device = found[0][1].partition(" ")[0]
        warnings.append(
            f"{what}: device {device} does not use the scheduler bfq, nor is iocost switched on for it"
        )


def _heeded(folder: str, disks: str) -> bool:
    """Whether a weight means anything to any disk of this machine."""
    root = folder
    while root not in ("/", ""):
        if "enable=1" in files.read_or(f"{root}/io.cost.qos"):
            return True
        root = os.path.dirname(root)
    try:
        names = os.listdir(disks)
    except OSError:
        return True  # cannot tell
    return any("[bfq]" in files.read_or(f"{disks}/{name}/queue/scheduler") for name in names)
