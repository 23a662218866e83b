"""The mounts of a container as operation values: parsed and checked by the parent, applied by the child.

Sources of bind mounts become detached trees (``open_tree``), targets are descriptors resolved inside
the root: no path is looked up twice, so none can be swapped in between (CVE-2025-52881 and its kin).
Nothing but the listed files may be mounted below the container's /proc, and on /proc itself nothing but a
procfs.
"""

from __future__ import annotations

import errno
import functools
import os
import posixpath
import stat
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import calls, fs, userns
from orchestra.linux import constants as C
from orchestra.linux import mount as mounting
from orchestra.record import field, shape
from orchestra.runtime import mountoptions
from orchestra.runtime.mountoptions import Words
from orchestra.runtime.problems import StepError

# what lxcfs and the like put over files of /proc; everything else there is refused
_PROC_ALLOWED = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "net/dev",
    )
)
_VARIABLE = frozenset(("bind", "rbind", "idmap", "ridmap"))  # words of mounts that differ between containers
_DATA_MAX = 4095
_PROC_ROOT = 1  # the inode of a procfs' root directory


@shape
class Mount:
    """One entry of ``mounts``. ``uids`` and ``gids`` are the id map of an idmapped bind."""

    destination: str
    fstype: str
    source: str
    words: Words
    uids: userns.Map = field(default_factory=list)
    gids: userns.Map = field(default_factory=list)
    shifted: bool = False  # an overlay whose layers go through the container's id map

    @property
    def bind(self) -> bool:
        return bool(self.words.flags & C.MS_BIND)

    def describe(self) -> str:
        kind = "bind" if self.bind else self.fstype
        return f"mount {kind} {self.source} at {self.destination}"


def parse(entries: list[dict[str, Any]] | None, bundle: str) -> list[Mount]:
    return [_parse(entry, bundle) for entry in entries or ()]


def _parse(entry: dict[str, Any], bundle: str) -> Mount:
    get = entry.get
    destination, fstype, source = (
        str(get("destination") or ""),
        str(get("type") or ""),
        str(get("source") or ""),
    )
    options = tuple(map(str, get("options") or ()))
    uids, gids = ids(get("uidMappings")), ids(get("gidMappings"))
    if fstype not in ("bind", "overlay") and not (uids or gids or _VARIABLE.intersection(options)):
        return _shared(destination, fstype, source, options)
    return _make(destination, fstype, source, options, bundle, uids, gids)


@functools.lru_cache(maxsize=64)
def _shared(destination: str, fstype: str, source: str, options: tuple[str, ...]) -> Mount:
    """Most containers have the same ones. Nobody changes them."""
    return _make(destination, fstype, source, options, "/", [], [])


def _make(
    destination: str,
    fstype: str,
    source: str,
    options: tuple[str, ...],
    bundle: str,
    uids: userns.Map,
    gids: userns.Map,
) -> Mount:
    if not destination:
        raise OrchestraError("mounts: an entry has no destination")
    destination = posixpath.normpath("/" + destination.lstrip("/"))
    words = mountoptions.parse(options)
    if fstype == "bind":
        words.flags |= C.MS_BIND
    if fstype == "overlay":  # mount(2) would take several options in one word, so we do
        words.data = [part for word in words.data for part in _options(word)]
    if words.flags & C.MS_BIND:
        if not source:
            raise OrchestraError(f"mounts: the bind mount at {destination} has no source")
        source = os.path.join(bundle, source)
    elif not fstype and not words.flags & C.MS_REMOUNT:
        raise OrchestraError(f"mounts: the mount at {destination} has no type")
    found = Mount(
        destination,
        fstype,
        source or fstype,
        words,
        uids,
        gids,
    )
    if (found.uids or found.gids) and not words.idmap:
        words.idmap = "idmap"
    if fstype == "overlay" and words.idmap:
        found.shifted, words.idmap = True, ""
    if words.idmap and not found.bind:
        raise OrchestraError(f"mounts: {words.idmap} at {destination} works with bind mounts only")
    if not words.flags & C.MS_REMOUNT:
        _check_destination(found)
    if words.tmpcopyup and fstype != "tmpfs":
        raise OrchestraError(f"mounts: tmpcopyup at {destination} works with tmpfs only")
    return found


def _check_destination(mount: Mount) -> None:
    place = mount.destination
    if place == "/proc" and not mount.bind and mount.fstype != "proc":
        raise OrchestraError(f"{mount.describe()}: only a procfs may be mounted on /proc")
    if place.startswith("/proc/") and place not in _PROC_ALLOWED:
        raise OrchestraError(f"{mount.describe()}: mounts inside /proc are refused")


def _check_source(mount: Mount, tree: int) -> None:
    """A directory on /proc could fake what programs and the runtime read there."""
    if mount.destination != "/proc":
        return
    if calls.filesystem_type(tree) != C.PROC_SUPER_MAGIC or os.fstat(tree).st_ino != _PROC_ROOT:
        raise StepError(mount.describe(), errno.EPERM, mount.source, "only a procfs may be mounted on /proc")


def _options(text: str) -> list[str]:
    """``a,b\\,c`` → two options, escaped still."""
    found = [""]
    for part in text.split(","):
        if found[-1].endswith("\\"):
            found[-1] += "," + part
        else:
            found.append(part)
    return found[1:]


def ids(entries: list[dict[str, Any]] | None) -> userns.Map:
    """uidMappings or gidMappings."""
    if not entries:
        return []
    try:
        return [(int(entry["containerID"]), int(entry["hostID"]), int(entry["size"])) for entry in entries]
    except (KeyError, TypeError, ValueError):
        raise OrchestraError("id mappings need containerID, hostID and size, all numbers") from None


# Sources: what the process that still has the host's rights opens beforehand


def open_source(mount: Mount, *, shared: bool = False) -> int:
    """A detached tree of a bind mount's source, attributes and id map applied."""
    words = mount.words
    try:
        tree = mounting.clone_tree(mount.source, recursive=bool(words.flags & C.MS_REC))
    except OSError as problem:
        raise StepError.of(mount.describe(), problem) from None
    try:
        _check_source(mount, tree)
        if not shared:
            mounting.set_attributes(tree, propagation=C.MS_SLAVE, recursive=True)
        if words.idmap:
            with userns.temporary(mount.uids, mount.gids) as namespace:
                mounting.set_attributes(
                    tree, set_=C.MOUNT_ATTR_IDMAP, userns_fd=namespace, recursive=words.idmap == "ridmap"
                )
    except StepError:
        os.close(tree)
        raise
    except OSError as problem:
        os.close(tree)
        if words.idmap and problem.errno == errno.EINVAL:
            raise StepError(
                mount.describe(), errno.EINVAL, mount.source, "this filesystem takes no id-mapped mounts"
            ) from None
        raise StepError.of(mount.describe(), problem) from None
    return tree


# Applying, in the container's mount namespace, before the root is changed


def apply(mount: Mount, root_fd: int, tree: int | None) -> None:
    """``tree`` is the source opened beforehand, if it was."""
    try:
        if mount.bind:
            _apply_bind(mount, root_fd, tree)
        elif mount.words.flags & C.MS_REMOUNT:
            _apply_remount(mount, root_fd)
        else:
            _apply_filesystem(mount, root_fd)
    except OSError as problem:
        raise StepError.of(mount.describe(), problem) from None


def _apply_bind(mount: Mount, root_fd: int, tree: int | None) -> None:
    if tree is None:
        tree = mounting.clone_tree(mount.source, recursive=bool(mount.words.flags & C.MS_REC))
    try:
        _check_source(mount, tree)
        directory = stat.S_ISDIR(os.fstat(tree).st_mode)
        target = fs.make_inside(root_fd, mount.destination, directory=directory)
        try:
            check_target(target, mount.destination, proc=False)
            if directory != stat.S_ISDIR(os.fstat(target).st_mode):
                raise _unlike(mount, directory)
            set_bind_attributes(mount.words, tree)
            mounting.attach(tree, target)
            propagate(mount.words, tree)
        finally:
            os.close(target)
    finally:
        os.close(tree)


def _unlike(mount: Mount, directory: bool) -> StepError:
    what = ("a directory", "a file") if directory else ("a file", "a directory")
    text = f"not a directory: {mount.source} is {what[0]}, {mount.destination} in the image is {what[1]}"
    return StepError(mount.describe(), errno.ENOTDIR, mount.source, text)


def bind_attributes(words: Words) -> list[tuple[int, int, bool]]:
    """(set, clear, recursive) of each change."""
    set_, clear = mountoptions.attributes(words.flags)
    # "rw" never takes the protection off a read-only source; the others are cleared on the user's word
    for flag, attribute in (
        (C.MS_NOSUID, C.MOUNT_ATTR_NOSUID),
        (C.MS_NODEV, C.MOUNT_ATTR_NODEV),
        (C.MS_NOEXEC, C.MOUNT_ATTR_NOEXEC),
    ):
        if words.cleared & flag:
            clear |= attribute
    changes = ((set_, clear, False), (words.recursive_set, words.recursive_clear, True))
    return [change for change in changes if change[0] or change[1]]


def set_bind_attributes(words: Words, tree: int) -> None:
    for set_, clear, recursive in bind_attributes(words):
        mounting.set_attributes(tree, set_=set_, clear=clear, recursive=recursive)


def propagate(words: Words, fd: int) -> None:
    for kind in words.propagation:
        mounting.set_attributes(fd, propagation=kind, recursive=bool(kind & C.MS_REC))


def _apply_remount(mount: Mount, root_fd: int) -> None:
    target = fs.open_inside(root_fd, mount.destination)
    try:
        calls.mount(
            None, mounting.fd_path(target), None, mount.words.flags, ",".join(mount.words.data) or None
        )
    finally:
        os.close(target)


def _apply_filesystem(mount: Mount, root_fd: int) -> None:
    words = mount.words
    target, fresh = _directory(root_fd, mount.destination)
    try:
        check_target(target, mount.destination, proc=mount.fstype == "proc")
        data = list(words.data)
        if mount.fstype == "tmpfs" and not fresh and not any(word.startswith("mode=") for word in data):
            data.append(f"mode={stat.S_IMODE(os.fstat(target).st_mode):o}")
        copied = _read_directory(target) if words.tmpcopyup and not fresh else None
        late = C.MS_RDONLY if copied is not None else 0
        mount_at(mount.fstype, mount.source, target, words.flags & ~late, data)
    finally:
        os.close(target)
    if copied is None and not words.propagation and not words.recursive_set:
        return
    top = fs.open_inside(root_fd, mount.destination)
    try:
        if copied is not None:
            _fill(copied, top)
        set_ = words.recursive_set | (mountoptions.attributes(words.flags & late)[0])
        if set_:
            mounting.set_attributes(top, set_=set_)
        propagate(words, top)
    finally:
        os.close(top)


def _directory(root_fd: int, destination: str) -> tuple[int, bool]:
    """(O_PATH descriptor, whether it was made now)."""
    try:
        return fs.open_inside(root_fd, destination), False
    except FileNotFoundError:
        return fs.make_inside(root_fd, destination), True


def _read_directory(target: int) -> int:
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)


def _fill(source: int, target: int) -> None:
    from orchestra.runtime.copyup import copy_tree

    place = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target)
    try:
        copy_tree(source, place)
    finally:
        os.close(place)
        os.close(source)


def check_target(fd: int, destination: str, *, proc: bool) -> None:
    """A mount inside of /proc could fake what the runtime writes there (CVE-2019-16884 and its kin)."""
    if proc or calls.filesystem_type(fd) != C.PROC_SUPER_MAGIC:
        return
    if destination not in _PROC_ALLOWED:
        raise StepError(
            f"mount at {destination}", errno.EPERM, destination, "mounts inside /proc are refused"
        )


def mount_at(fstype: str, source: str, target: int, flags: int, data: list[str]) -> None:
    """A filesystem onto an open directory; long option lists go through the new mount calls."""
    if fstype == "overlay":
        return mount_overlay(source, target, flags, data)
    try:
        calls.mount(source, mounting.fd_path(target), fstype, flags, ",".join(data) or None)
    except OSError as problem:
        gid = [word for word in data if word.startswith("gid=")]
        if fstype != "devpts" or problem.errno != errno.EINVAL or not gid:
            raise OSError(problem.errno, os.strerror(problem.errno or 0)) from None
        # a user namespace without group 5
        calls.mount(
            source, mounting.fd_path(target), fstype, flags, ",".join(w for w in data if w not in gid)
        )
    return None


def mount_overlay(source: str, target: int, flags: int, data: list[str]) -> None:
    text = ",".join(data)
    if len(os.fsencode(text)) <= _DATA_MAX:
        try:
            return calls.mount(source, mounting.fd_path(target), "overlay", flags, text)
        except OSError as problem:
            raise OSError(
                problem.errno, f"{os.strerror(problem.errno or 0)} (overlay {text[:300]})"
            ) from None
    try:
        tree = overlay_tree(data, flags)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        return _mount_by_numbers(source, target, flags, data)  # a kernel without lowerdir+
    try:
        mounting.attach(tree, target)
    finally:
        os.close(tree)
    return None


def _mount_by_numbers(source: str, target: int, flags: int, data: list[str]) -> None:
    """The options must fit a page: each layer is opened and called by the number of its descriptor,
    relative to /proc/self/fd."""
    opened = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    options: list[str] = []
    try:
        for word in data:
            key, _, value = word.partition("=")
            if key == "lowerdir":
                layers = [
                    os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for layer in split_layers(value)
                ]
                opened += layers
                word = "lowerdir=" + ":".join(str(layer) for layer in layers)
            options.append(word)
        text = ",".join(options)
        if len(os.fsencode(text)) > _DATA_MAX:
            raise OSError(errno.E2BIG, "the overlay has more layers than this kernel takes")
        os.chdir("/proc/self/fd")
        try:
            calls.mount(source, mounting.fd_path(target), "overlay", flags, text)
        finally:
            os.fchdir(opened[0])
    finally:
        for fd in opened:
            os.close(fd)


def overlay_tree(data: list[str], flags: int) -> int:
    """A detached overlay of any number of layers (kernel 6.8: one ``lowerdir+`` each)."""
    return mounting.filesystem("overlay", overlay_options(data), mountoptions.attributes(flags)[0])


def overlay_options(data: list[str]) -> list[tuple[str, str | None]]:
    """With one ``lowerdir+`` for each layer."""
    options: list[tuple[str, str | None]] = [("source", "overlay")]
    for word in data:
        key, separator, value = word.partition("=")
        if key == "lowerdir":
            options += [("lowerdir+", layer) for layer in split_layers(value)]
        else:
            options.append((key, value if separator else None))
    return options


def split_layers(text: str) -> list[str]:
    """``a:b\\:c`` → two directories, unescaped."""
    found, current, escaped = [], "", False
    for letter in text:
        if escaped:
            current, escaped = current + letter, False
        elif letter == "\\":
            escaped = True
        elif letter == ":":
            found.append(current)
            current = ""
        else:
            current += letter
    return [*found, current]
