"""The runtime beside crun and runc in one run: starts, fifty at once, memory of a shim, the log path.

    python bench/runtime.py [--rounds 15] [--many] [--write FILE]

Needs root. One of ours is started by the engine through a warm shim, with everything on: network, limits,
seccomp, overlay. The peers run an equal bundle (its own configuration, less the overlay and the network's
cable, which they do not make). A C program measures what the kernel alone takes. Nothing here gates a test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.engine import image_cache

from orchestra.backend import ContainerSpec, NetworkUse
from orchestra.compose.model import IpamPool, Mount, Network, Service
from orchestra.engine.engine import Engine
from orchestra.images.archive import load
from orchestra.paths import Paths

FLOOR = r"""
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static char stack[1 << 16];
static char **a;
static int child(void *unused) {
    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (mount("overlay", a[2], "overlay", 0, a[1]) || chdir(a[2]) || mount("proc", "proc", "proc", 0, NULL) ||
        mount("tmpfs", "dev", "tmpfs", 0, NULL) || mount("sysfs", "sys", "sysfs", 0, NULL) || syscall(SYS_pivot_root, ".", ".") ||
        umount2(".", MNT_DETACH)) { perror("floor"); _exit(1); }
    execl("/bin/true", "true", NULL);
    _exit(1);
}
int main(int n, char **v) {
    a = v;
    for (int i = 0; i < atoi(v[3]); i++) {
        struct timespec x, y; int status;
        clock_gettime(CLOCK_MONOTONIC, &x);
        int pid = clone(child, stack + sizeof stack, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_VFORK | SIGCHLD, NULL);
        clock_gettime(CLOCK_MONOTONIC, &y);
        waitpid(pid, &status, 0);
        if (status) return 1;
        printf("%.6f\n", (y.tv_sec - x.tv_sec) + (y.tv_nsec - x.tv_nsec) / 1e9);
    }
}
"""


class Ours:
    """An engine in this process. Its containers are removed when all is measured: for five seconds after a
    removal ext4 looks at every freed inode before it makes a new one, which the peers, who mount no overlay,
    would not pay for."""

    def __init__(self, work: Path, run: Path) -> None:
        self.engine = Engine(Paths(work / "lib", run, "bench"))
        self.engine.parts.paths.make()
        self.engine.recover()
        with open(image_cache(), "rb") as stream:
            load(self.engine.images, stream)
        self.engine.create_network(Network("bench", "bench", driver="bridge", ipam=(IpamPool("10.213.0.0/16"),)), {})
        self.count = 0

    def create(self, *command: str, mounts: tuple[Mount, ...] = (), group: str = "bench") -> str:
        self.count += 1
        image = self.engine.image("busybox")
        assert image
        service = Service(f"s{self.count}", command=command, mem_limit=64 << 20, pids_limit=64, cpus=0.5, stop_grace_period=0.0)
        spec = ContainerSpec(
            f"b{self.count}", service, image[0], project=group, networks=(NetworkUse("bench"),), mounts=mounts, image_name="busybox"
        )  # fmt: skip
        return self.engine.create(spec).id

    def start(self, container: str) -> float:
        begin = time.perf_counter()
        self.engine.start(container)
        return time.perf_counter() - begin

    def remove(self, *containers: str) -> None:
        for container in containers:
            self.engine.remove(container, force=True, volumes=True)

    def bundle(self, container: str) -> Path:
        return self.engine.parts.bundle(container)

    def shims(self) -> list[int]:
        return [client.hello()["pid"] for client in self.engine.parts.shims._clients.values()]

    def close(self) -> None:
        self.remove(*(info.id for info in self.engine.containers()))
        self.engine.remove_network("bench")
        self.engine.close()


class Peer:
    """crun or runc on an equal bundle, in a mount namespace without the unified cgroup tree (crun refuses a
    hybrid machine). What entering that takes is taken off."""

    def __init__(self, name: str, work: Path, bundle: Path, root: Path) -> None:
        self.name, self.program, self.state = name, str(shutil.which(name)), work / f"{name}-state"
        self.place = work / f"{name}-bundle"
        self.place.mkdir()
        config = json.loads((bundle / "config.json").read_text())
        config["ociVersion"] = "1.0.2"
        config["root"] = {"path": str(root), "readonly": False}
        config["mounts"] = [m for m in config["mounts"][1:] if m["type"] != "cgroup" and not m["destination"].startswith("/etc/")]
        config["linux"]["cgroupsPath"] = "/orchestra-bench-peer/x"
        self.config = config
        (self.place / "config.json").write_text(json.dumps(config))
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "umount /sys/fs/cgroup/unified 2>/dev/null; exec sleep 100000"]
        self.space = subprocess.Popen(words)
        while "sleep" not in Path(f"/proc/{self.space.pid}/cmdline").read_text():
            time.sleep(0.01)
        self.prefix = ["nsenter", "-t", str(self.space.pid), "-m", "--"]
        self.entry = statistics.median(self._timed(["true"]) for _ in range(15))

    def _timed(self, words: list[str]) -> float:
        with tempfile.TemporaryFile() as said:  # no pipe: the container would hold it
            begin = time.perf_counter()
            done = subprocess.run([*self.prefix, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, check=False)
            elapsed = time.perf_counter() - begin
            if done.returncode:
                said.seek(0)
                raise RuntimeError(f"{self.name}: {said.read().decode()[-400:]}")
        return elapsed

    def words(self, verb: str, *rest: str) -> list[str]:
        return [self.program, "--root", str(self.state), verb, *rest]

    def start(self, name: str = "x", bundle: Path | None = None) -> float:
        return self._timed(self.words("run", "--detach", "--bundle", str(bundle or self.place), name)) - self.entry

    def delete(self, name: str = "x") -> None:
        self._timed(self.words("delete", "--force", name))

    def burst(self, count: int, parallel: int) -> float:
        """``parallel`` loops that start ``count`` containers in all."""
        bundles = []
        for number in range(count):
            place = self.place.parent / f"{self.name}-{number}"
            place.mkdir(exist_ok=True)
            config = {**self.config, "linux": {**self.config["linux"], "cgroupsPath": f"/orchestra-bench-peer/{number}"}}
            (place / "config.json").write_text(json.dumps(config))
            bundles.append(place)
        begin = time.perf_counter()
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda item: self.start(f"x{item[0]}", item[1]), enumerate(bundles)))
        elapsed = time.perf_counter() - begin
        for number in range(count):
            self.delete(f"x{number}")
        return elapsed

    def close(self) -> None:
        self.space.kill()
        self.space.wait()
        for folder in Path("/sys/fs/cgroup").glob("*/orchestra-bench-peer"):
            with contextlib.suppress(OSError):
                folder.rmdir()


def floor(work: Path, layer: Path, rounds: int) -> float | None:
    if not shutil.which("gcc"):
        return None
    (work / "floor.c").write_text(FLOOR)
    subprocess.run(["gcc", "-O2", "-w", "-o", str(work / "floor"), str(work / "floor.c")], check=True)
    for name in ("up", "wk", "at"):
        (work / name).mkdir()
    for name in ("proc", "dev", "sys"):
        (work / "up" / name).mkdir()
    options = f"lowerdir={layer},upperdir={work}/up,workdir={work}/wk,volatile"
    text = ""
    for _ in range(rounds):
        shutil.rmtree(work / "wk")
        (work / "wk").mkdir()
        text += subprocess.run([str(work / "floor"), options, str(work / "at"), "1"], check=True, capture_output=True, text=True).stdout
    return statistics.median(float(line) for line in text.split())


def pss(pid: int) -> float:
    """MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def starts(ours: Ours, peers: list[Peer], rounds: int) -> Iterator[tuple[str, float]]:
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        container = ours.create("sleep", "100000")
        times.setdefault("orchestra", []).append(ours.start(container))  # removed at the end, see ``Ours``
        for peer in peers:
            times.setdefault(peer.name, []).append(peer.start())
            peer.delete()
    for name, values in times.items():
        yield name, statistics.median(values)


def burst(ours: Ours, count: int) -> float:
    containers = [ours.create("sleep", "100000") for _ in range(count)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ours.start, containers))
    return time.perf_counter() - begin


def logs(ours: Ours, work: Path, megabytes: int) -> tuple[float, bool]:
    """MB/s of lines through the shim into the log, and whether all of them are there."""
    source = work / "lines"
    source.write_bytes(b"".join(b"%099d\n" % number for number in range(10_000)) * megabytes)
    container = ours.create("cat", "/lines", mounts=(Mount("bind", "/lines", str(source)),))
    begin = time.perf_counter()
    ours.engine.start(container)
    ours.engine.wait(container)
    elapsed = time.perf_counter() - begin
    kept = sum(path.stat().st_size for path in ours.engine.parts.log_path(container).parent.glob("output*") if not path.name.endswith(".idx"))
    ours.remove(container)
    return megabytes / elapsed, kept == megabytes * 1_000_000


def memory(ours: Ours) -> list[str]:
    def run(group: str, count: int) -> list[str]:
        found = [ours.create("sleep", "100000", group=group) for _ in range(count)]
        for container in found:
            ours.start(container)
        return found

    first = run("m0", 1)
    alone = pss(ours.shims()[-1])
    others = [container for number in range(1, 6) for container in run(f"m{number}", 1)]
    beside = statistics.median(pss(pid) for pid in ours.shims())
    last = ours.shims()[-1]
    before = pss(last)
    more = run("m5", 40)
    grown = (pss(last) - before) * 1024 / 40
    ours.remove(*first, *others, *more)
    return [f"| a shim, beside its nursery and one more | {alone:.1f} MiB |", f"| a shim among seven | {beside:.1f} MiB |", f"| each container more | {grown:.0f} KiB |"]


def crowd(ours: Ours, count: int) -> list[str]:
    begin = time.perf_counter()
    containers = [ours.create("sleep", "100000") for _ in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ours.start, containers))
    up = time.perf_counter() - begin
    begin = time.perf_counter()
    seen = sum(info.state == "running" for info in ours.engine.containers())
    look = time.perf_counter() - begin
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda container: ours.engine.remove(container, force=True, volumes=True), containers))
    return [f"| {count} containers up ({seen} run) | {up:.1f} s |", f"| looking at all of them | {look * 1000:.0f} ms |", f"| removing them | {time.perf_counter() - begin:.1f} s |"]


def measure(work: Path, run: Path, rounds: int, *, many: bool) -> str:
    ours = Ours(work, run)
    peers: list[Peer] = []
    lines: list[str] = []
    try:
        warm = ours.create("sleep", "100000")
        ours.start(warm)
        layer = ours.engine.images.layers(ours.engine.images.get(ours.engine.image("busybox")[0]))[0]  # type: ignore[index]
        root = work / "root"
        shutil.copytree(layer, root, symlinks=True)
        peers = [Peer(name, work, ours.bundle(warm), root) for name in ("crun", "runc") if shutil.which(name)]
        found = dict(starts(ours, peers, rounds))
        at_once = {"orchestra": burst(ours, 50), **{peer.name: peer.burst(50, 8) for peer in peers}}
        least = floor(work, layer, rounds)
        lines += ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
        for what, values, unit, scale in (("start of one container", found, "ms", 1000), ("50 containers at once", at_once, "s", 1)):
            cells = [f"{values[name] * scale:.{1 if scale > 1 else 2}f} {unit}" for name in found]
            own = values["orchestra"]
            cells = [cell + (f" ({own / values[name]:.2f})" if name != "orchestra" else "") for cell, name in zip(cells, found, strict=True)]
            lines.append(f"| {what} | {' | '.join(cells)} |")
        lines.append("")
        lines.append("In brackets: our time by theirs." if peers else "Neither crun nor runc is installed: there is nothing to compare with.")
        if least is not None:
            lines.append(f"The kernel alone (namespaces, overlay, proc, tmpfs, sysfs, pivot_root, execve, by a C program): {least * 1000:.1f} ms.")
        speed, whole = logs(ours, work, 1000)
        lines += ["", "| | |", "|---|---|", f"| lines through the shim into the log{'' if whole else ', NOT ALL OF THEM'} | {speed:.0f} MB/s |", *memory(ours)]
        if many:
            lines += crowd(ours, 500)
        ours.remove(warm)
    finally:
        for peer in peers:
            peer.close()
        ours.close()
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--many", action="store_true", help="500 containers, too")
    parser.add_argument("--write", default="")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="bench-runtime-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="orchestra-bench-", dir="/run" if os.path.ismount("/run") else "/dev/shm"))
    try:
        text = measure(work, run, args.rounds, many=args.many)
        print(text)
        if args.write:
            Path(args.write).write_text(text)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main()
