"""Device nodes and the links of /dev.

In a user namespace nobody may make nodes: there the host's own are bound in, after a look at what they
are. All names are resolved inside the root.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import fs
from orchestra.linux import mount as mounting
from orchestra.record import record
from orchestra.runtime import defaults
from orchestra.runtime.problems import StepError

TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


@record
class Device:
    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int

    def describe(self) -> str:
        return f"device {self.path} {self.kind} {self.major}:{self.minor}"


@functools.cache
def _usual() -> tuple[Device, ...]:
    return tuple(_parse([]))


def parse(entries: list[dict[str, Any]] | None) -> list[Device]:
    """Those of the configuration and the usual ones that it does not name itself."""
    return _parse(entries) if entries else list(_usual())


def _parse(entries: list[dict[str, Any]]) -> list[Device]:
    found = []
    for entry in entries:
        path, kind = os.path.normpath(str(entry.get("path") or "")), str(entry.get("type") or "")
        if not path.startswith("/"):
            raise OrchestraError(f"linux.devices: the path {path!r} must be absolute")
        if kind not in TYPES:
            raise OrchestraError(f"linux.devices: {path} has the unknown type {kind!r}")
        if kind != "p" and (entry.get("major") is None or entry.get("minor") is None):
            raise OrchestraError(f"linux.devices: {path} needs major and minor")
        mode = entry.get("fileMode")
        found.append(
            Device(
                path,
                kind,
                int(entry.get("major") or 0),
                int(entry.get("minor") or 0),
                0o666 if mode is None else int(mode) & 0o7777,
                int(entry.get("uid") or 0),
                int(entry.get("gid") or 0),
            )
        )
    named = {device.path for device in found}
    usual = [
        Device(path, kind, major, minor, mode, 0, 0)
        for path, kind, major, minor, mode in defaults.DEVICES
        if path not in named
    ]
    return usual + found


def apply(devices: list[Device], root_fd: int, *, bind: bool) -> None:
    """Make all nodes and the links of /dev."""
    fds: dict[str, int] = {}
    try:
        for device in devices:
            folder, name = os.path.split(device.path)
            try:
                if folder not in fds:
                    fds[folder] = fs.make_inside(root_fd, folder)
                if bind and device.kind != "p":
                    _bind(device, root_fd)
                else:
                    _make(device, fds[folder], name, root_fd)
            except OSError as problem:
                raise StepError.of(device.describe(), problem) from None
    finally:
        for fd in fds.values():
            os.close(fd)
    _links(root_fd)


def _make(device: Device, folder: int, name: str, root_fd: int) -> None:
    number = os.makedev(device.major, device.minor)
    try:
        os.mknod(name, TYPES[device.kind] | device.mode, number, dir_fd=folder)
    except PermissionError:
        return _bind(device, root_fd)  # without CAP_MKNOD
    except FileExistsError:
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        same = stat.S_IFMT(info.st_mode) == TYPES[device.kind] and (
            device.kind == "p" or info.st_rdev == number
        )
        if not same:
            raise
    os.chmod(name, device.mode, dir_fd=folder)
    if device.uid or device.gid:
        os.chown(name, device.uid, device.gid, dir_fd=folder, follow_symlinks=False)
    return None


def _bind(device: Device, root_fd: int) -> None:
    """The host's node of the same path, or else of the kernel's name for it, if it is the same device."""
    if _is_node(device, device.path):
        path = device.path
    else:
        path = _kernels_path(device)
    tree = mounting.clone_tree(path, recursive=False, follow=False)
    try:
        if not _same(device, os.fstat(tree)):
            raise OSError(errno.ENODEV, f"the host's {path} is another device", path)
        target = fs.make_inside(root_fd, device.path, directory=False)
        try:
            mounting.attach(tree, target)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _same(device: Device, info: os.stat_result) -> bool:
    return stat.S_IFMT(info.st_mode) == TYPES[device.kind] and info.st_rdev == os.makedev(
        device.major, device.minor
    )


def _is_node(device: Device, path: str) -> bool:
    try:
        return _same(device, os.lstat(path))
    except OSError:
        return False


def _kernels_path(device: Device) -> str:
    """/dev/NAME of the host, by sysfs; the container's own path where that knows none."""
    kind = "block" if device.kind == "b" else "char"
    try:
        with open(f"/sys/dev/{kind}/{device.major}:{device.minor}/uevent") as file:
            names = [line.strip().removeprefix("DEVNAME=") for line in file if line.startswith("DEVNAME=")]
    except OSError:
        names = []
    return f"/dev/{names[0]}" if names else device.path


def _links(root_fd: int) -> None:
    dev = fs.make_inside(root_fd, "/dev")
    try:
        for target, path in defaults.DEVICE_LINKS:
            name = os.path.basename(path)
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                if name == "ptmx":
                    _relink(dev, name, target)
            except OSError as problem:
                raise StepError.of(f"link {path}", problem) from None
    finally:
        os.close(dev)


def _relink(dev: int, name: str, target: str) -> None:
    """The host's ptmx in an image's /dev would open terminals of the host."""
    if stat.S_ISLNK(os.stat(name, dir_fd=dev, follow_symlinks=False).st_mode):
        return
    os.unlink(name, dir_fd=dev)
    os.symlink(target, name, dir_fd=dev)
