"""The root of a container: propagation, the root mount, covered paths, changing over to it.

Everything up to ``change`` happens while the host's root and its trusted /proc are still there, and
works on descriptors inside the new root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from orchestra.linux import calls, fs, procfs, userns
from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.runtime import mounts
from orchestra.runtime.mounts import Mount
from orchestra.runtime.problems import StepError


def isolate(propagation: str) -> None:
    """Take the new mount namespace out of the host's propagation: first slave, so that nothing goes
    out, then what the configuration asks for."""
    kind = mounting.PROPAGATION.get(propagation, C.MS_SLAVE | C.MS_REC)
    if not kind & (C.MS_SHARED | C.MS_UNBINDABLE):
        calls.mount(None, "/", None, C.MS_SLAVE | C.MS_REC)
    if kind & C.MS_PRIVATE:
        calls.mount(None, "/", None, C.MS_PRIVATE | C.MS_REC)


def mount_root(
    path: str, overlay: Mount | None, maps: tuple[userns.Map, userns.Map] | None, propagation: str = ""
) -> int:
    """Mount the root at ``path`` (an overlay, or the directory itself) and open it."""
    try:
        return _mount_root(path, overlay, maps, propagation)
    except OSError as problem:
        raise StepError.of(f"mount the root {path}", problem) from None


def _mount_root(
    path: str, overlay: Mount | None, maps: tuple[userns.Map, userns.Map] | None, propagation: str
) -> int:
    target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if propagation.endswith("shared"):
            _make_parent_private(target)
        if overlay is None:
            tree = mounting.clone_tree("", dir_fd=target, recursive=True)
            try:
                mounting.set_attributes(tree, propagation=C.MS_PRIVATE, recursive=True)
                mounting.attach(tree, target)
            finally:
                os.close(tree)
        elif overlay.shifted and maps:
            _shifted_overlay(overlay, target, maps)
        elif overlay.bind:
            tree = mounts.open_source(overlay)
            try:
                mounting.attach(tree, target)
            finally:
                os.close(tree)
        else:
            mounts.mount_at(overlay.fstype, overlay.source, target, overlay.words.flags, overlay.words.data)
    finally:
        os.close(target)
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def unlock_root() -> int:
    """In a new user namespace the mounts from outside are locked in their places; a copy of the root (the
    current directory) on top of it is our own. Its descriptor."""
    below = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = mounting.clone_tree("", dir_fd=below, recursive=True)
        mounting.attach(tree, below)
    except OSError as problem:
        raise StepError.of("mount the root", problem) from None
    finally:
        os.close(below)
    return tree


def _make_parent_private(target: int) -> None:
    """pivot_root and move refuse a shared parent; the mount above ``target`` may be it."""
    path = os.readlink(mounting.fd_path(target))
    best = max(
        (mount for mount in procfs.mounts() if _below(path, mount.target)),
        key=lambda mount: len(mount.target),
        default=None,
    )
    if best and any(word.startswith("shared:") for word in best.propagation):
        calls.mount(None, best.target, None, C.MS_PRIVATE)


def _below(path: str, place: str) -> bool:
    return place == "/" or path == place or path.startswith(place + "/")


def _shifted_overlay(overlay: Mount, target: int, maps: tuple[userns.Map, userns.Map]) -> None:
    """An overlay whose layers are seen through the container's id map: files of root on disk belong to
    the container's root inside, and what the container makes belongs to root on disk."""
    trees: dict[str, int] = {}
    options: list[str] = []
    try:
        with userns.temporary(*maps) as namespace:
            for word in overlay.words.data:
                key, separator, value = word.partition("=")
                if key == "lowerdir":
                    value = ":".join(
                        _shifted(layer, namespace, trees) for layer in mounts.split_layers(value)
                    )
                elif key in ("upperdir", "workdir"):
                    # one mount for both: the overlay wants them on the same one
                    parent, name = os.path.split(value)
                    value = f"{_shifted(parent, namespace, trees)}/{name}"
                options.append(f"{key}{separator}{value}")
        # the overlay works on its layers with the rights of who mounts it: that must be somebody whom
        # the map knows
        calls.set_filesystem_ids(_outside(maps[0]), _outside(maps[1]))
        try:
            mounts.mount_overlay(overlay.source, target, overlay.words.flags, options)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            with _attached(trees):
                mounts.mount_overlay(overlay.source, target, overlay.words.flags, options)
        finally:
            calls.set_filesystem_ids(0, 0)
    finally:
        for tree in trees.values():
            os.close(tree)


@contextmanager
def _attached(trees: dict[str, int]) -> Iterator[None]:
    """Older kernels (6.1) take layers of attached mounts only: for the moment each goes on top of its own
    directory in this mount namespace. The descriptors name them as before; the overlay keeps copies."""
    done: list[int] = []
    try:
        for path, tree in trees.items():
            place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                mounting.attach(tree, place)
            finally:
                os.close(place)
            done.append(tree)
        yield
    finally:
        for tree in reversed(done):
            calls.umount2(mounting.fd_path(tree), C.MNT_DETACH)


def _outside(entries: userns.Map) -> int:
    """The id outside that is 0 inside (or the first that is mapped at all)."""
    return next((outside for inside, outside, _ in entries if inside == 0), entries[0][1] if entries else 0)


def _shifted(path: str, namespace: int, trees: dict[str, int]) -> str:
    if path not in trees:
        trees[path] = mounting.clone_tree(path, recursive=False)
        mounting.set_attributes(trees[path], set_=C.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    return mounting.fd_path(trees[path])


# Covering paths


def mask(root_fd: int, paths: list[str]) -> None:
    """Directories get an empty read-only tmpfs, files the host's /dev/null. What is not there stays so."""
    null = host_null()
    empty = -1
    try:
        for path in paths:
            target = _covered(root_fd, path)
            if target < 0:
                continue
            try:
                if not stat.S_ISDIR(os.fstat(target).st_mode):
                    calls.mount(mounting.fd_path(null), mounting.fd_path(target), None, C.MS_BIND)
                elif empty < 0:
                    empty = mounting.filesystem(
                        "tmpfs",
                        [("nr_blocks", "1"), ("nr_inodes", "2"), ("mode", "555"), ("ro", None)],
                        C.MOUNT_ATTR_RDONLY,
                    )
                    mounting.attach(empty, target)
                else:
                    calls.mount(mounting.fd_path(empty), mounting.fd_path(target), None, C.MS_BIND)
            except OSError as problem:
                raise StepError.of(f"mask {path}", problem) from None
            finally:
                os.close(target)
    finally:
        os.close(null)
        if empty >= 0:
            os.close(empty)


def protect(root_fd: int, paths: list[str]) -> None:
    """Make these paths read-only, with all mounts below."""
    for path in paths:
        target = _covered(root_fd, path)
        if target < 0:
            continue
        try:
            mounting.bind_onto_self(target, set_=C.MOUNT_ATTR_RDONLY)
        except OSError as problem:
            raise StepError.of(f"make {path} read-only", problem) from None
        finally:
            os.close(target)


def _covered(root_fd: int, path: str) -> int:
    """-1 when there is no such path. Below /proc and /sys no symbolic link is followed."""
    strict = path.startswith(("/proc/", "/sys/"))
    try:
        return fs.open_inside(root_fd, path, follow=not strict)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return -1
        raise StepError.of(f"cover {path}", problem) from None


def host_null() -> int:
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != os.makedev(1, 3):
        os.close(fd)
        raise StepError("mask", errno.ENODEV, "/dev/null", "the host's /dev/null is not the null device")
    return fd


def make_readonly(root_fd: int) -> None:
    try:
        mounting.set_attributes(root_fd, set_=C.MOUNT_ATTR_RDONLY)
    except OSError as problem:
        raise StepError.of("make the root read-only", problem) from None


# Changing over


def change(root_fd: int, *, pivot: bool, propagation: str) -> None:
    """The new root becomes ``/`` and the old one is gone."""
    os.fchdir(root_fd)
    if not (pivot and _pivot(root_fd)):
        _move(root_fd)
    os.chdir("/")
    kind = mounting.PROPAGATION.get(propagation, 0)
    if kind & (C.MS_SHARED | C.MS_SLAVE | C.MS_UNBINDABLE):
        calls.mount(None, "/", None, kind)


def _pivot(root_fd: int) -> bool:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            calls.pivot_root(".", ".")
        except OSError as problem:
            if problem.errno == errno.EINVAL:
                return False  # the host's root is an initramfs
            raise StepError.of("pivot_root", problem) from None
        # slave first: the detaching must not reach the host
        os.fchdir(old)
        calls.mount(None, ".", None, C.MS_SLAVE | C.MS_REC)
        calls.umount2(".", C.MNT_DETACH)
        return True
    finally:
        os.close(old)


def _move(root_fd: int) -> None:
    """Without pivot_root: take the host's other mounts away as far as possible, then put the root on top."""
    own = os.readlink(mounting.fd_path(root_fd))
    for mount in procfs.mounts():
        if mount.fstype in ("proc", "sysfs") and not _below(mount.target, own) and mount.target != "/":
            try:
                calls.mount(None, mount.target, None, C.MS_PRIVATE | C.MS_REC)
                calls.umount2(mount.target, C.MNT_DETACH)
            except OSError:
                continue
    try:
        calls.mount(".", "/", None, C.MS_MOVE)
        os.chroot(".")
    except OSError as problem:
        raise StepError.of("move the root", problem) from None
