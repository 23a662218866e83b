"""``image from-host``: an OCI image of programs of this machine, so that a first container runs without
any registry.

A program brings its shared libraries and loader, a script its interpreter, Python and Perl their
standard library, busybox its applets. Paths are the host's, links included. The image is the same byte
for byte as long as the files are: members sorted, owners root, directories without times, and its date is
the newest file's (or SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.images.commit import extend, store_layer
from orchestra.images.config import DEFAULT_PATH, Settings, history_step
from orchestra.images.elf import Libraries
from orchestra.images.hostfiles import interpreter_of, python_behind, runtime_files
from orchestra.images.problems import from_os_error
from orchestra.images.reference import Reference
from orchestra.images.tar import DIRECTORY, REGULAR, SYMLINK
from orchestra.images.tarwrite import Member, TarWriter, check_layer_name

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

_LINK_LIMIT = 40
_FOLDERS = {
    "/bin": 0o755, "/dev": 0o755, "/etc": 0o755, "/home": 0o755, "/proc": 0o555, "/root": 0o700,
    "/run": 0o755, "/sys": 0o555, "/tmp": 0o1777, "/usr": 0o755, "/usr/bin": 0o755, "/usr/sbin": 0o755,
    "/sbin": 0o755, "/usr/local": 0o755, "/usr/local/bin": 0o755, "/var": 0o755, "/var/tmp": 0o1777,
    "/var/log": 0o755, "/var/cache": 0o755,
}  # fmt: skip
_PASSWD = """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n"
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\n"
_ROOT_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")


@dataclass(slots=True)
class HostOptions:
    """``bins``: names or paths of programs; ``paths``: ``SOURCE[:TARGET]`` files or trees;
    ``folders``: ``PATH[:MODE[:UID[:GID]]]``; ``files``: target → content; ``links``: target → link text;
    ``users``: ``NAME:UID[:GID]``."""

    bins: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    applets: bool = True
    base: bool = True
    epoch: int | None = None


@dataclass(slots=True)
class _Item:
    """One file of the image: taken from the host (``source``) or made (``content``)."""

    member: Member
    source: str = ""
    content: bytes = b""


class HostTree:
    """The files of an image to be, by absolute path."""

    def __init__(self, *, applets: bool = True) -> None:
        self.items: dict[str, _Item] = {}
        self.warnings: list[str] = []
        self.newest = 0
        self._applets = applets
        self._libraries = Libraries.of_host()
        self._programs: set[str] = set()

    # --- adding ----------------------------------------------------------------------------------

    def folder(self, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> str:
        """A directory and those above it; the real path where a link leads elsewhere."""
        real = self.real(path)
        if real != "/" and real not in self.items:
            self.folder(posixpath.dirname(real))
            self.items[real] = _Item(Member(os.fsencode(real[1:]), DIRECTORY, mode, uid, gid))
        return real

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        real = self._place(path)
        self.items[real] = _Item(Member(os.fsencode(real[1:]), REGULAR, mode), content=content)

    def link(self, path: str, target: str, *, replace: bool = True) -> None:
        real = self._place(path)
        if replace or real not in self.items:
            member = Member(os.fsencode(real[1:]), SYMLINK, 0o777, link=os.fsencode(target))
            self.items[real] = _Item(member)

    def _place(self, path: str) -> str:
        folder, _, base = path.rpartition("/")
        return posixpath.join(self.folder(folder or "/"), base)

    def real(self, path: str) -> str:
        """``path`` with the links of the image's own followed."""
        pending = path.strip("/").split("/")[::-1]
        current, links = "", 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            inner = f"{current}/{part}"
            item = self.items.get(inner)
            if item is None or item.member.kind != SYMLINK:
                current = inner
                continue
            links += 1
            if links > _LINK_LIMIT:
                raise OrchestraError(f"too many symbolic links in {path}")
            target = os.fsdecode(item.member.link)
            if target.startswith("/"):
                current = ""
            pending += target.split("/")[::-1]
        return current or "/"

    def take(self, path: str) -> str:
        """A file of the host under its own path, with all links on the way; its real path."""
        pending = os.path.abspath(path).strip("/").split("/")[::-1]
        current, links = "", 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            inner = f"{current}/{part}"
            found = os.lstat(inner)
            if not stat.S_ISLNK(found.st_mode):
                self._take_one(inner, found)
                current = inner
                continue
            links += 1
            if links > _LINK_LIMIT:
                raise OrchestraError(f"too many symbolic links in {path}")
            target = os.readlink(inner)
            if inner not in self.items:
                self.link(inner, target)
            if target.startswith("/"):
                current = ""
            pending += target.split("/")[::-1]
        return current or "/"

    def _take_one(self, path: str, found: os.stat_result, target: str | None = None) -> None:
        where = self.real(target) if target else path
        if stat.S_ISDIR(found.st_mode):
            if where != "/" and where not in self.items:
                self.folder(posixpath.dirname(where))
                mode = stat.S_IMODE(found.st_mode)
                self.items[where] = _Item(Member(os.fsencode(where[1:]), DIRECTORY, mode))
        elif stat.S_ISREG(found.st_mode):
            if where in self.items and self.items[where].source == path:
                return
            seconds = int(found.st_mtime)
            self.newest = max(self.newest, seconds)
            member = Member(
                os.fsencode(where[1:]), REGULAR, stat.S_IMODE(found.st_mode), size=found.st_size,
                mtime=seconds * 1_000_000_000, xattrs=_capability(path),
            )  # fmt: skip
            self.items[where] = _Item(member, path)
        else:
            self.warnings.append(f"{path} is neither a file nor a directory and is left out")

    def program(self, name: str) -> str:
        """A program by name or path with all it needs; its real path."""
        path = _find_program(name)
        real = self.take(path)
        if real in self._programs:
            return real
        self._programs.add(real)
        if posixpath.dirname(path) not in DEFAULT_PATH.split(":"):
            self.link(f"/usr/local/bin/{posixpath.basename(path)}", path, replace=False)
        self.needs(real)
        interpreter = interpreter_of(real)
        for word in interpreter:
            self.program(word)
        runtime = runtime_files(real, applets=self._applets)
        for extra in runtime.trees:
            self.tree(extra.source, skip=extra.skip)
        for program in runtime.programs:
            self.program(program)
        for link, target in runtime.links:
            if self.real(link) not in self.items:
                self.link(link, target, replace=False)
        self.warnings += runtime.warnings
        return real

    def needs(self, path: str) -> None:
        """The shared libraries of an ELF file."""
        found, missing = self._libraries.closure(path)
        for library in found:
            self.take(library)
        for name in missing:
            self.warnings.append(f"{path} needs {name}, which is not on this machine")
        elf = self._libraries.elf(path)
        if elf is not None and any(os.path.basename(library) == "libc.so.6" for library in found):
            for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1"):
                if extra := self._libraries.find(name, elf):  # opened by libc itself while running
                    self.take(extra)

    def tree(self, source: str, target: str | None = None, skip: Callable[[str], bool] | None = None) -> None:
        """A file or directory of the host with everything in it, links to files outside included."""
        try:
            found = os.stat(source)
        except OSError as error:
            raise NotFoundError(f"cannot take {source}: {(error.strerror or '').lower()}") from None
        source = os.path.abspath(source)
        if target is None:
            real = self.take(source)
            target = real
        else:
            real = os.path.realpath(source)
            target = self._place(target) if stat.S_ISREG(found.st_mode) else self.folder(target)
            self._take_one(real, found, target)
        if stat.S_ISREG(found.st_mode):
            self.needs(real)
        elif stat.S_ISDIR(found.st_mode):
            self._inside(real, target, skip)

    def _inside(self, source: str, target: str, skip: Callable[[str], bool] | None) -> None:
        with os.scandir(source) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if skip is not None and skip(entry.path):
                continue
            where = f"{target.rstrip('/')}/{entry.name}"
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                self.link(where, os.readlink(entry.path))
                if os.path.isfile(entry.path):
                    self.take(entry.path)
            elif stat.S_ISDIR(found.st_mode):
                self._take_one(entry.path, found, where)
                self._inside(entry.path, where, skip)
            else:
                self._take_one(entry.path, found, where)
                if stat.S_ISREG(found.st_mode) and (".so" in entry.name or found.st_mode & 0o111):
                    self.needs(entry.path)

    # --- writing ---------------------------------------------------------------------------------

    def write(self, sink: Callable[[bytes], object], epoch: int | None) -> None:
        """The layer."""
        writer = TarWriter(sink)
        for path in sorted(self.items):
            item = self.items[path]
            member = item.member
            check_layer_name(member.name)
            if epoch is not None:
                member.mtime = min(member.mtime, epoch * 1_000_000_000)
            if item.source:
                self._write_file(writer, item)
            else:
                writer.add(member, item.content)
        writer.finish()

    def _write_file(self, writer: TarWriter, item: _Item) -> None:
        try:
            fd = os.open(item.source, os.O_RDONLY | os.O_CLOEXEC)
            try:
                item.member.size = os.fstat(fd).st_size
                writer.add_file(item.member, fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise from_os_error(error, f"reading {item.source}") from error


def _find_program(name: str) -> str:
    """The system's own directories win over the caller's PATH (virtual environments, shims)."""
    path: str | None = os.path.abspath(name)
    if "/" not in name:
        path = shutil.which(name, path=DEFAULT_PATH) or shutil.which(name)
    if not path or not os.path.isfile(path):
        raise NotFoundError(f"no program {name!r} on this machine", hint="give its path, or install it")
    return python_behind(path)


def _capability(path: str) -> dict[str, bytes]:
    try:
        return {"security.capability": os.getxattr(path, "security.capability")}
    except OSError:
        return {}


def collect_tree(options: HostOptions) -> HostTree:
    """The files that ``options`` name. Programs first: their links (``/bin`` → ``usr/bin``) decide where
    the rest goes."""
    tree = HostTree(applets=options.applets)
    for link in _ROOT_LINKS:
        if options.base and os.path.islink(link):
            tree.take(link)
    plain = [name for name in options.bins if os.path.basename(name) != "busybox"]
    for name in plain + [name for name in options.bins if name not in plain]:
        tree.program(name)
    for text in options.paths:
        source, _, target = text.partition(":")
        tree.tree(source, target or None)
    if options.base:
        _add_base(tree, options)
    for text in options.folders:
        _add_folder(tree, text)
    for path, content in options.files.items():
        tree.file(path, content)
    for path, target in options.links.items():
        tree.link(path, target)
    return tree


def _add_base(tree: HostTree, options: HostOptions) -> None:
    for path, mode in _FOLDERS.items():
        if tree.real(path) not in tree.items:
            tree.folder(path, mode)
    passwd, group = _PASSWD, _GROUP
    for text in options.users:
        name, _, numbers = text.partition(":")
        uid, _, gid = numbers.partition(":")
        if not name or not uid.isdigit() or (gid and not gid.isdigit()):
            raise OrchestraError(f"invalid user {text!r}", hint="expected NAME:UID[:GID]")
        passwd += f"{name}:x:{uid}:{gid or uid}:{name}:/home/{name}:/bin/sh\n"
        group += f"{name}:x:{gid or uid}:\n"
        tree.folder(f"/home/{name}", 0o755, int(uid), int(gid or uid))
    made = {"/etc/passwd": passwd, "/etc/group": group, "/etc/nsswitch.conf": _NSSWITCH}
    made |= dict.fromkeys(("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"), "")  # mount points
    for path, text in made.items():
        if tree.real(path) not in tree.items:
            tree.file(path, text.encode())


def _add_folder(tree: HostTree, text: str) -> None:
    path, *rest = text.split(":")
    try:
        mode = int(rest[0], 8) if rest and rest[0] else 0o755
        uid = int(rest[1]) if len(rest) > 1 else 0
        gid = int(rest[2]) if len(rest) > 2 else uid
    except ValueError:
        raise OrchestraError(f"invalid directory {text!r}", hint="expected PATH[:MODE[:UID[:GID]]]") from None
    tree.folder(posixpath.normpath("/" + path), mode, uid, gid)


def from_host(
    store: ImageStore,
    name: str | Reference,
    options: HostOptions,
    *,
    warn: Callable[[str], object] = lambda _text: None,
    unpack: bool = True,
) -> Image:
    """Make the image ``name``. It is unpacked as well, ready for a container."""
    reference = Reference.parse(name) if isinstance(name, str) else name
    tree = collect_tree(options)
    for text in dict.fromkeys(tree.warnings):
        warn(text)
    settings = options.settings
    settings.env.setdefault("PATH", DEFAULT_PATH)
    created = float(options.epoch if options.epoch is not None else tree.newest)
    words: list[Any] = ["from-host", *(f"--bin {item}" for item in options.bins)]
    words += [f"--path {item}" for item in options.paths]
    step = history_step(created, " ".join(words))
    with store.lease():
        layer = store_layer(store, lambda sink: tree.write(sink, options.epoch))
        image = extend(store, None, [layer], settings, history=[step], created=created, names=[reference])
        if unpack:
            store.layers(image)
    return image
