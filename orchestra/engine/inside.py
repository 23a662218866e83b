"""Reading and changing a container's files, running or not: tar streams in and out, diff, commit.

A running container is reached through ``/proc/PID/root``; of a stopped one the overlay is mounted in a
mount namespace of a helper process. Either way each name is resolved within the container's root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from orchestra.engine import bundle
from orchestra.engine.container import Container
from orchestra.engine.owners import Owners
from orchestra.engine.parts import Parts
from orchestra.errors import NotFoundError, OrchestraError
from orchestra.images import shifted
from orchestra.volumes.manager import Volumes

HELPER = Path(__file__).with_name("inside_process.py")


class Inside:
    """See the module's docstring."""

    def __init__(self, parts: Parts, owners: Owners) -> None:
        self.parts, self.owners = parts, owners

    def _place(self, container: Container, lent: ExitStack) -> dict[str, Any]:
        """Where the helper finds the root; ``lent`` ends the mounts made for it."""
        if container.running and container.state.pid:
            return {"pid": container.state.pid, "user": bool(container.state.ids)}
        layers = self.parts.images.layers(self.parts.images.get(container.spec.image_id))
        self.owners.plain(container)
        bundle.make_upper(self.parts, container, layers)  # takes the mark of the volatile mount away
        root = bundle._root(self.parts, container, layers)
        volumes = []
        for record in container.state.mounts:
            source = self._source(record, lent)
            if source and os.path.exists(source):
                volumes.append(
                    {"source": source, "target": record["Destination"], "read_only": not record["RW"]}
                )
        (self.parts.folder(container.id) / "work").mkdir(mode=0o700, exist_ok=True)
        return {"overlay": root["options"], "at": str(self.parts.paths.mountpoint), "mounts": volumes}

    def _source(self, record: dict[str, Any], lent: ExitStack) -> str:
        """What a stopped container has at a mount; '' for what exists only while it runs."""
        volumes = Volumes(self.parts.paths.volumes)
        if record["Type"] == "bind":
            return str(record["Source"])
        if record["Type"] != "volume" or not volumes.exists(record["Name"]):
            return ""
        self.owners.plain_volume(record["Name"])
        subpath = record.get("Subpath") or ""
        mount = volumes.mount(record["Name"], record["Destination"], subpath=subpath)
        if mount["type"] == "tmpfs":
            return ""
        return str(lent.enter_context(volumes.lent(record["Name"], mount, subpath=subpath))["source"])

    def call(self, container: Container, request: dict[str, Any], fd: int) -> dict[str, Any]:
        """Run one request in the helper; ``fd`` is its stream. Raises OrchestraError."""
        command = [
            sys.executable,
            "-I",
            "-c",
            f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r});"
            "from orchestra.engine.inside_process import main; main(int(sys.argv[1]))",
            str(fd),
        ]
        with ExitStack() as lent:
            data = json.dumps({**self._place(container, lent), **request}).encode()
            done = subprocess.run(command, input=data, capture_output=True, pass_fds=(fd,), check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise OrchestraError(
                f"cannot reach the files of container {container.name}", details=tuple(tail)
            ) from None
        if "error" in answer:
            kind = NotFoundError if answer.get("missing") else OrchestraError
            raise kind(answer["error"])
        return answer

    def get(
        self, container: Container, path: str, fd: int, *, follow_links: bool, stat_only: bool
    ) -> dict[str, Any]:
        request = {"op": "stat" if stat_only else "get", "path": path, "follow": follow_links}
        return self.call(container, request, fd)

    def put(self, container: Container, path: str, fd: int, *, archive: bool) -> None:
        user = (container.process or {}).get("user", {}) if not archive else {}
        self.call(
            container,
            {
                "op": "put",
                "path": path,
                "archive": archive,
                "uid": user.get("uid", 0),
                "gid": user.get("gid", 0),
            },
            fd,
        )

    def export(self, container: Container, fd: int) -> None:
        """The root file system without what is mounted in it, ids as on disk: the layers alone, read-only,
        whether it runs or not."""
        layers = self.parts.images.layers(self.parts.images.get(container.spec.image_id))
        bundle.make_upper(self.parts, container, layers)
        ids = self.owners.of(container)
        if ids:
            layers = shifted.of_paths(layers, ids)
        places = [self.parts.folder(container.id) / "upper", *reversed(layers)]
        options = [f"lowerdir={':'.join(map(str, places))}", "redirect_dir=off", "metacopy=off", "index=off"]
        where = {
            "ids": ids,
            "pid": 0,
            "overlay": options,
            "at": str(self.parts.paths.mountpoint),
            "mounts": [],
        }
        self.call(container, {"op": "get", "path": "/.", "follow": False, "whole": True, **where}, fd)

    def changes(self, container: Container) -> list[tuple[str, str]]:
        from orchestra.images.diff import changes

        layers = self.parts.images.layers(self.parts.images.get(container.spec.image_id))
        found = changes(self.parts.folder(container.id) / "upper", layers)
        hidden = {r["Destination"] for r in container.state.mounts} | {
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/dev/init",
        }
        words = {"C": "C", "A": "A", "D": "D", "modified": "C", "added": "A", "deleted": "D"}
        rows = []
        for change in found:
            kind, path = (
                (getattr(change, "kind", None), getattr(change, "path", None))
                if not isinstance(change, tuple)
                else change
            )
            text = str(getattr(kind, "value", kind))
            if str(path) not in hidden:
                rows.append((words.get(text, text), str(path)))
        return rows
