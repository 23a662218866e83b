"""The container's view of its own cgroups at /sys/fs/cgroup: binds of its directories, whatever the version.

No cgroup filesystem is mounted anew, so it works in user namespaces, needs no wait for the process to
be inside, and shows nothing but the container's own part.
"""

from __future__ import annotations

import os

from orchestra.linux import constants as C
from orchestra.linux import fs
from orchestra.linux import mount as mounting
from orchestra.runtime import mountoptions
from orchestra.runtime.mounts import Mount, check_target
from orchestra.runtime.problems import StepError


def apply(mount: Mount, root_fd: int, places: list[tuple[str, str]], unified: str) -> None:
    set_, clear = mountoptions.attributes(mount.words.flags)
    try:
        target = fs.make_inside(root_fd, mount.destination)
        try:
            check_target(target, mount.destination, proc=False)
            if unified:
                _bind(unified, target, set_, clear)
            else:
                _separate(mount, root_fd, target, places, set_, clear)
        finally:
            os.close(target)
    except OSError as problem:
        raise StepError.of(mount.describe(), problem) from None


def _separate(
    mount: Mount, root_fd: int, target: int, places: list[tuple[str, str]], set_: int, clear: int
) -> None:
    """A tmpfs with a directory for each hierarchy, and links for joined controllers."""
    tree = mounting.filesystem(
        "tmpfs",
        [("mode", "755"), ("source", "tmpfs")],
        C.MOUNT_ATTR_NOSUID | C.MOUNT_ATTR_NODEV | C.MOUNT_ATTR_NOEXEC,
    )
    try:
        mounting.attach(tree, target)
        for name, place in places:
            if not os.path.isdir(place):
                continue
            os.mkdir(name, 0o755, dir_fd=tree)
            below = fs.open_inside(root_fd, f"{mount.destination}/{name}")
            try:
                _bind(place, below, set_, clear)
            finally:
                os.close(below)
            if "," in name:
                for word in name.split(","):
                    os.symlink(name, word, dir_fd=tree)
        if set_ & C.MOUNT_ATTR_RDONLY:
            mounting.set_attributes(tree, set_=C.MOUNT_ATTR_RDONLY)
    finally:
        os.close(tree)


def _bind(place: str, target: int, set_: int, clear: int) -> None:
    tree = mounting.clone_tree(place, recursive=False)
    try:
        mounting.set_attributes(tree, set_=set_, clear=clear, propagation=C.MS_PRIVATE)
        mounting.attach(tree, target)
    finally:
        os.close(tree)
