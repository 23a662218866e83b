"""A volume's contents as a tar stream, out and in.

Reading a tar treats it as hostile: every entry is placed by walking one name at a time from the volume's
directory without following links; absolute names and ``..`` stay inside.
"""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path
from typing import IO

from orchestra.errors import OrchestraError

_XATTR = "SCHILY.xattr."


def export_tar(root: Path, sink: IO[bytes]) -> None:
    """Writes everything below ``root`` as a pax tar (names relative, numeric owners, extended attributes)."""
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for folder, folders, files in os.walk(root):
            folders.sort()
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            if Path(folder) == root:
                _add(tar, root, Path(folder))
            for name in sorted([*files, *folders]):
                _add(tar, root, Path(folder, name))
            folders[:] = [name for name in folders if name not in links]


def _add(tar: tarfile.TarFile, root: Path, path: Path) -> None:
    if stat.S_ISSOCK(os.lstat(path).st_mode):
        return
    member = tar.gettarinfo(str(path), arcname=f"./{path.relative_to(root)}" if path != root else ".")
    member.uname = member.gname = ""
    headers: dict[str, str] = {}
    for name in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, name, follow_symlinks=False)
        headers[_XATTR + name] = value.decode("utf-8", "surrogateescape")
    member.pax_headers = headers
    if member.isreg():
        with open(path, "rb") as file:
            tar.addfile(member, file)
    else:
        tar.addfile(member)


def import_tar(root: Path, source: IO[bytes]) -> int:
    """Unpacks a tar (plain, gzip, bzip2 or xz) into ``root``; existing files of the same name are replaced.
    Returns how many entries there were."""
    count = 0
    times: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=source, mode="r|*") as tar:
            for member in tar:
                parts = [part for part in member.name.split("/") if part not in ("", ".")]
                if ".." in parts:
                    raise OrchestraError(f"the archive has an entry that leads out: {member.name}")
                _place(root, parts, member, tar)
                count += 1
                if member.isdir():
                    times.append(("/".join(parts), member))
    except (tarfile.TarError, EOFError) as error:
        raise OrchestraError(f"the archive cannot be read: {error}") from None
    for name, member in reversed(times):
        fd = _walk(root, [part for part in name.split("/") if part], make=False)
        try:
            os.utime(fd, (member.mtime, member.mtime))
        finally:
            os.close(fd)
    return count


def _walk(root: Path, parts: list[str], *, make: bool) -> int:
    """A descriptor of the directory, made if wanted; links on the way are refused."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            if make:
                try:
                    os.mkdir(part, 0o755, dir_fd=fd)
                except FileExistsError:
                    pass
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError as error:
            raise OrchestraError(
                f"the archive's entry {'/'.join(parts)} goes through {part}: {error.strerror}"
            ) from None
        finally:
            os.close(fd)
        fd = deeper
    return fd


def _place(root: Path, parts: list[str], member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    if member.isdir():
        fd = _walk(root, parts, make=True)
        try:
            _dress(fd, member)
        finally:
            os.close(fd)
        return
    if not parts:
        return
    parent = _walk(root, parts[:-1], make=True)
    name = parts[-1]
    try:
        _clear(parent, name, "/".join(parts))
        if member.isreg():
            _file(parent, name, member, tar)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            _hard_link(root, parent, name, member)
        elif member.isfifo() or member.ischr() or member.isblk():
            kind = stat.S_IFIFO if member.isfifo() else stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            device = 0 if member.isfifo() else os.makedev(member.devmajor, member.devminor)
            os.mknod(name, kind | member.mode & 0o7777, device, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _clear(parent: int, name: str, shown: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OrchestraError(
            f"the archive's entry {shown} would replace a directory: {error.strerror}"
        ) from None


def _file(parent: int, name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    fd = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
    )
    with os.fdopen(fd, "wb") as file:
        content = tar.extractfile(member)
        while content is not None and (data := content.read(1 << 20)):
            file.write(data)
        file.flush()
        _dress(file.fileno(), member)
        os.utime(file.fileno(), (member.mtime, member.mtime))


def _hard_link(root: Path, parent: int, name: str, member: tarfile.TarInfo) -> None:
    parts = [part for part in member.linkname.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise OrchestraError(f"the archive has a link that leads out: {member.name} to {member.linkname}")
    folder = _walk(root, parts[:-1], make=False)
    try:
        os.link(parts[-1], name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        raise OrchestraError(f"cannot link {member.name} to {member.linkname}: {error.strerror}") from None
    finally:
        os.close(folder)


def _dress(fd: int, member: tarfile.TarInfo) -> None:
    os.fchown(fd, member.uid, member.gid)
    os.fchmod(fd, member.mode & 0o7777)
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            try:
                os.setxattr(fd, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))
            except OSError:
                continue  # a file system without them
