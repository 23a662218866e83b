"""Podman with a storage of its own, for tests that exchange images with it."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.engine import need
from support.runtimelab import COMMAND
from support.trees import snapshot


class Podman:
    """Its runtime is ours (crun 1.8 refuses hosts with both cgroup versions)."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.runtime = place / "orchestra-runtime"
        self.runtime.write_text("#!/bin/sh\nexec " + " ".join(COMMAND) + ' "$@"\n')
        self.runtime.chmod(0o755)

    def __call__(self, *words: str) -> str:
        base = ["podman", "--root", f"{self.place}/p", "--runroot", f"{self.place}/r", "--tmpdir", f"{self.place}/t",
                "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
                "--runtime", str(self.runtime)]  # fmt: skip
        done = subprocess.run([*base, *words], capture_output=True, text=True, timeout=150, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout

    def run(self, *words: str) -> str:
        return self("run", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", *words)

    def inspect(self, image: str) -> dict[str, Any]:
        return dict(json.loads(self("image", "inspect", image))[0])

    def files(self, image: str) -> dict[str, tuple[Any, ...]]:
        mounted = self("image", "mount", image).strip()
        try:
            return snapshot(Path(mounted))
        finally:
            self("image", "unmount", image)

    def close(self) -> None:
        for words in (("rm", "--all", "--force", "--time", "0"), ("rmi", "--all", "--force")):
            self(*words)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            if line.split()[4].startswith(f"{self.place}/"):
                subprocess.run(["umount", line.split()[4]], check=True)
        shutil.rmtree(self.place)


@contextlib.contextmanager
def podman() -> Iterator[Podman]:
    need("podman", bool(shutil.which("podman") and shutil.which("conmon")), "podman is not installed")
    made = Podman(Path(tempfile.mkdtemp(prefix="oc-p-")))  # it takes a path of 50 characters at most
    try:
        yield made
    finally:
        made.close()
