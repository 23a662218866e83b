"""Apply a layer tar to a directory of its own, treating the archive as hostile.

Every name is walked component by component through directory descriptors, never following a symbolic
link of the host (what openat2 RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS does); a link *inside* the layer is
resolved by hand with the directory as its root. So nothing outside of the directory is ever reached,
whatever absolute names, ``..``, symlinks and hard links the archive holds. Only the caller writes there.

Whiteouts become overlayfs whiteouts (character device 0:0), opaque directories get the overlay xattr.
Attributes of directories are set at the end, so that read-only or set-gid ones do no harm meanwhile.
Attributes that overlayfs itself reads (``trusted.overlay.*``, ``user.overlay.*``) are never taken.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.images import tar
from orchestra.images.problems import LayerError, from_os_error
from orchestra.images.tar import Entry, printable

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_LINK_LIMIT = 40
_OPEN_DIRECTORIES = 64
_ID_LIMIT = (1 << 32) - 2
_TIME_LIMIT = (1 << 40) * 1_000_000_000
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one layer against bombs; ``size`` counts the plain bytes of the archive."""

    entries: int = 5_000_000
    size: int = 256 << 30


@dataclass(frozen=True, slots=True)
class ApplyOptions:
    """``owners``: set owners (needs root); without it everything belongs to the caller and device nodes
    are left out. ``overlay``: the prefix of overlayfs's own xattrs."""

    owners: bool = True
    overlay: str = "trusted.overlay."
    limits: Limits = Limits()

    @classmethod
    def for_process(cls, limits: Limits | None = None) -> ApplyOptions:
        """What this process may do: real root, root of a user namespace, or an ordinary user."""
        root = os.geteuid() == 0
        overlay = "trusted.overlay." if root and _initial_user_namespace() else "user.overlay."
        return cls(root, overlay, limits or Limits())


def _initial_user_namespace() -> bool:
    with contextlib.suppress(OSError), open("/proc/self/uid_map") as table:
        return table.read().split() == ["0", "0", "4294967295"]
    return True


@dataclass(slots=True)
class Applied:
    """``implied``: directories without an entry of their own (``b""`` is the root), which should look as
    they do in the layers below; ``whiteouts``: what was made to hide something there; ``size`` counts bytes of
    file content."""

    entries: int = 0
    size: int = 0
    implied: list[bytes] = field(default_factory=list)
    whiteouts: list[bytes] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def apply(chunks: Iterable[bytes], root: Path, options: ApplyOptions | None = None) -> Applied:
    """Unpack the plain tar ``chunks`` into the directory ``root``, which must be the caller's own."""
    applier = _Applier(root, options or ApplyOptions.for_process())
    try:
        for entry in tar.entries(chunks, limit=applier.limits.size):
            applier.take(entry)
        applier.finish()
    except OSError as error:
        raise _explained(error, applier.current) from error
    except (OverflowError, ValueError) as error:
        raise LayerError(f"cannot unpack {printable(applier.current)}: {error}") from error
    finally:
        applier.close()
    return applier.result


def _explained(error: OSError, name: bytes) -> Exception:
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ENOTEMPTY, errno.ELOOP, errno.ENOTDIR):
        return LayerError(f"cannot unpack {printable(name)}: {(error.strerror or 'error').lower()}")
    return from_os_error(OSError(error.errno, error.strerror), f"unpacking {printable(name)}")


@dataclass(slots=True)
class _Directory:
    """What to do with a directory at the end; ``entry`` None: implied; ``fresh``: one below is deleted."""

    entry: Entry | None = None
    opaque: bool = False
    fresh: bool = False


def clean(name: bytes) -> bytes:
    """A member's name relative to the root: no ``/`` around, no empty, ``.`` or ``..`` parts."""
    if name.startswith(b"./"):
        name = name[2:]
    if b"//" not in name and b"./" not in name and not name.endswith((b"/.", b"/..")):
        plain = name.strip(b"/")
        if plain == b"..":
            raise LayerError("member .. leaves the root of the layer")
        return b"" if plain == b"." else plain
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not parts:
                raise LayerError(f"member {printable(name)} leaves the root of the layer")
            parts.pop()
        else:
            parts.append(part)
    return b"/".join(parts)


class _Applier:
    def __init__(self, root: Path, options: ApplyOptions) -> None:
        self._options = options
        self._owners = options.owners
        self.limits = options.limits
        self._root = os.open(root, _DIRECTORY_FLAGS)
        self._open: dict[bytes, int] = {}
        self._directories: dict[bytes, _Directory] = {b"": _Directory()}
        self._whiteouts: set[bytes] = set()
        self._umask = _umask()
        self.result = Applied()
        self.current = b""

    def close(self) -> None:
        for fd in (*self._open.values(), self._root):
            os.close(fd)
        self._open.clear()

    # --- one member ------------------------------------------------------------------------------

    def take(self, entry: Entry) -> None:
        self.current = entry.name
        self._count(entry)
        name = clean(entry.name)
        if len(name) > 4095:
            raise LayerError(f"member {printable(name)} has a name of {len(name)} bytes")
        if not name:
            self._take_root(entry)
            return
        folder, _, base = name.rpartition(b"/")
        if base.startswith(_WHITEOUT) and self._is_deleted(folder):
            return
        parent, folder = self._enter(folder)
        if base.startswith(_WHITEOUT):
            self._whiteout(parent, folder, base)
            return
        path = folder + b"/" + base if folder else base
        kind = entry.kind
        if kind == tar.REGULAR:
            self._file(entry, parent, base, path)
        elif kind == tar.DIRECTORY:
            self._directory(entry, parent, base, path)
        elif kind == tar.SYMLINK:
            self._place(functools.partial(os.symlink, entry.link, base, dir_fd=parent), parent, base, path)
            self._dress_unopened(entry, parent, base)
        elif kind == tar.LINK:
            self._hard_link(entry, parent, base, path)
        elif kind in (tar.CHARACTER, tar.BLOCK_DEVICE, tar.FIFO):
            self._node(entry, parent, base, path)
        else:
            self._warn(f"{printable(path)}: members of type {kind!r} are left out")

    def _count(self, entry: Entry) -> None:
        result = self.result
        result.entries += 1
        result.size += entry.stored
        if result.entries > self.limits.entries:
            raise LayerError(f"layer has more than {self.limits.entries} members")
        if not (0 <= entry.uid <= _ID_LIMIT and 0 <= entry.gid <= _ID_LIMIT):
            raise LayerError(f"member {printable(entry.name)} has an impossible owner")
        if not -_TIME_LIMIT < entry.mtime < _TIME_LIMIT:
            entry.mtime = 0

    def _warn(self, text: str) -> None:
        if len(self.result.warnings) < 100:
            self.result.warnings.append(text)

    def _take_root(self, entry: Entry) -> None:
        if entry.kind != tar.DIRECTORY:
            raise LayerError("the root of the layer is not a directory in it")
        self._directories[b""].entry = entry

    def _file(self, entry: Entry, parent: int, base: bytes, path: bytes) -> None:
        mode = entry.mode
        try:
            fd = os.open(base, _FILE_FLAGS, mode, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base, path)
            fd = os.open(base, _FILE_FLAGS, mode, dir_fd=parent)
        try:
            if entry.size:
                entry.copy_to(fd)
            foreign = entry.uid or entry.gid
            if self._owners and foreign:
                os.fchown(fd, entry.uid, entry.gid)
            if mode & self._umask or mode & 0o7000:
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._set_xattrs(fd, entry.xattrs, path)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, parent: int, base: bytes, path: bytes) -> None:
        known = self._directories.get(path)
        if known is None:
            self._make_directory(parent, base, path).entry = entry
        else:
            known.entry = entry

    def _make_directory(self, parent: int, base: bytes, path: bytes) -> _Directory:
        try:
            os.mkdir(base, 0o700, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, base, path)
            os.mkdir(base, 0o700, dir_fd=parent)
        # a directory in the place of a whiteout hides what is below
        hides = path in self._whiteouts
        made = self._directories[path] = _Directory(opaque=hides, fresh=hides)
        return made

    def _hard_link(self, entry: Entry, parent: int, base: bytes, path: bytes) -> None:
        target = clean(entry.link)
        folder, _, last = target.rpartition(b"/")
        source, folder = self._enter(folder, make=False)
        full = folder + b"/" + last if folder else last
        if full == path:
            return
        try:
            info = os.stat(last, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            raise LayerError(
                f"{printable(path)} is a hard link to {printable(target)}, which is not in the layer"
            ) from None
        if stat.S_ISDIR(info.st_mode) or (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0):
            raise LayerError(f"{printable(path)} is a hard link to {printable(target)}, which is no file")
        source = os.dup(source)
        try:
            # entering the target may have closed the descriptor of our own folder
            parent = self._enter(path.rpartition(b"/")[0])[0]
            make = functools.partial(
                os.link, last, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False
            )
            self._place(make, parent, base, path)
        finally:
            os.close(source)

    def _node(self, entry: Entry, parent: int, base: bytes, path: bytes) -> None:
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise LayerError(f"member {printable(entry.name)} has an impossible device number")
        kinds = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}
        device = os.makedev(entry.major, entry.minor) if entry.kind != tar.FIFO else 0
        if entry.kind == tar.CHARACTER and device == 0:
            self._warn(f"{printable(path)}: character device 0:0 would be a whiteout and is left out")
            return
        if entry.kind != tar.FIFO and not self._owners:
            self._warn(f"{printable(path)}: device node left out (not root)")
            return
        mode = kinds[entry.kind] | 0o600
        try:
            self._place(functools.partial(os.mknod, base, mode, device, dir_fd=parent), parent, base, path)
        except PermissionError:
            self._warn(f"{printable(path)}: device node left out (not permitted here)")
            return
        self._dress_unopened(entry, parent, base)

    def _place(self, make: functools.partial[None], parent: int, base: bytes, path: bytes) -> None:
        """Make something under a name that may be taken: the later member wins."""
        try:
            make()
        except FileExistsError:
            self._remove(parent, base, path)
            make()

    def _dress_unopened(self, entry: Entry, parent: int, base: bytes) -> None:
        """Attributes of what must not be opened (links, devices)."""
        if self._owners and (entry.uid or entry.gid):
            os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tar.SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)
        if entry.xattrs:
            self._set_xattrs(f"/proc/self/fd/{parent}/".encode() + base, entry.xattrs, base)
        os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _set_xattrs(self, where: int | bytes, xattrs: dict[str, bytes], path: bytes) -> None:
        for name, value in sorted(xattrs.items()):
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                self._warn(f"{printable(path)}: attribute {name} is overlayfs's own and left out")
                continue
            try:
                if isinstance(where, int):
                    os.setxattr(where, name, value)
                else:
                    os.setxattr(where, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL):
                    raise
                self._warn(f"{printable(path)}: attribute {name} is refused here ({error.strerror})")

    # --- whiteouts -------------------------------------------------------------------------------

    def _whiteout(self, parent: int, folder: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            self._directories[folder].opaque = True
            return
        name = base[len(_WHITEOUT) :]
        if name.startswith(_WHITEOUT):
            return  # aufs's own bookkeeping
        if name in (b"", b".", b".."):
            raise LayerError(f"invalid whiteout {printable(self.current)}")
        path = folder + b"/" + name if folder else name
        self._whiteouts.add(path)
        known = self._directories.get(path)
        if known is not None:
            known.opaque = known.fresh = True
            return
        # a whiteout hides what is below, never what the same layer adds
        with contextlib.suppress(FileExistsError):
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
            self.result.whiteouts.append(path)

    def _is_deleted(self, folder: bytes) -> bool:
        """Whether a whiteout of this layer covers the directory, so that there is nothing to hide in it."""
        if not self._whiteouts:
            return False
        while folder:
            if folder in self._directories:
                return False
            if folder in self._whiteouts:
                return True
            folder = folder.rpartition(b"/")[0]
        return False

    # --- names -----------------------------------------------------------------------------------

    def _enter(self, folder: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """The descriptor of a directory in the layer and its real path, made where missing."""
        fd = self._open.get(folder)
        if fd is not None:
            return fd, folder
        if not folder:
            return self._root, folder
        return self._walk(folder, make)

    def _walk(self, folder: bytes, make: bool) -> tuple[int, bytes]:
        pending = folder.split(b"/")[::-1]
        fd, path, links = self._root, b"", 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":  # only from the target of a link
                path = path.rpartition(b"/")[0]
                fd = self._enter(path)[0]
                continue
            inner = path + b"/" + part if path else part
            found = self._step(fd, part, inner, make)
            if isinstance(found, bytes):
                links += 1
                if links > _LINK_LIMIT:
                    raise LayerError(f"too many symbolic links in {printable(folder)}")
                pending += found.split(b"/")[::-1]
                if found.startswith(b"/"):
                    fd, path = self._root, b""
                continue
            fd, path = found, inner
        return fd, path

    def _step(self, fd: int, part: bytes, inner: bytes, make: bool) -> int | bytes:
        """The descriptor of ``part`` in ``fd``, or the target of the link that it is."""
        known = self._open.get(inner)
        if known is not None:
            return known
        if inner not in self._directories:
            try:
                return os.readlink(part, dir_fd=fd)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            if not make:
                raise LayerError(f"{printable(self.current)}: {printable(inner)} is not in the layer")
            self._make_directory(fd, part, inner)
        return self._remember(inner, os.open(part, _DIRECTORY_FLAGS, dir_fd=fd))

    def _remember(self, path: bytes, fd: int) -> int:
        if len(self._open) >= _OPEN_DIRECTORIES:
            self._forget_some(path)
        self._open[path] = fd
        return fd

    def _forget_some(self, path: bytes) -> None:
        """Close descriptors that are not on the way to ``path``, the oldest first."""
        for old in list(self._open):
            if not (path.startswith(old + b"/") or path == old):
                os.close(self._open.pop(old))
            if len(self._open) < _OPEN_DIRECTORIES // 2:
                return

    def _remove(self, parent: int, base: bytes, path: bytes) -> None:
        """Make room for a later member of the same name."""
        if path not in self._directories:
            os.unlink(base, dir_fd=parent)
            return
        inside = path + b"/"
        for old in [name for name in self._open if name == path or name.startswith(inside)]:
            os.close(self._open.pop(old))
        for old in [name for name in self._directories if name == path or name.startswith(inside)]:
            del self._directories[old]
        _remove_tree(parent, base)

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """Attributes of the directories, deepest first."""
        for path in sorted(self._directories, reverse=True):
            directory = self._directories[path]
            self.current = path
            fd, own = (self._root, False) if not path else self._reopen(path)
            try:
                self._dress_directory(fd, path, directory)
            finally:
                if own:
                    os.close(fd)
        self.result.implied.sort()

    def _reopen(self, path: bytes) -> tuple[int, bool]:
        known = self._open.get(path)
        if known is not None:
            return known, False
        folder, _, base = path.rpartition(b"/")
        parent, _ = self._enter(folder)
        return os.open(base, _DIRECTORY_FLAGS, dir_fd=parent), True

    def _dress_directory(self, fd: int, path: bytes, directory: _Directory) -> None:
        if directory.opaque:
            os.setxattr(fd, self._options.overlay + "opaque", b"y")
        entry = directory.entry
        if entry is None:
            if not directory.fresh:
                self.result.implied.append(path)
            os.fchmod(fd, 0o755)
            os.utime(fd, ns=(0, 0))  # the same for everybody who unpacks it
            return
        if self._owners and (entry.uid or entry.gid):
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            self._set_xattrs(fd, entry.xattrs, path)
        os.utime(fd, ns=(entry.mtime, entry.mtime))


def _umask() -> int:
    """This process's umask, read without changing it for the other threads."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def _remove_tree(parent: int, base: bytes) -> None:
    """Delete a directory made here, through descriptors."""
    fd = os.open(base, _DIRECTORY_FLAGS, dir_fd=parent)
    try:
        with os.scandir(fd) as listing:
            children = [(os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in listing]
        for name, is_directory in children:
            if is_directory:
                _remove_tree(fd, name)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(base, dir_fd=parent)
