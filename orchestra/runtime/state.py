"""What ``orchestra-runtime`` keeps of its containers between two commands.

<root>/<id>/            0700; made first, so that an id is taken by one command only
    config.json         the configuration as it was at create
    state.json          the record, written when the init exists
    cgroup              the path of its cgroup, written before that is made
    start.sock          the init waits here; gone once it was started
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.linux import fs, procfs
from orchestra.runtime import cgroups as groups
from orchestra.runtime.problems import StepError

if TYPE_CHECKING:
    import socket

    from orchestra.runtime.cgroups import CgroupManager

_ID = re.compile(r"[A-Za-z0-9_+.-]+")


class Record(NamedTuple):
    """``start_time`` with ``pid`` names the init for good."""

    id: str
    bundle: str
    pid: int
    start_time: int
    created: str
    root: str
    version: str
    cgroup: str = ""
    owner: int = 0
    annotations: dict[str, str] = {}  # never changed


def _damaged(container_id: str, what: str) -> OrchestraError:
    return OrchestraError(
        f"the {what} of container {container_id} cannot be read", hint="delete --force takes it away"
    )


class Store:
    """The directory ``root`` of all records."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def folder(self, container_id: str) -> str:
        if not _ID.fullmatch(container_id) or container_id in (".", "..") or len(container_id) > 1024:
            raise OrchestraError(
                f"invalid container id {container_id!r}", hint="letters, digits and _ + . - make an id"
            )
        return os.path.join(self.root, container_id)

    def reserve(self, container_id: str) -> str:
        folder = self.folder(container_id)
        while True:
            os.makedirs(self.root, mode=0o700, exist_ok=True)
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                raise ConflictError(f"container {container_id} already exists") from None
            except FileNotFoundError:
                continue  # another command has just removed the empty root
            return folder

    def save(self, record: Record) -> None:
        fs.write_file(f"{self.folder(record.id)}/state.json", json.dumps(record._asdict()))

    def load(self, container_id: str) -> Record:
        try:
            with open(f"{self.folder(container_id)}/state.json", "rb") as file:
                return Record(**json.load(file))
        except FileNotFoundError:
            raise NotFoundError(f"container {container_id} does not exist") from None
        except (ValueError, TypeError):
            raise _damaged(container_id, "record") from None

    def config(self, container_id: str) -> dict[str, Any]:
        try:
            with open(f"{self.folder(container_id)}/config.json", "rb") as file:
                found = json.load(file)
        except (FileNotFoundError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise _damaged(container_id, "configuration")
        return found

    def half_made(self, container_id: str) -> str:
        """The cgroup of a container whose creation was cut off, '' if it had none yet."""
        try:
            with open(f"{self.folder(container_id)}/cgroup", encoding="utf-8") as file:
                return file.read()
        except OSError:
            return ""

    def all(self) -> list[Record]:
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            try:
                found.append(self.load(name))
            except (OrchestraError, OSError, ValueError, TypeError):
                continue  # being made, or being deleted
        return found

    def remove(self, container_id: str) -> None:
        """The record, and the root when it was the last."""
        fs.remove_tree(self.folder(container_id))
        try:
            os.rmdir(self.root)
        except OSError:
            pass  # others are there


def manager(record: Record) -> CgroupManager | None:
    return groups.manager(record.cgroup) if record.cgroup else None


def status(store: Store, record: Record) -> str:
    """created, running, paused or stopped: what the kernel shows, not what was written down."""
    if not procfs.alive(record.pid, record.start_time):
        return "stopped"
    if os.path.exists(f"{store.folder(record.id)}/start.sock"):
        return "created"
    group = manager(record)
    if group is not None:
        try:
            if group.frozen():
                return "paused"
        except OSError:
            pass  # no freezer on this machine
    return "running"


def describe(store: Store, record: Record) -> dict[str, Any]:
    """The state of the OCI specification."""
    now = status(store, record)
    return {
        "ociVersion": record.version,
        "id": record.id,
        "pid": 0 if now == "stopped" else record.pid,
        "status": now,
        "bundle": record.bundle,
        "rootfs": record.root,
        "created": record.created,
        "owner": str(record.owner) if record.owner else "root",
        "annotations": record.annotations,
    }


# The door at which the init waits for its start


def open_door(folder: str) -> socket.socket:
    """A listening socket in ``folder``; its path may be longer than an address can be."""
    import socket

    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        door.bind(f"/proc/self/fd/{fd}/start.sock")
        door.listen(4)
    finally:
        os.close(fd)
    return door


def knock(folder: str) -> None:
    """Start the waiting init; returns when its program was executed."""
    import socket

    from orchestra.runtime import channel

    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
            try:
                end.connect(f"/proc/self/fd/{fd}/start.sock")
            except (ConnectionRefusedError, FileNotFoundError):
                raise StepError(
                    "start", 0, None, "the container's init does not wait for its start"
                ) from None
            channel.tell(end, "start")
            message, _ = channel.receive(end)
        if message is not None:
            raise StepError.from_step(message.get("error") or {})
        os.unlink("start.sock", dir_fd=fd)
    finally:
        os.close(fd)
