"""Mounts and devices of a quick start: what ``mounts``, ``cgroupmount``, ``devices`` and ``rootfs`` do in the
container's init, as calls of a program (see ``quick``).

The root and the sources of bind mounts are detached trees that the parent makes; it also makes the missing
mount points, in the root before anything is mounted there. The targets are opened by the new process. No
target is reached across another mount: so none is inside /proc, and none outside of the root.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from orchestra.linux import constants as C
from orchestra.linux import fs
from orchestra.linux import mount as mounting
from orchestra.linux.program import NR, Program, Slot, Values
from orchestra.runtime import defaults, devices, mountoptions, mounts
from orchestra.runtime.mounts import Mount
from orchestra.runtime.plan import Plan
from orchestra.runtime.quick_covers import tmpfs

_IN_ROOT = C.RESOLVE_IN_ROOT | C.RESOLVE_NO_MAGICLINKS
_STRAIGHT = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_SYMLINKS | C.RESOLVE_NO_MAGICLINKS
_OPTION_MAX = 255
_FOLDER = os.O_PATH | os.O_DIRECTORY


def fits(plan: Plan) -> bool:
    """Whether all mounts and devices are of the usual kinds."""
    destinations = [mount.destination for mount in plan.mounts]
    return (
        len(set(destinations)) == len(destinations)
        and all(_usual(mount) for mount in plan.mounts)
        and any(mount.destination == "/dev" and mount.fstype == "tmpfs" for mount in plan.mounts)
        and all(os.path.dirname(device.path) == "/dev" for device in plan.devices)
        and (plan.root_mount is None or _usual_root(plan.root_mount))
    )


def _usual(mount: Mount) -> bool:
    words = mount.words
    return not (
        words.idmap
        or words.tmpcopyup
        or words.flags & C.MS_REMOUNT
        or any(kind & (C.MS_SHARED | C.MS_UNBINDABLE) for kind in words.propagation)
        or (not mount.bind and (words.propagation or words.recursive_set or mount.fstype == "overlay"))
        or mount.destination == "/"
        or mount.destination.startswith("/proc/")
    )


def _usual_root(mount: Mount) -> bool:
    return mount.fstype == "overlay" and not mount.shifted and not mount.words.propagation


def root_tree(plan: Plan) -> int:
    """The root, not mounted anywhere yet."""
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
            if len(os.fsencode(value)) <= _OPTION_MAX:
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


class Placed:
    """A mount, its values and where it goes. ``above`` is the destination of the innermost mount around it, or
    ''. ``things`` are, by kind, the options of a filesystem, the tree of a bind mount, the (names and) places
    of cgroups."""

    __slots__ = ("above", "directory", "mount", "names", "things")

    def __init__(self, mount: Mount, above: str) -> None:
        self.mount = mount
        self.above = above
        self.directory = True
        self.names: tuple[str, ...] = ()
        self.things: list[Slot] = []

    def shape(self) -> object:
        mount, words = self.mount, self.mount.words
        return (
            mount.destination, mount.fstype, "" if mount.bind else mount.source, words.flags, self.above,
            self.directory, self.names, len(self.things),
        )  # fmt: skip


def gather(values: Values, plan: Plan, root: int) -> list[Placed]:
    """Open and make what the mounts need; ``root`` is the parent's descriptor of the root."""
    found: list[Placed] = []
    for mount in plan.mounts:
        around = (other.mount.destination for other in found)
        inside = [place for place in around if mount.destination.startswith(place + "/")]
        placed = Placed(mount, max(inside, key=len, default=""))
        found.append(placed)
        if is_cgroup(mount):
            _gather_cgroups(values, plan, placed)
        elif mount.bind:
            _gather_bind(values, placed)
        mode = 0 if placed.above else _ensure(root, placed)
        if not mount.bind and not is_cgroup(mount):
            _gather_options(values, placed, mode)
    return found


def is_cgroup(mount: Mount) -> bool:
    return mount.fstype in ("cgroup", "cgroup2") and not mount.bind


def _ensure(root: int, placed: Placed) -> int:
    """Make the mount point; its mode."""
    fd = fs.make_inside(root, placed.mount.destination, directory=placed.directory)
    try:
        return stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _gather_options(values: Values, placed: Placed, mode: int) -> None:
    data = list(placed.mount.words.data)
    if placed.mount.fstype == "tmpfs" and mode and not any(word.startswith("mode=") for word in data):
        data.append(f"mode={mode:o}")
    if data:
        placed.things.append(values.text(os.fsencode(",".join(data))))


def _gather_bind(values: Values, placed: Placed) -> None:
    tree = mounts.open_source(placed.mount)
    try:
        placed.directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        mounts.set_bind_attributes(placed.mount.words, tree)
        mounts.propagate(placed.mount.words, tree)
        placed.things.append(values.fd(tree))
    finally:
        os.close(tree)


def _gather_cgroups(values: Values, plan: Plan, placed: Placed) -> None:
    if plan.cgroup_unified:
        placed.things.append(values.text(os.fsencode(plan.cgroup_unified)))
        return
    there = [(name, place) for name, place in plan.cgroup_places if os.path.isdir(place)]
    placed.names = tuple(name for name, _ in there)
    placed.things += [values.text(os.fsencode(place)) for _, place in there]


def shape(plan: Plan, placed: list[Placed]) -> object:
    """What the calls of ``write`` and ``quick_covers.cover`` depend on besides the values."""
    return (
        tuple(one.shape() for one in placed), tuple(plan.devices), tuple(plan.masked), tuple(plan.protected)
    )  # fmt: skip


def give_up(plan: Plan) -> None:
    """After a start that failed: an overlay that was mounted ``volatile`` is refused until its mark is taken
    away (it stands for writes that may be lost when the machine fails)."""
    words = plan.root_mount.words.data if plan.root_mount else []
    if "volatile" in words:
        for place in (word.removeprefix("workdir=") for word in words if word.startswith("workdir=")):
            with suppress(OSError):
                fs.remove_tree(f"{place}/work/incompat")


def write(program: Program, plan: Plan, inside: Slot, placed: list[Placed]) -> None:
    """All mounts, in their order, and the devices."""
    done = _Places(program, inside)
    for one in placed:
        target = done.target(one)
        if is_cgroup(one.mount):
            _cgroups(program, one, target, done)
        elif one.mount.bind:
            program.attach(one.things[0], target)
            done.tops[one.mount.destination] = one.things[0]
        else:
            _filesystem(program, one, target)
    _devices(program, plan, done)


class _Places:
    """Descriptors of what is mounted already."""

    def __init__(self, program: Program, inside: Slot) -> None:
        self.program, self.inside = program, inside
        self.tops: dict[str, Slot] = {}

    def target(self, placed: Placed) -> Slot:
        """The descriptor of a mount's target."""
        destination, above = placed.mount.destination, placed.above
        if not above:
            flags = _IN_ROOT | C.RESOLVE_NO_XDEV
            return self.program.open(self.inside, _relative(destination), os.O_PATH, flags)
        rest = destination.removeprefix(above + "/")
        if above == "/dev":
            self._make(rest, placed.directory)
        return self.program.open(self.top(above), rest.encode(), os.O_PATH, _STRAIGHT)

    def _make(self, name: str, directory: bool) -> None:
        """In a fresh /dev."""
        if "/" in name:
            raise ValueError("more than one level below /dev")
        dev, exists = self.top("/dev"), (errno.EEXIST,)
        if directory:
            self.program.call(NR.mkdirat, dev, name.encode(), 0o755, soft=exists)
        else:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self.program.call(NR.openat, dev, name.encode(), flags, 0o644, soft=exists)

    def top(self, destination: str) -> Slot:
        """What is mounted there, opened."""
        found = self.tops.get(destination)
        if found is None:
            flags = _IN_ROOT | C.RESOLVE_NO_SYMLINKS
            found = self.program.open(self.inside, _relative(destination), _FOLDER, flags)
            self.tops[destination] = found
        return found


def _relative(path: str) -> bytes:
    return os.fsencode(path.lstrip("/") or ".")


def _filesystem(program: Program, placed: Placed, target: Slot) -> None:
    mount = placed.mount
    data = placed.things[0] if placed.things else 0
    program.call(NR.fchdir, target)
    program.call(NR.mount, mount.source.encode(), b".", mount.fstype.encode(), mount.words.flags, data)


def _cgroups(program: Program, placed: Placed, target: Slot, done: _Places) -> None:
    set_, clear = mountoptions.attributes(placed.mount.words.flags)
    if placed.things and not placed.names:
        _cgroup(program, placed.things[0], target, set_, clear)
        return
    locked = C.MOUNT_ATTR_NOSUID | C.MOUNT_ATTR_NODEV | C.MOUNT_ATTR_NOEXEC
    tree = done.tops[placed.mount.destination] = tmpfs(
        program, [("mode", "755"), ("source", "tmpfs")], locked
    )
    program.attach(tree, target)
    for name, place in zip(placed.names, placed.things, strict=True):
        program.call(NR.mkdirat, tree, name.encode(), 0o755)
        _cgroup(program, place, program.open(tree, name.encode(), os.O_PATH, _STRAIGHT), set_, clear)
        for word in name.split(",") if "," in name else ():
            program.call(NR.symlinkat, name.encode(), tree, word.encode())
    if set_ & C.MOUNT_ATTR_RDONLY:
        program.set_attributes(tree, set_=C.MOUNT_ATTR_RDONLY)


def _cgroup(program: Program, place: Slot, target: Slot, set_: int, clear: int) -> None:
    flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC
    tree = program.call(NR.open_tree, C.AT_FDCWD, place, flags, keep=True)
    program.set_attributes(tree, set_=set_, clear=clear, propagation=C.MS_PRIVATE)
    program.attach(tree, target)


def _devices(program: Program, plan: Plan, done: _Places) -> None:
    """Into the fresh /dev; the umask is 0 here."""
    dev = done.top("/dev")
    for device in plan.devices:
        name = os.path.basename(device.path).encode()
        number = os.makedev(device.major, device.minor)
        program.call(NR.mknodat, dev, name, devices.TYPES[device.kind] | device.mode, number)
        if device.uid or device.gid:
            program.call(NR.fchownat, dev, name, device.uid, device.gid, C.AT_SYMLINK_NOFOLLOW)
    for target, path in defaults.DEVICE_LINKS:
        link = os.path.basename(path).encode()
        program.call(NR.symlinkat, target.encode(), dev, link, soft=(errno.EEXIST,))
