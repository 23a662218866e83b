"""The root of a quick start, before it is mounted anywhere, and what is made in it: mount points and the working
directory. What ``rootfs.mount_root`` and ``fs.make_inside`` do, as calls of a program (see ``quick``).

The new process makes the root itself, still in the parent's mount namespace. Where the parent must look into it
(the mode of a directory, the home of a user) or knows that it has to be made in another way, it makes the tree.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from contextlib import suppress

from orchestra.linux import calls, fs
from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.linux.program import NR, Program, Slot, Values
from orchestra.runtime import mountoptions, mounts
from orchestra.runtime.mounts import Mount
from orchestra.runtime.plan import Plan

IN_ROOT = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS
OPTION_MAX = 255


def fits(overlay: Mount | None) -> bool:
    return overlay is None or (
        overlay.fstype == "overlay" and not overlay.shifted and not overlay.words.propagation
    )


class Root:
    """``tree`` is the parent's descriptor of it, or -1; ``looks`` says that one is needed."""

    def __init__(self, values: Values, plan: Plan, *, looks: bool) -> None:
        self.place = values.text(os.fsencode(plan.root))
        self.tree = -1
        self.slot: Slot | None = None
        self.options: list[tuple[str, Slot | None]] = []
        overlay = plan.root_mount
        found = mounts.overlay_options(overlay.words.data) if overlay else []
        if looks or (overlay and not (_short(found) and _layer_by_layer())):
            self.tree = _tree(plan)
            self.slot = values.fd(self.tree, own=True)
        else:
            for key, value in found:
                self.options.append((key, None if value is None else values.text(os.fsencode(value))))
        self.attributes = mountoptions.attributes(overlay.words.flags)[0] if overlay else 0

    def shape(self) -> object:
        keys = tuple((key, value is None) for key, value in self.options)
        return self.slot is None, keys, self.attributes

    def mode(self, path: str) -> int | None:
        """Of a directory in it; None when there is none."""
        try:
            fd = fs.open_inside(self.tree, path)
        except FileNotFoundError:
            return None
        try:
            return stat.S_IMODE(os.fstat(fd).st_mode)
        finally:
            os.close(fd)

    def write(self, program: Program) -> Slot:
        """Make the tree."""
        if self.slot is not None:
            return self.slot
        if not self.options:
            flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC | C.AT_RECURSIVE
            tree = program.call(NR.open_tree, C.AT_FDCWD, self.place, flags, keep=True)
            program.set_attributes(tree, C.AT_RECURSIVE, propagation=C.MS_PRIVATE)
            return tree
        context = program.call(NR.fsopen, b"overlay", C.FSOPEN_CLOEXEC, keep=True)
        for key, value in self.options:
            kind = C.FSCONFIG_SET_FLAG if value is None else C.FSCONFIG_SET_STRING
            program.call(NR.fsconfig, context, kind, key.encode(), 0 if value is None else value, 0)
        program.call(NR.fsconfig, context, C.FSCONFIG_CMD_CREATE, 0, 0, 0)
        tree = program.call(NR.fsmount, context, C.FSMOUNT_CLOEXEC, self.attributes, keep=True)
        program.call(NR.close, context)
        return tree


def _short(options: list[tuple[str, str | None]]) -> bool:
    return all(value is None or len(os.fsencode(value)) <= OPTION_MAX for _, value in options)


@functools.cache
def _layer_by_layer() -> bool:
    """Whether overlayfs knows ``lowerdir+``."""
    context = calls.fsopen("overlay")
    try:
        calls.fsconfig(context, C.FSCONFIG_SET_STRING, "lowerdir+", "/")
    except OSError:
        return False
    finally:
        os.close(context)
    return True


def _tree(plan: Plan) -> int:
    overlay = plan.root_mount
    if overlay is not None:
        try:
            return mounts.overlay_tree(overlay.words.data, overlay.words.flags)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
        return _overlay_by_descriptors(overlay)  # a kernel without lowerdir+
    tree = mounting.clone_tree(plan.root, recursive=True)
    mounting.set_attributes(tree, propagation=C.MS_PRIVATE, recursive=True)
    return tree


def _overlay_by_descriptors(overlay: Mount) -> int:
    """An option takes 255 bytes there: where that is too little, directories are opened and called by their
    descriptors. What does not fit even so is for the careful way."""
    opened: list[int] = []

    def short(path: str) -> str:
        opened.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return mounting.fd_path(opened[-1])

    options: list[tuple[str, str | None]] = [("source", "overlay")]
    try:
        for word in overlay.words.data:
            key, separator, value = word.partition("=")
            if len(os.fsencode(value)) <= OPTION_MAX:
                pass
            elif key == "lowerdir":
                value = ":".join(short(layer) for layer in mounts.split_layers(value))
            elif key in ("upperdir", "workdir"):
                value = short(value)
            options.append((key, value if separator else None))
        return mounting.filesystem("overlay", options, mountoptions.attributes(overlay.words.flags)[0])
    finally:
        for fd in opened:
            os.close(fd)


def give_up(plan: Plan) -> None:
    """After a start that failed: an overlay that was mounted ``volatile`` is refused until its mark is taken
    away (it stands for writes that may be lost when the machine fails)."""
    words = plan.root_mount.words.data if plan.root_mount else []
    if "volatile" in words:
        for place in (word.removeprefix("workdir=") for word in words if word.startswith("workdir=")):
            with suppress(OSError):
                fs.remove_tree(f"{place}/work/incompat")


class Maker:
    """Makes what is missing below the root, as ``fs.make_inside`` does. What that does for a symbolic link that
    leads nowhere, is for the careful way."""

    def __init__(self, program: Program, root: Slot) -> None:
        self.program, self.root = program, root
        self._levels: list[Slot] = []

    def make(self, path: str, *, directory: bool = True) -> None:
        parts = [part for part in path.split("/") if part and part != "."]
        if not parts:
            return
        self._open(parts, jump=3 * len(parts) - 1 if len(parts) > 1 else 1)
        here = self.root
        for index, part in enumerate(parts):
            below, last = self._level(index), index == len(parts) - 1
            if len(parts) > 1:
                self._open(parts[: index + 1], keep=below, jump=1 if last else 2)
            self._one(here, os.fsencode(part), directory or not last)
            flags = os.O_PATH | os.O_NOFOLLOW
            strict = C.RESOLVE_BENEATH | C.RESOLVE_NO_SYMLINKS
            if not last:
                self.program.open(here, os.fsencode(part), flags, strict, keep=below)
            here = below

    def _open(self, parts: list[str], *, jump: int, keep: Slot | bool = False) -> None:
        path = os.fsencode("/".join(parts))
        self.program.open(self.root, path, os.O_PATH, IN_ROOT, keep=keep, soft=(errno.ENOENT,), jump=jump)

    def _one(self, folder: Slot, name: bytes, directory: bool) -> None:
        if directory:
            self.program.call(NR.mkdirat, folder, name, 0o755)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.program.call(NR.openat, folder, name, flags, 0o644)

    def _level(self, index: int) -> Slot:
        while len(self._levels) <= index:
            self._levels.append(self.program.spare())
        return self._levels[index]
