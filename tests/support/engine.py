"""A private engine for a test: its own ORCHESTRA_ROOT, the real command, and everything gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SLOWNESS = float(os.environ.get("ORCHESTRA_TEST_PATIENCE", "1"))  # of an emulated machine
PATIENCE = 40.0 * SLOWNESS  # seconds that a state may take on a slow machine
BIN = str(Path(sys.executable).parent / "orchestra")


def need(name: str, found: bool, reason: str) -> None:
    """Skip with a reason; in CI a missing facility is a failure instead (``CI=true``)."""
    if found:
        return
    if os.environ.get("CI") == "true" and name not in os.environ.get("ORCHESTRA_OPTIONAL", "").split(","):
        pytest.fail(f"{name} is needed in CI: {reason}")
    pytest.skip(reason)


def need_root() -> None:
    need("root", os.geteuid() == 0, "needs root")


def eventually(check: Callable[[], Any], *, what: str = "", seconds: float = PATIENCE) -> Any:
    """The first true value of ``check``; fails with ``what`` when the time is over."""
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        last = check()
        if last:
            return last
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what or check} (last: {last!r})")


class Engine:
    """Runs ``orchestra`` against a root of its own."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.root = root
        self.environ = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(root / "home"),
            "ORCHESTRA_ROOT": str(root),
            "ORCHESTRA_IDLE": os.environ.get("ORCHESTRA_TEST_IDLE", "3"),
            "LANG": "C.UTF-8",
            **environ,
        }
        (root / "home").mkdir(parents=True, exist_ok=True)
        self.folder = root / "work"
        self.folder.mkdir(exist_ok=True)
        self.started: list[subprocess.Popen[str]] = []

    # running commands

    def popen(self, *words: str, cwd: Path | None = None, **more: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True, **more}
        environ = {**self.environ, **options.pop("environ", {})}
        process = subprocess.Popen([BIN, *words], cwd=cwd or self.folder, env=environ, **options)
        self.started.append(process)
        return process

    def run(self, *words: str, code: int | None = 0, cwd: Path | None = None, stdin: str | None = None,
            timeout: float = 120, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run to the end; fails when the exit code is not ``code`` (None: any)."""
        done = subprocess.run(
            [BIN, *words], cwd=cwd or self.folder, env={**self.environ, **(environ or {})}, text=True, capture_output=True,
            input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, timeout=timeout * SLOWNESS, check=False, errors="surrogateescape",
        )  # fmt: skip
        if code is not None and done.returncode != code:
            log = self.root / "run/daemon.log"
            tail = log.read_text(errors="replace")[-3000:] if log.exists() else ""
            raise AssertionError(
                f"orchestra {' '.join(words)}: exit {done.returncode}, not {code}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
                f"\n--- daemon\n{tail}"
            )
        assert "Traceback (most recent call last)" not in done.stderr, done.stderr
        return done

    def out(self, *words: str, **more: Any) -> str:
        return self.run(*words, **more).stdout

    def json_lines(self, *words: str, **more: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out(*words, **more).splitlines()]

    # files and states

    def write(self, text: str, name: str = "compose.yaml") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def ps(self, *words: str) -> dict[str, dict[str, Any]]:
        """The project's containers by name."""
        return {row["Name"]: row for row in self.json_lines("ps", "-a", "--format", "json", *words)}

    def state(self, name: str) -> str:
        return str(self.ps().get(name, {}).get("State", "absent"))

    def inspect(self, ref: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.out("container", "inspect", ref))
        return found[0]

    def wait_state(self, name: str, state: str) -> None:
        eventually(lambda: self.state(name) == state, what=f"{name} is {state}")

    def daemon_pid(self) -> int | None:
        try:
            pid = int((self.root / "run/daemon.lock").read_text() or 0)
            with open(f"/proc/{pid}/cmdline", "rb") as stream:
                return pid if str(self.root).encode() in stream.read() else None
        except (OSError, ValueError):
            return None

    def kill_daemon(self) -> int:
        pid = self.daemon_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.daemon_pid() is None, what="daemon gone")
        return pid

    def processes(self) -> list[int]:
        """Processes of this engine: the daemon and the shims (their command line names the root)."""
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    line = stream.read()
            except OSError:
                continue
            if str(self.root).encode() in line and (b"daemon" in line or b"shim" in line) and int(entry) != os.getpid():
                found.append(int(entry))
        return found

    def close(self) -> None:
        """End the commands that still run, remove all containers and networks, end the daemon, delete the root."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()
        with contextlib.suppress(Exception):
            ids = self.run("container", "ls", "-aq", "--no-trunc", code=None).stdout.split()
            if ids:
                self.run("container", "rm", "-f", "-v", *ids, code=None)
            names = self.run("network", "ls", "-q", code=None).stdout.split()
            for name in names:
                self.run("network", "rm", name, code=None)
        with contextlib.suppress(Exception):
            self.run("system", "shutdown", code=None)
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.processes(), what="daemon and shims gone", seconds=15 * SLOWNESS)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)


_CACHE: dict[str, Path] = {}


def image_cache() -> Path:
    """A saved image ``busybox`` (static, with its applets), made once a test session."""
    if "busybox" not in _CACHE:
        folder = Path(tempfile.mkdtemp(prefix="oc-images-"))
        import atexit

        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        environ = {**os.environ, "ORCHESTRA_ROOT": str(folder / "engine")}
        subprocess.run([BIN, "image", "from-host", "busybox", "--bin", "busybox", "--cmd", '["sh"]'], check=True, env=environ,
                       stdout=subprocess.DEVNULL)
        archive = folder / "busybox.tar"
        subprocess.run([BIN, "image", "save", "-o", str(archive), "busybox"], check=True, env=environ)
        _CACHE["busybox"] = archive
    return _CACHE["busybox"]


@contextlib.contextmanager
def engine(**environ: str) -> Iterator[Engine]:
    """An engine with the image ``busybox``."""
    need_root()
    need("nft", shutil.which("nft") is not None, "needs nft (package nftables)")
    made = Engine(Path(tempfile.mkdtemp(prefix="oc-")), **environ)
    try:
        made.run("image", "load", "-i", str(image_cache()))
        yield made
    finally:
        made.close()
