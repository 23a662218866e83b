"""A busybox container under a shim of its own, for tests: bundles, and a host left as it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestra.linux import procfs
from orchestra.paths import Paths
from orchestra.runtime import defaults, shimclient
from orchestra.runtime.cgroups import manager, probe
from orchestra.runtime.shimclient import ShimClient, StateError

BUSYBOX = "/usr/bin/busybox"


def rootfs(folder: Path) -> None:
    """A root with busybox and its names."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy2(BUSYBOX, folder / "bin/busybox")
    for name in (
        "sh",
        "cat",
        "echo",
        "sleep",
        "true",
        "false",
        "ls",
        "id",
        "kill",
        "head",
        "yes",
        "dd",
        "stty",
        "env",
        "ps",
        "seq",
        "tail",
        "od",
        "test",
        "trap",
        "mount",
        "usleep",
    ):
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")


class World:
    """One ORCHESTRA_ROOT with one project and its shim."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths.from_environment({}, root=str(root))
        self.paths.make()
        self.project = "p"
        self.rootfs = root / "rootfs"
        rootfs(self.rootfs)
        self.client: ShimClient = shimclient.ensure(self.paths, self.project)

    def again(self) -> ShimClient:
        """A new client, after the shim may have died."""
        self.client.close()
        self.client = shimclient.ensure(self.paths, self.project)
        return self.client

    def bundle(
        self,
        name: str,
        *words: str,
        tty: bool = False,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> str:
        folder = self.paths.bundles / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = defaults.config(list(words), root=str(self.rootfs))
        config["process"]["terminal"] = tty
        config.get("linux", {}).pop("cgroupsPath", None)
        if change:
            change(config)
        (folder / "config.json").write_text(json.dumps(config))
        return str(folder)

    def log(self, name: str) -> dict[str, Any]:
        return {"path": str(self.paths.lib / f"{name}.log"), "driver": "local", "max_size": 0, "max_file": 1}

    def create(
        self,
        name: str,
        *words: str,
        tty: bool = False,
        stdin_open: bool = False,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> int:
        return self.client.create(
            name,
            self.bundle(name, *words, tty=tty, change=change),
            self.log(name),
            stdin_open=stdin_open,
            cgroup_path=f"/{self.paths.scope}/{self.project}/{name}",
        )

    def run(self, name: str, *words: str, **options: Any) -> int:
        pid = self.create(name, *words, **options)
        self.client.start(name)
        return pid

    def output(self, name: str) -> bytes:
        return (self.paths.lib / f"{name}.log").read_bytes()

    def clean(self) -> None:
        """Kill and delete all; the cgroups, the shim and the files are gone then."""
        self.again()
        for state in self.client.list():
            if state["status"] in ("running", "paused"):
                try:
                    self.client.signal(state["id"], signal.SIGKILL)
                except StateError:
                    pass  # it has just ended
                self.client.wait(state["id"])
            self.client.delete(state["id"])
        pid = self.client.hello()["pid"]
        self.client.close()
        eventually(lambda: not procfs.alive(pid), "the shim leaves")
        mode = probe()
        assert not manager(f"/{self.paths.scope}", mode).exists(), "cgroups are left"


@contextmanager
def world() -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="orchestra-shim-"))
    os.chmod(root, 0o755)
    try:
        found = World(root)
        try:
            yield found
        finally:
            found.clean()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def eventually(check: Callable[[], Any], what: str = "", seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds * float(os.environ.get("ORCHESTRA_TEST_PATIENCE", "1"))
    while not (value := check()):
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)
    return value


def process(*words: str, **more: Any) -> dict[str, Any]:
    """An OCI process for exec."""
    base = defaults.config(list(words))["process"]
    return {**base, "terminal": False, **more}
