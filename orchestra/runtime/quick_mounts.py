"""Mounts and devices of a quick start: what ``mounts``, ``cgroupmount``, ``devices`` and ``rootfs`` do in the
container's init, as calls of a program (see ``quick``).

The sources of bind mounts become detached trees while the new process is still in the parent's mount namespace;
the missing mount points are made in the root before anything is mounted there. No target is reached across
another mount: so none is inside /proc, and none outside of the root.
"""

from __future__ import annotations

import errno
import functools
import operator
import os
import stat

from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.linux.program import NR, Program, Slot, Values
from orchestra.runtime import defaults, devices, mountoptions, mounts, quick_root
from orchestra.runtime.mounts import Mount
from orchestra.runtime.plan import Plan
from orchestra.runtime.quick_covers import tmpfs
from orchestra.runtime.quick_root import IN_ROOT, Maker, Root

_STRAIGHT = C.RESOLVE_BENEATH | C.RESOLVE_NO_XDEV | C.RESOLVE_NO_SYMLINKS | C.RESOLVE_NO_MAGICLINKS
_FIELDS = operator.attrgetter("path", "kind", "major", "minor", "mode", "uid", "gid")
_FOLDER = os.O_PATH | os.O_DIRECTORY


def fits(plan: Plan) -> bool:
    """Whether all mounts and devices are of the usual kinds."""
    destinations = [mount.destination for mount in plan.mounts]
    return (
        len(set(destinations)) == len(destinations)
        and all(_usual(mount) for mount in plan.mounts)
        and any(mount.destination == "/dev" and mount.fstype == "tmpfs" for mount in plan.mounts)
        and all(os.path.dirname(device.path) == "/dev" for device in plan.devices)
        and quick_root.fits(plan.root_mount)
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
        or (
            mount.destination == "/proc" and (mount.bind or mount.fstype != "proc")
        )  # its source is to be looked at
    )


def looks(plan: Plan) -> bool:
    """Whether the parent must look into the root: for the mode of a directory that a tmpfs covers."""
    return any(_takes_mode(mount) for mount in plan.mounts)


def _takes_mode(mount: Mount) -> bool:
    return mount.fstype == "tmpfs" and not any(word.startswith("mode=") for word in mount.words.data)


class Placed:
    """A mount, its values and where it goes. ``above`` is the destination of the innermost mount around it, or
    ''. ``things`` are the options of a filesystem, or the source of a bind mount: a path, or (``opened``) a
    descriptor. ``names`` are those of version 1 cgroups."""

    __slots__ = ("above", "directory", "mount", "names", "opened", "things")

    def __init__(self, mount: Mount, above: str) -> None:
        self.mount = mount
        self.above = above
        self.directory = True
        self.opened = False
        self.names: tuple[str, ...] = ()
        self.things: list[Slot] = []

    def shape(self) -> object:
        mount, words = self.mount, self.mount.words
        if mount.bind:
            changes = (words.cleared, words.recursive_set, words.recursive_clear, tuple(words.propagation))
            return mount.destination, words.flags, self.above, self.directory, self.opened, changes
        return (
            mount.destination, mount.fstype, mount.source, words.flags, self.above, self.names, len(self.things)
        )  # fmt: skip


def gather(values: Values, plan: Plan, root: Root, groups: list[str]) -> list[Placed]:
    """What the mounts need; ``groups`` are the names of the version 1 cgroups that the program knows."""
    found: list[Placed] = []
    above = _above(tuple([mount.destination for mount in plan.mounts]))
    for mount, around in zip(plan.mounts, above, strict=True):
        placed = Placed(mount, around)
        found.append(placed)
        if mount.bind:
            _gather_bind(values, placed)
        elif not is_cgroup(mount):
            _gather_options(values, placed, root)
        elif plan.cgroup_unified:
            placed.things.append(values.text(os.fsencode(plan.cgroup_unified)))
        else:
            placed.names = tuple(groups)
    return found


@functools.lru_cache(maxsize=32)
def _above(destinations: tuple[str, ...]) -> list[str]:
    """Of each the innermost of those before that it is inside of."""
    found = []
    for index, one in enumerate(destinations):
        around = [place for place in destinations[:index] if one.startswith(place + "/")]
        found.append(max(around, key=len, default=""))
    return found


def is_cgroup(mount: Mount) -> bool:
    return mount.fstype in ("cgroup", "cgroup2") and not mount.bind


def _gather_options(values: Values, placed: Placed, root: Root) -> None:
    data = placed.mount.words.data
    if placed.above != "/dev" and _takes_mode(placed.mount):
        if placed.above:
            raise ValueError("a tmpfs over a directory of another mount")
        mode = root.mode(placed.mount.destination)
        data = data if mode is None else [*data, f"mode={mode:o}"]
    if data:
        placed.things.append(values.text(os.fsencode(",".join(data))))


def _gather_bind(values: Values, placed: Placed) -> None:
    """Where others may change the path, it is opened here. That the source is a directory, or none, is only seen
    here; where it has changed when it is mounted, the mount fails."""
    source = placed.mount.source
    base, mark, rest = source.partition(mounting.OTHERS)
    if mark:
        fd = mounting.open_beneath(base or "/", rest)
        placed.opened = True
        placed.things.append(values.fd(fd, own=True))
        placed.directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    else:
        placed.things.append(values.text(os.fsencode(source)))
        placed.directory = stat.S_ISDIR(os.stat(source).st_mode)


def shape(plan: Plan, placed: list[Placed]) -> object:
    """What the calls of ``write`` and ``quick_covers.cover`` depend on besides the values."""
    return (
        tuple([one.shape() for one in placed]), tuple(map(_FIELDS, plan.devices)), tuple(plan.masked), tuple(plan.protected)
    )  # fmt: skip


def trees(program: Program, placed: list[Placed], groups: list[Slot]) -> dict[str, list[Slot]]:
    """Detached trees by the destinations of their mounts: the sources of bind mounts (see ``mounts.open_source``),
    and the cgroups of version 1, which ``groups`` are descriptors of. To be called in the parent's mount
    namespace."""
    found: dict[str, list[Slot]] = {}
    flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC | C.AT_EMPTY_PATH
    for one in placed:
        if one.mount.bind:
            found[one.mount.destination] = [_tree(program, one)]
        elif one.names:
            own = [program.call(NR.open_tree, group, b"", flags, keep=True) for group in groups]
            found[one.mount.destination] = own
    return found


def _tree(program: Program, placed: Placed) -> Slot:
    words = placed.mount.words
    flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC
    flags |= C.AT_RECURSIVE if words.flags & C.MS_REC else 0
    if placed.opened:
        tree = program.call(NR.open_tree, placed.things[0], b"", flags | C.AT_EMPTY_PATH, keep=True)
    else:
        tree = program.call(NR.open_tree, C.AT_FDCWD, placed.things[0], flags, keep=True)
    program.set_attributes(tree, C.AT_RECURSIVE, propagation=C.MS_SLAVE)
    for set_, clear, recursive in mounts.bind_attributes(words):
        program.set_attributes(tree, C.AT_RECURSIVE if recursive else 0, set_=set_, clear=clear)
    for kind in words.propagation:
        program.set_attributes(tree, C.AT_RECURSIVE if kind & C.MS_REC else 0, propagation=kind)
    return tree


def points(maker: Maker, placed: list[Placed]) -> None:
    """The mount points that are not inside of another mount."""
    for one in placed:
        if not one.above:
            maker.make(one.mount.destination, directory=one.directory)


def write(
    program: Program, plan: Plan, inside: Slot, placed: list[Placed], found: dict[str, list[Slot]]
) -> None:
    """All mounts, in their order, and the devices. ``found`` are their ``trees``."""
    done = _Places(program, inside)
    for one in placed:
        target = done.target(one)
        if is_cgroup(one.mount):
            _cgroups(program, one, target, done, found.get(one.mount.destination, []))
        elif one.mount.bind:
            tree = done.tops[one.mount.destination] = found[one.mount.destination][0]
            program.attach(tree, target)
        else:
            _filesystem(program, one, target)
    _devices(program, plan, done)


class _Places:
    """Descriptors of what is mounted already."""

    def __init__(self, program: Program, inside: Slot) -> None:
        self.program, self.inside = program, inside
        self.tops: dict[str, Slot] = {}
        self.spare = program.spare()

    def target(self, placed: Placed) -> Slot:
        """The descriptor of a mount's target."""
        destination, above = placed.mount.destination, placed.above
        if not above:
            flags = IN_ROOT | C.RESOLVE_NO_XDEV
            return self.program.open(self.inside, _relative(destination), os.O_PATH, flags, keep=self.spare)
        rest = destination.removeprefix(above + "/")
        if above == "/dev":
            self._make(rest, placed.directory)
        return self.program.open(self.top(above), rest.encode(), os.O_PATH, _STRAIGHT, keep=self.spare)

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
            flags = IN_ROOT | C.RESOLVE_NO_SYMLINKS
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


def _cgroups(program: Program, placed: Placed, target: Slot, done: _Places, own: list[Slot]) -> None:
    set_, clear = mountoptions.attributes(placed.mount.words.flags)
    if placed.things:
        flags = C.OPEN_TREE_CLONE | C.OPEN_TREE_CLOEXEC
        _cgroup(
            program,
            program.call(NR.open_tree, C.AT_FDCWD, placed.things[0], flags, keep=True),
            target,
            set_,
            clear,
        )
        return
    locked = C.MOUNT_ATTR_NOSUID | C.MOUNT_ATTR_NODEV | C.MOUNT_ATTR_NOEXEC
    tree = done.tops[placed.mount.destination] = tmpfs(
        program, [("mode", "755"), ("source", "tmpfs")], locked
    )
    program.attach(tree, target)
    for name, group in zip(placed.names, own, strict=True):
        program.call(NR.mkdirat, tree, name.encode(), 0o755)
        below = program.open(tree, name.encode(), os.O_PATH, _STRAIGHT, keep=done.spare)
        _cgroup(program, group, below, set_, clear)
        for word in name.split(",") if "," in name else ():
            program.call(NR.symlinkat, name.encode(), tree, word.encode())
    if set_ & C.MOUNT_ATTR_RDONLY:
        program.set_attributes(tree, set_=C.MOUNT_ATTR_RDONLY)


def _cgroup(program: Program, tree: Slot, target: Slot, set_: int, clear: int) -> None:
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
