"""Copying files between this machine and containers, with docker cp's rules for names.

Tar streams go through a pipe; the daemon reads and writes the container's side.
"""

from __future__ import annotations

import os
import tarfile
import threading
from typing import TYPE_CHECKING, Any

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.images.tarsafe import Outside, altered, extract

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def copy_from(context: Context, ref: str, path: str, target: str, *, follow: bool, archive: bool) -> None:
    """Container → here. ``-`` writes the tar to standard output."""
    if target == "-":
        context.call_into_output("archive_get", {"ref": ref, "path": path, "follow_links": follow})
        return
    target_path = os.path.join(context.cwd, target)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    outcome: dict[str, Any] = {}

    def fetch() -> None:
        try:
            outcome["stat"] = context.client.call(
                "archive_get", {"ref": ref, "path": path, "follow_links": follow}, fds=[write_end]
            )
        except OrchestraError as error:
            outcome["error"] = error
        finally:
            os.close(write_end)

    thread = threading.Thread(target=fetch)
    thread.start()
    with os.fdopen(read_end, "rb") as stream:
        problem: Exception | None = None
        try:
            _unpack(stream, path, target_path, archive=archive)
        except (tarfile.TarError, OSError, Outside) as error:
            problem = error
        while stream.read(1 << 16):
            pass
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    if problem is not None:
        raise OrchestraError(f"cannot copy to {target}: {problem}")


def _unpack(stream: Any, path: str, target: str, *, archive: bool) -> None:
    """Extract below ``target``; names of the archive never lead elsewhere (the data filter)."""
    into_directory = os.path.isdir(target)
    contents_only = path.rstrip("/").endswith("/.") or path == "."
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for index, member in enumerate(tar):
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if index == 0 and not into_directory and not member.isdir() and target.endswith("/"):
                raise OrchestraError(f"no such directory: {target}")
            if (
                index == 0
                and into_directory is False
                and not os.path.isdir(os.path.dirname(target.rstrip("/")) or "/")
            ):
                raise NotFoundError(f"no such directory: {os.path.dirname(target)}")
            # the contents of a directory come below "./", everything else below its own name
            keep = contents_only or into_directory
            rest = parts if keep else parts[1:]
            base = target
            if not rest and not member.isdir():
                base, rest = (
                    os.path.split(target.rstrip("/"))[0] or "/",
                    [os.path.basename(target.rstrip("/"))],
                )
            if not rest:
                os.makedirs(target, exist_ok=True)
                continue
            member = altered(member, name="/".join(rest))
            if member.islnk():
                linked = [part for part in member.linkname.split("/") if part not in ("", ".")]
                wanted = linked if keep else linked[1:]
                member = altered(member, linkname="/".join(wanted))
            os.makedirs(base, exist_ok=True)
            if not archive or os.geteuid() != 0:
                member = altered(member, uid=os.geteuid(), gid=os.getegid(), uname="", gname="")
            extract(tar, member, base)


def copy_to(context: Context, source: str, ref: str, path: str, *, follow: bool, archive: bool) -> None:
    """Here → container. ``-`` reads a tar from standard input."""
    if source == "-":
        context.client.call("archive_put", {"ref": ref, "path": path, "archive": archive}, fds=[0])
        return
    local = os.path.join(context.cwd, source)
    if not os.path.lexists(local):
        raise NotFoundError(f"no such file or directory: {source}")
    folder, name = _target(context, ref, local, source, path)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    problem: list[Exception] = []

    def pack() -> None:
        try:
            with (
                os.fdopen(write_end, "wb") as stream,
                tarfile.open(fileobj=stream, mode="w|", dereference=follow) as tar,
            ):
                tar.add(local, arcname=name, filter=None if archive else _root_owned)
        except BrokenPipeError:
            return
        except OSError as error:
            problem.append(error)

    thread = threading.Thread(target=pack)
    thread.start()
    try:
        context.client.call("archive_put", {"ref": ref, "path": folder, "archive": archive}, fds=[read_end])
    finally:
        os.close(read_end)
        thread.join()
    if problem:
        raise OrchestraError(f"cannot copy {source}: {problem[0]}")


def _root_owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _target(context: Context, ref: str, local: str, source: str, path: str) -> tuple[str, str]:
    """(folder in the container, name there) by docker cp's rules."""
    existing = _stat(context, ref, path)
    is_dir = os.path.isdir(local)
    if existing and existing["is_dir"]:
        if is_dir and (source.endswith("/.") or source == "."):
            return path, "."
        return path, os.path.basename(os.path.realpath(local) if source in (".", "..") else local.rstrip("/"))
    if is_dir and existing:
        raise OrchestraError(f"cannot copy a directory onto the file {path}")
    if path.endswith("/") and not is_dir:
        raise NotFoundError(f"no such directory in the container: {path}")
    folder, name = os.path.split(path.rstrip("/"))
    return folder or "/", name


def _stat(context: Context, ref: str, path: str) -> dict[str, Any] | None:
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    try:
        found: dict[str, Any] = context.client.call(
            "archive_get", {"ref": ref, "path": path, "follow_links": True, "stat_only": True}, fds=[null]
        )
        return found
    except NotFoundError:
        return None
    except OrchestraError as error:
        if "no such" in error.brief.lower() or "not find" in error.brief.lower():
            return None
        raise
    finally:
        os.close(null)
