"""Whose ids files have on disk, where the kernel cannot map the ids of a mount: the layer of a container and the
volumes are given to the range of the container that starts, and back when somebody needs them as they are inside.

Beside each such tree lies a marker, which is JSON: ``{"now": ids, "next": ids}`` while owners are being changed
(it is gone over again after a crash), ``{"now": ids}`` afterwards; no marker, no shift.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.images.shifted import Ids, move_tree
from orchestra.linux import fs

_CODE = (
    "import sys; sys.path.insert(0, {!r}); from orchestra.engine.ownership import main; main(sys.argv[1:])"
)
_PROBE = 0x6FFF0000  # an id for the probe: a throw-away file has it for a moment


def now(marker: Path) -> Ids | None:
    """The range whose ids the tree has."""
    return _read(marker)[0]


def _read(marker: Path) -> tuple[Ids | None, bool, Ids | None]:
    """(range, whether another one is being made, that one)."""
    try:
        data = json.loads(marker.read_bytes())
    except FileNotFoundError:
        return None, False, None
    except ValueError:
        raise OrchestraError(f"the record of owners {marker} cannot be read") from None
    return _ids(data.get("now")), "next" in data, _ids(data.get("next"))


def _ids(value: Any) -> Ids | None:
    return (int(value[0]), int(value[1]), int(value[2])) if value else None


def bring(tree: Path, marker: Path, wanted: Ids | None) -> None:
    """Give everything of ``tree`` to the range (None: the ids as they are inside). Nobody else may use it."""
    current, unfinished, towards = _read(marker)
    if unfinished:
        current = _change(tree, marker, current, towards)
    if current == wanted:
        return
    if current and wanted and _touch(current, wanted):
        current = _change(tree, marker, current, None)
    _change(tree, marker, current, wanted)


def _touch(one: Ids, other: Ids) -> bool:
    return any(one[k] < other[k] + other[2] and other[k] < one[k] + one[2] for k in (0, 1))


def _change(tree: Path, marker: Path, old: Ids | None, new: Ids | None) -> Ids | None:
    fs.write_file(marker, json.dumps({"now": old, "next": new}).encode())
    try:
        move_tree(tree, old, new)
    except OSError as problem:
        raise OrchestraError(f"cannot change the owners in {tree}: {problem.strerror}") from None
    if new is None:
        marker.unlink(missing_ok=True)
    else:
        fs.write_file(marker, json.dumps({"now": new}).encode())
    return new


# whether all that is needed at all


def can_map(layers: Path, containers: Path) -> bool:
    """Whether the kernel mounts an overlay of id-mapped layers from these directories. Found out once for each
    filesystem, by a helper process that mounts one."""
    for path in (layers, containers):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _probed(str(layers), str(containers), os.stat(layers).st_dev, os.stat(containers).st_dev)


@cache
def _probed(layers: str, containers: str, *_devices: int) -> bool:
    places = [tempfile.mkdtemp(prefix=".probe-", dir=path) for path in (layers, containers)]
    try:
        command = [sys.executable, "-I", "-c", _CODE.format(str(Path(__file__).parents[2])), *places]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        return done.returncode == 0
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def main(words: list[str]) -> None:
    """The helper: exit status 0 when it works. Its mounts end with it."""
    from orchestra.linux import calls
    from orchestra.linux import constants as C
    from orchestra.runtime import mounts, rootfs

    lower, folder = words
    for name in ("upper", "work", "root"):
        os.mkdir(f"{folder}/{name}")
    options = [f"lowerdir={lower}", f"upperdir={folder}/upper", f"workdir={folder}/work", "idmap"]
    entry = {"destination": "/", "type": "overlay", "source": "overlay", "options": options}
    calls.unshare(C.CLONE_NEWNS)
    rootfs.isolate("private")
    ids = [(0, _PROBE, 1)]
    try:
        root = rootfs.mount_root(f"{folder}/root", mounts.parse([entry], folder)[0], (ids, ids))
        made = os.stat(f"/proc/self/fd/{root}")
    except (OrchestraError, OSError):
        sys.exit(1)
    sys.exit(0 if made.st_uid == _PROBE else 1)


__all__ = ["bring", "can_map", "main", "now"]
