"""The runtime beside crun and runc in one run: starts and their steps, fifty at once, memory of a shim, the log path.

    python bench/runtime.py [--rounds 15] [--many] [--write FILE]

Needs root. One of ours is started by the engine through a warm shim, with everything on: network, limits,
seccomp, overlay. The peers run an equal bundle (its own configuration, less the overlay and the network's
cable, which they do not make; of fifty at once there is a second figure, in which a script makes both for
them). A C program measures, step by step, what the kernel alone takes. Nothing here gates a test.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
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

from steps import Steps
from support.engine import image_cache

from orchestra.backend import ContainerSpec, ExecSpec, NetworkUse
from orchestra.compose.model import IpamPool, Logging, Mount, Network, Service
from orchestra.controller.executor import PARALLEL
from orchestra.engine.engine import Engine
from orchestra.images.archive import load
from orchestra.paths import Paths
from orchestra.runtime.cgroups import manager


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
        self.count = itertools.count(1)

    def create(self, *command: str, mounts: tuple[Mount, ...] = (), group: str = "bench", logging: Logging | None = None) -> str:
        number = next(self.count)
        image = self.engine.image("busybox")
        assert image
        service = Service(f"s{number}", logging=logging, command=command, mem_limit=64 << 20, pids_limit=64, cpus=0.5, stop_grace_period=0.0)
        spec = ContainerSpec(
            f"b{number}", service, image[0], project=group, networks=(NetworkUse("bench"),), mounts=mounts, image_name="busybox"
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

    def burst(self, count: int, parallel: int, layer: Path | None = None) -> float:
        """``parallel`` loops that start ``count`` containers in all; with a ``layer`` each on an overlay of its
        own and with a cable to a bridge, which a script of five commands makes."""
        bundles = [self._bundle(number, bool(layer)) for number in range(count)]
        if layer:
            subprocess.run([*self.prefix, "ip", "link", "add", "obp", "type", "bridge"], check=True)
        begin = time.perf_counter()
        with ThreadPoolExecutor(parallel) as pool:
            list(pool.map(lambda item: self._loop(*item, layer), enumerate(bundles)))
        elapsed = time.perf_counter() - begin
        for number in range(count):
            self.delete(f"x{number}")
            if layer:
                subprocess.run([*self.prefix, "sh", "-c", f"umount {bundles[number]}/root; ip netns del obp{number}"], check=True)
        if layer:
            subprocess.run([*self.prefix, "ip", "link", "del", "obp"], check=True)
        return elapsed

    def _bundle(self, number: int, complete: bool) -> Path:
        place = self.place.parent / f"{self.name}-{number}{'-all' if complete else ''}"
        place.mkdir(exist_ok=True)
        linux = {**self.config["linux"], "cgroupsPath": f"/orchestra-bench-peer/{number}"}
        config = {**self.config, "linux": linux}
        if complete:
            for name in ("root", "upper", "work"):
                (place / name).mkdir()
            config["root"] = {"path": "root", "readonly": False}
            spaces = [{**entry, "path": f"/run/netns/obp{number}"} if entry["type"] == "network" else entry for entry in linux["namespaces"]]
            config["linux"] = {**linux, "namespaces": spaces}
            config["linux"].pop("sysctl", None)  # crun refuses those of a joined namespace
        (place / "config.json").write_text(json.dumps(config))
        return place

    def _loop(self, number: int, bundle: Path, layer: Path | None) -> None:
        if layer is None:
            self.start(f"x{number}", bundle)
            return
        name = f"obp{number}"
        cable = f"link add {name} master obp type veth peer name eth0 netns {name}\nlink set {name} up\n"
        inner = f"addr add 10.213.200.{number + 2}/16 dev eth0\nlink set eth0 up\nlink set lo up\n"
        script = (
            f"mount -t overlay -o lowerdir={layer},upperdir={bundle}/upper,workdir={bundle}/work overlay {bundle}/root && ip netns add {name} && "
            f"printf '{cable}' | ip -batch - && printf '{inner}' | ip -n {name} -batch - && exec {' '.join(self.words('run', '--detach', '--bundle', str(bundle), f'x{number}'))}"
        )
        self._timed(["sh", "-c", script])

    def close(self) -> None:
        self.space.kill()
        self.space.wait()
        for folder in Path("/sys/fs/cgroup").glob("*/orchestra-bench-peer"):
            with contextlib.suppress(OSError):
                folder.rmdir()


def floor(work: Path, layer: Path, rounds: int) -> dict[str, float]:
    """What the kernel takes for each step, in µs, from a C program that does only that."""
    if not shutil.which("gcc"):
        return {}
    subprocess.run(["gcc", "-O2", "-w", "-o", str(work / "floor"), str(Path(__file__).with_name("floor.c"))], check=True)
    for name in ("up", "wk", "at"):
        (work / name).mkdir()
    for name in ("proc", "dev", "sys"):
        (work / "up" / name).mkdir()
    options = f"lowerdir={layer},upperdir={work}/up,workdir={work}/wk,volatile"
    manager_of = manager("/orchestra-bench-floor")
    manager_of.create({})
    groups = [folder for folder in manager_of.dirs() if "unified" not in folder]
    manager_of.destroy()
    words = [str(work / "floor"), options, str(work / "at"), *groups]
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        shutil.rmtree(work / "wk")
        (work / "wk").mkdir()
        text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        for line in text.splitlines():
            name, _, value = line.rpartition("\t")
            found.setdefault(name, []).append(float(value))
    return {name: statistics.median(values) for name, values in found.items()}


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


def execs(ours: Ours, peers: list[Peer], rounds: int) -> Iterator[tuple[str, float]]:
    """A further process in a running container, to its end."""
    times: dict[str, list[float]] = {}
    container = ours.create("sleep", "100000")
    ours.start(container)
    null = os.open(os.devnull, os.O_RDWR)
    for peer in peers:
        peer.start()
    for _ in range(rounds):
        begin = time.perf_counter()
        ours.engine.exec_wait(ours.engine.exec(container, ExecSpec(("true",)), (null, null, null)))
        times.setdefault("orchestra", []).append(time.perf_counter() - begin)
        for peer in peers:
            times.setdefault(peer.name, []).append(peer._timed(peer.words("exec", "x", "true")) - peer.entry)
    for peer in peers:
        peer.delete()
    os.close(null)
    for name, values in times.items():
        yield name, statistics.median(values)


def burst(ours: Ours, count: int) -> tuple[float, float]:
    """(seconds until all run, of these making their records and directories), as many at a time as ``up`` does"""
    begin = time.perf_counter()
    with ThreadPoolExecutor(PARALLEL) as pool:
        containers = list(pool.map(lambda _: ours.create("sleep", "100000"), range(count)))
        made = time.perf_counter()
        list(pool.map(ours.start, containers))
    return time.perf_counter() - begin, made - begin


def logs(ours: Ours, work: Path, megabytes: int, **limits: str) -> tuple[float, bool]:
    """MB/s of lines through the shim into the log, and whether they are there: all of them, in their order, or
    with ``limits`` the last of them without a gap."""
    source = work / "lines"
    if not source.exists():
        with open(source, "wb") as file:
            for block in range(megabytes):
                file.write(b"".join(b"%099d\n" % (block * 10_000 + number) for number in range(10_000)))
            file.flush()
            os.fsync(file.fileno())  # or the first to read it would wait for the disk
    options = {key.replace("_", "-"): value for key, value in limits.items()}
    container = ours.create("cat", "/lines", mounts=(Mount("bind", "/lines", str(source)),), logging=Logging(options=options))
    begin = time.perf_counter()
    ours.engine.start(container)
    ours.engine.wait(container)
    elapsed = time.perf_counter() - begin
    folder = ours.engine.parts.log_path(container).parent
    files = [path for path in folder.glob("output*") if path.suffix != ".idx"]
    files.sort(key=lambda path: -int(path.suffix[1:] or 0))  # the oldest has the highest number
    kept = sum(path.stat().st_size for path in files)
    whole = kept <= megabytes * 1_000_000 and (kept == megabytes * 1_000_000 or bool(limits))
    with open(source, "rb") as lines:
        lines.seek(-kept, os.SEEK_END)
        for path in files:
            with open(path, "rb") as file:
                while piece := file.read(1 << 22):
                    whole = whole and lines.read(len(piece)) == piece
    ours.remove(container)
    return megabytes / elapsed, whole and kept > 0


def run_in(ours: Ours, group: str, count: int) -> list[str]:
    found = [ours.create("sleep", "100000", group=group) for _ in range(count)]
    for container in found:
        ours.start(container)
    return found


def memory(ours: Ours) -> list[str]:
    """Before anything else has run: the first shim is alone with its nursery. The others come when that has
    settled, which it does after two seconds in which nobody asks."""
    first = run_in(ours, "m0", 1)
    alone = pss(ours.shims()[-1])
    nursery = int(Path(f"/proc/{ours.shims()[-1]}/stat").read_text().rpartition(")")[2].split()[1])
    deadline = time.monotonic() + 10
    while "orchestra-memory" not in Path(f"/proc/{nursery}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    others = [container for number in range(1, 7) for container in run_in(ours, f"m{number}", 1)]
    working = statistics.median(pss(pid) for pid in ours.shims())
    time.sleep(3)
    resting = statistics.median(pss(pid) for pid in ours.shims())
    last = ours.shims()[-1]
    before = pss(last)
    more = run_in(ours, "m6", 40)
    time.sleep(3)
    grown = (pss(last) - before) * 1024 / 40
    ours.remove(*first, *others, *more)
    return [
        f"| a shim alone (its nursery beside it) | {alone:.1f} MiB |", f"| a shim among seven, at work | {working:.1f} MiB |",
        f"| the same two seconds later, at rest | {resting:.1f} MiB |", f"| each container more | {grown:.0f} KiB |",
    ]  # fmt: skip


def crowd(ours: Ours, count: int) -> list[str]:
    begin = time.perf_counter()
    containers = [ours.create("sleep", "100000") for _ in range(count)]
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(ours.start, containers))
    up = time.perf_counter() - begin
    begin = time.perf_counter()
    seen = sum(info.state == "running" for info in ours.engine.containers())
    look = time.perf_counter() - begin
    begin = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda container: ours.engine.remove(container, force=True, volumes=True), containers))
    return [f"| {count} containers up ({seen} run) | {up:.1f} s |", f"| looking at all of them | {look * 1000:.0f} ms |", f"| removing them | {time.perf_counter() - begin:.1f} s |"]


def table(rows: dict[str, float], least: dict[str, float]) -> list[str]:
    lines = ["| step | ours | the kernel alone |", "|---|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {name} | {value:.0f} µs | {f'{least[name]:.0f} µs' if name in least else ''} |")
    return lines


def compare(names: list[str], rows: list[tuple[str, dict[str, float], str, float]]) -> list[str]:
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for what, values, unit, scale in rows:
        own, cells = values["orchestra"], []
        for name in names:
            if name not in values:
                cells.append("")
                continue
            cell = f"{values[name] * scale:.{1 if scale > 1 else 2}f} {unit}"
            cells.append(cell + (f" ({own / values[name]:.2f})" if name != "orchestra" else ""))
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def measure(work: Path, run: Path, rounds: int, *, many: bool) -> str:
    ours = Ours(work, run)
    peers: list[Peer] = []
    try:
        remembered = memory(ours)
        warm = ours.create("sleep", "100000")
        ours.start(warm)
        layer = ours.engine.images.layers(ours.engine.images.get(ours.engine.image("busybox")[0]))[0]  # type: ignore[index]
        root = work / "root"
        shutil.copytree(layer, root, symlinks=True)
        config = json.loads((ours.bundle(warm) / "config.json").read_text())
        peers = [Peer(name, work, ours.bundle(warm), root) for name in ("crun", "runc") if shutil.which(name)]
        steps = Steps()
        with steps.watching():
            found = dict(starts(ours, peers, rounds))
        executed = dict(execs(ours, peers, rounds))
        whole, made = burst(ours, 50)
        at_once = {"orchestra": whole - made, **{peer.name: peer.burst(50, 8) for peer in peers}}
        equal = {"orchestra": whole, **{peer.name: peer.burst(50, 8, layer=layer) for peer in peers}}
        inside = Steps()
        inside.inits(config, work, rounds)
        least = floor(work, layer, rounds)
        rows = [
            ("start of one container", found, "ms", 1000.0),
            ("exec of true", executed, "ms", 1000.0),
            ("50 containers at once", at_once, "s", 1.0),
            ("50 at once with records and directories; the peers with overlay and cable", equal, "s", 1.0),
        ]
        lines = compare(list(found), rows)
        lines += ["", "In brackets: our time by theirs." if peers else "Neither crun nor runc is installed: there is nothing to compare with.", ""]
        lines += ["The engine's steps of one start:", "", *table(steps.medians(), {"cable, addresses": least["cable"]} if least else {})]
        lines += ["", 'What the shim does in "create" and "start":', "", *table(inside.medians(), least)]
        if least:
            lines += ["", f"All of the kernel's steps together: {sum(least.values()) / 1000:.1f} ms."]
        plain = [logs(ours, work, 1000) for _ in range(3)]
        turning = [logs(ours, work, 1000, max_size="20m", max_file="5") for _ in range(3)]
        (speed, complete), (rotated, gapless) = (
            (statistics.median(each for each, _ in found), all(good for _, good in found)) for found in (plain, turning)
        )
        lines += ["", "| | |", "|---|---|", f"| lines through the shim into the log{'' if complete else ', NOT ALL OF THEM'} | {speed:.0f} MB/s |"]
        lines += [f"| the same with max-size 20m, max-file 5{'' if gapless else ', WITH GAPS'} | {rotated:.0f} MB/s |", *remembered]
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
