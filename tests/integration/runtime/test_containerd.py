"""containerd takes us as its runtime: a daemon of the test's own, its image, its tasks.

The daemon lives in mount and process namespaces with an empty ``/run``: its shims, their sockets and all
mounts end with them, and the machine's own containerd, if there is one, sees nothing of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engine import need
from support.runtimelab import COMMAND, SLOWNESS, Lab, Result, eventually

pytestmark = [pytest.mark.root, pytest.mark.peer]
IMAGE = "example.test/box:latest"
PLUGINS = ("grpc.v1.cri", "snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper", "snapshotter.v1.zfs",
           "snapshotter.v1.overlayfs", "tracing.processor.v1.otlp", "internal.v1.tracing")
SLEEPER = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"


def save_image(root: Path, archive: Path) -> None:
    """The directory as an image of one layer, in the format of ``docker save``."""
    place = archive.parent / "image"
    place.mkdir()
    with tarfile.open(place / "layer.tar", "w") as layer:
        layer.add(root, arcname=".")
    digest = hashlib.sha256((place / "layer.tar").read_bytes()).hexdigest()
    config = {"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", "os": "linux",
              "config": {"Env": ["PATH=/bin", "COLOUR=blue"], "Cmd": ["sh"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    (place / "config.json").write_text(json.dumps(config))
    (place / "manifest.json").write_text(json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]))
    with tarfile.open(archive, "w") as file:
        for name in ("manifest.json", "config.json", "layer.tar"):
            file.add(place / name, arcname=name)


class Containerd:
    """A daemon, and ``ctr`` to speak to it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.namespace = f"test-{lab.mark}"
        self.runtime = lab.place / "orchestra-runtime"
        self.runtime.write_text("#!/bin/sh\nexec " + " ".join(COMMAND) + ' "$@"\n')
        self.runtime.chmod(0o755)
        config = lab.place / "config.toml"
        disabled = ", ".join(f'"io.containerd.{name}"' for name in PLUGINS)
        config.write_text(f'version = 2\nroot = "{lab.place}/lib"\nstate = "/run/containerd"\noom_score = 0\n'
                          f'disabled_plugins = [{disabled}]\n[grpc]\naddress = "/run/containerd/containerd.sock"\n')
        self.log = lab.place / "containerd.log"
        with open(self.log, "wb") as log:
            self.outer = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                 f"mount -t tmpfs tmpfs /run && exec containerd --config {config}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = 0

    def ready(self) -> None:
        def up() -> bool:
            assert self.outer.poll() is None, self.log.read_text()
            children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
            self.pid = int(children[0]) if children else 0
            return bool(self.pid) and self("version", timeout=10).returncode == 0

        eventually(up, "containerd answers")
        save_image(self.lab.root, self.lab.place / "image.tar")
        self("images", "import", "--snapshotter", "native", str(self.lab.place / "image.tar"), check=True)

    def command(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self.pid), "--mount", "--pid", "ctr", "--namespace", self.namespace, *words]

    def __call__(self, *words: str, check: bool = False, timeout: float = 90) -> Result:
        try:
            result = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout * SLOWNESS, check=False,
                                    stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired as late:
            result = subprocess.CompletedProcess(words, 124, "", f"timeout: {late.stderr!r}")
        if check:
            assert result.returncode == 0, f"{words}: {result.stderr}"
        return result

    def run_words(self, *options: str) -> list[str]:
        return ["run", "--snapshotter", "native", "--runc-binary", str(self.runtime), *options, IMAGE]

    def run(self, name: str, *words: str, options: tuple[str, ...] = ()) -> Result:
        return self(*self.run_words("--rm", *options), name, *words)

    def start(self, name: str, *words: str, options: tuple[str, ...] = ()) -> None:
        # in the background a task writes to the terminal of who started it: nobody reads it here
        self(*self.run_words("--detach", "--null-io", *options), name, *words, check=True)
        eventually(lambda: self.status(name) == "RUNNING", f"{name} runs")

    def status(self, name: str) -> str:
        rows = [line.split() for line in self("tasks", "list", check=True).stdout.splitlines()]
        return next((row[2] for row in rows if row[0] == name), "")

    def cgroup(self, name: str) -> Path | None:
        found = [*Path("/sys/fs/cgroup").glob(f"memory/{self.namespace}/{name}"), *Path("/sys/fs/cgroup").glob(f"{self.namespace}/{name}")]
        return found[0] if found else None

    def close(self) -> None:
        for pid in (self.pid, self.outer.pid):
            if pid and self.outer.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # the first of the namespace takes all others along
        self.outer.wait(30)
        for place in (*Path("/sys/fs/cgroup").glob(f"*/{self.namespace}"), Path("/sys/fs/cgroup") / self.namespace):
            for folder, _folders, _files in os.walk(place, topdown=False):
                eventually(lambda here=folder: _rmdir(here), f"{folder} is empty")


def _rmdir(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def containerd(lab: Lab) -> Iterator[Containerd]:
    need("containerd", bool(shutil.which("containerd") and shutil.which("ctr")), "containerd is not installed")
    daemon = Containerd(lab)
    try:
        daemon.ready()
        yield daemon
    finally:
        daemon.close()


def test_tasks_in_the_foreground(containerd: Containerd) -> None:
    done = containerd.run("a", "sh", "-c", "echo hi; echo error >&2; id -u; echo $COLOUR; exit 3")
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (3, "hi\n0\nblue\n", "error")
    options = ("--cwd", "/tmp", "--env", "A=b", "--read-only", "--seccomp", "--cap-drop", "CAP_CHOWN")
    done = containerd.run("b", "sh", "-c", "id -u; pwd; echo $A; touch /tmp/x; grep -E '^(Seccomp:|NoNewPrivs|CapBnd)' /proc/self/status",
                          options=options)
    assert done.stdout.split() == ["0", "/tmp", "b", "CapBnd:", "00000000a80425fa", "NoNewPrivs:", "1", "Seccomp:", "2"], done.stderr
    assert "Read-only file system" in done.stderr
    done = containerd.run("d", "nosuch")
    assert done.returncode == 1 and '"nosuch": executable file not found in $PATH' in done.stderr, done.stderr
    assert containerd("containers", "list", "--quiet").stdout == ""


def test_the_life_of_a_task(containerd: Containerd) -> None:
    containerd.start("a", "sh", "-c", SLEEPER, options=("--memory-limit", str(50 << 20), "--cpu-shares", "256"))
    place = containerd.cgroup("a")
    assert place and containerd("tasks", "exec", "--exec-id", "first", "a", "true").returncode == 0
    limit = next(file for name in ("memory.limit_in_bytes", "memory.max") if (file := place / name).exists())
    assert int(limit.read_text()) == 50 << 20
    done = containerd("tasks", "exec", "--exec-id", "e", "--cwd", "/etc", "--user", "1000:1000", "a", "sh", "-c",
                      "pwd; id -u; cat /proc/1/comm; exit 7")
    assert (done.returncode, done.stdout) == (7, "/etc\n1000\nsh\n"), done.stderr
    done = containerd("tasks", "exec", "--exec-id", "f", "a", "nosuch")
    assert done.returncode == 1 and "executable file not found in $PATH" in done.stderr
    assert len(containerd("tasks", "ps", "a", check=True).stdout.splitlines()) >= 2
    containerd("tasks", "pause", "a", check=True)
    assert containerd.status("a") == "PAUSED"
    containerd("tasks", "resume", "a", check=True)
    assert containerd.status("a") == "RUNNING"
    metrics = json.loads(containerd("tasks", "metrics", "--format", "json", "a", check=True).stdout)
    assert metrics["memory"]["usage"]["limit"] == 50 << 20 and metrics["cpu"]["usage"]["total"] > 0
    containerd("tasks", "kill", "--signal", "TERM", "a", check=True)
    eventually(lambda: containerd.status("a") == "STOPPED", "it heeds the signal")
    assert "not found" in containerd("tasks", "kill", "--signal", "KILL", "a").stderr
    assert "exit code 5" in containerd("tasks", "delete", "a", check=True).stderr
    containerd("containers", "delete", "a", check=True)
    assert containerd.cgroup("a") is None


def test_a_task_is_killed_with_all_its_processes(containerd: Containerd) -> None:
    """In the pid namespace of the daemon, so that only the cgroup knows what belongs to it."""
    words = ("sh", "-c", "sleep 1000 & sleep 1000 & wait")
    containerd.start("a", *words, options=("--with-ns", "pid:/proc/1/ns/pid"))
    eventually(lambda: len(containerd("tasks", "ps", "a").stdout.splitlines()) == 4, "three processes")
    containerd("tasks", "delete", "--force", "a")
    containerd("containers", "delete", "a", check=True)
    assert containerd.cgroup("a") is None


def test_terminals(containerd: Containerd) -> None:
    containerd.start("a", "sh", "-c", SLEEPER)
    script = 'tty; until [ "$(stty size 2>&1)" = "30 90" ]; do sleep 0.05; done; test -t 2 && echo all; exit 4'
    for words in ([*containerd.run_words("--rm", "--tty"), "b", "sh", "-c", script],
                  ["tasks", "exec", "--tty", "--exec-id", "e", "a", "sh", "-c", script]):
        code, text = _in_a_terminal(containerd.command(*words))
        assert (code, text.split()) == (4, ["/dev/pts/0", "all"]), text


def _in_a_terminal(words: list[str]) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    text, deadline = b"", time.monotonic() + 60 * SLOWNESS
    try:
        while time.monotonic() < deadline and select.select([ours], [], [], 5)[0]:
            with contextlib.suppress(OSError):
                if data := os.read(ours, 4096):
                    text += data
                    continue
            break
        return process.wait(60), text.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_out_of_memory_is_told(containerd: Containerd, lab: Lab) -> None:
    log = lab.place / "events"
    with open(log, "wb") as file:
        events = subprocess.Popen(containerd.command("events"), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        def heard() -> bool:
            containerd("namespaces", "label", containerd.namespace, "x=y")
            return "namespaces/update" in log.read_text()

        eventually(heard, "events are told")
        done = containerd.run("a", "sh", "-c", "x=$(cat /dev/zero | tr '\\000' x)", options=("--memory-limit", str(20 << 20)))
        assert done.returncode != 0
        eventually(lambda: "/tasks/oom" in log.read_text(), "the event of it")
    finally:
        events.kill()
        events.wait()
