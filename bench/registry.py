"""Pull and push of two images over loopback, beside podman in the same run, and MB/s of each stage: within our
pull, and what the disk and the libraries give alone.

    python bench/registry.py [--rounds 3] [--megabytes 120] [--layers 6] [--write FILE]

The images hold files of this machine, one of them in one layer, the other in several. Needs docker-registry (Debian
package); podman takes part where it is installed. The tools take turns; each push goes to an empty registry, each
pull into an empty store. Nothing here gates a test.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run import install

PODMAN = ["podman", "--log-level", "error"]


@dataclass(frozen=True)
class Sample:
    """An image to move: its layers as plain tars, and the archive that both tools load."""

    name: str
    tars: list[Path]
    archive: Path

    @property
    def plain(self) -> int:
        return sum(tar.stat().st_size for tar in self.tars)


def files() -> Iterator[tuple[str, int]]:
    for top in ("/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/share"):
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                place = f"{folder}/{name}"
                size = os.lstat(place).st_size if os.path.isfile(place) and not os.path.islink(place) else 0
                if 0 < size < 5_000_000:
                    yield place, size


def sample(work: Path, name: str, megabytes: int, count: int) -> Sample:
    """An image of ``count`` layers of files below /usr, ``megabytes`` in all, as docker-archive."""
    source, tars = files(), []
    for number in range(count):
        left = megabytes * 1_000_000 // count
        tars.append(work / f"{name}{number}.tar")
        with tarfile.open(tars[-1], "w") as archive:
            while left > 0:
                place, size = next(source)
                archive.add(place, place.lstrip("/"), recursive=False)
                left -= size
    digests = ["sha256:" + hashlib.sha256(tar.read_bytes()).hexdigest() for tar in tars]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": digests}}
    manifest = [{"Config": "config.json", "RepoTags": [f"localhost/bench-{name}:1"], "Layers": [tar.name for tar in tars]}]
    whole = work / f"{name}.tar"
    with tarfile.open(whole, "w") as archive:
        for title, value in (("config.json", config), ("manifest.json", manifest)):
            (work / title).write_text(json.dumps(value))
            archive.add(work / title, title)
        for tar in tars:
            archive.add(tar, tar.name)
    return Sample(name, tars, whole)


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A registry on loopback; its process and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection((host.split(":")[0], int(host.split(":")[1])), 1).close()
            return process, host
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def run(words: list[str], environ: dict[str, str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-600:]}")
    return elapsed


class Ours:
    name = "orchestra"

    def __init__(self, work: Path) -> None:
        self.work, self.command = work, install(work / "venv")

    def environ(self, store: str) -> dict[str, str]:
        found = {**os.environ, "ORCHESTRA_ROOT": str(self.work / store), "HOME": "/nonexistent"}
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        return found

    def add(self, sample: Sample) -> None:
        run([self.command, "image", "load", "-i", str(sample.archive)], self.environ("first"))

    def push(self, sample: Sample, name: str) -> float:
        run([self.command, "image", "tag", f"localhost/bench-{sample.name}:1", name], self.environ("first"))
        return run([self.command, "image", "push", name], self.environ("first"))

    def pull(self, name: str) -> float:
        shutil.rmtree(self.work / "second", ignore_errors=True)
        return run([self.command, "image", "pull", name], self.environ("second"))

    def stages(self, name: str) -> dict[str, Any]:
        """One instrumented pull."""
        root = self.work / "third"
        shutil.rmtree(root, ignore_errors=True)
        python = Path(self.command).with_name("python")
        words = [str(python), str(Path(__file__).with_name("pullstages.py")), str(root), name]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=self.environ("third"), cwd="/")
        return dict(json.loads(done.stdout))


class Podman:
    name = "podman"

    def __init__(self, work: Path) -> None:
        self.work = work

    def words(self, store: str) -> list[str]:
        return [*PODMAN, "--root", f"{self.work}/{store}", "--runroot", f"{self.work}/{store}-run"]

    def add(self, sample: Sample) -> None:
        run([*self.words("pfirst"), "load", "-i", str(sample.archive)], dict(os.environ))

    def push(self, sample: Sample, name: str) -> float:
        run([*self.words("pfirst"), "tag", f"localhost/bench-{sample.name}:1", name], dict(os.environ))
        return run([*self.words("pfirst"), "push", "--tls-verify=false", name], dict(os.environ))

    def pull(self, name: str) -> float:
        self.clean("psecond")
        return run([*self.words("psecond"), "pull", "--tls-verify=false", name], dict(os.environ))

    def clean(self, store: str) -> None:
        if (self.work / store).exists():
            subprocess.run([*self.words(store), "system", "reset", "-f"], capture_output=True, check=False)
            shutil.rmtree(self.work / store, ignore_errors=True)


def alone(folder: Path, plain: bytes, packed: bytes) -> dict[str, float]:
    """MB/s of each stage by itself, of the bytes it takes in or gives out."""

    def write(sync: bool) -> None:
        with open(folder / "written", "wb") as out:
            out.write(plain)
            if sync:
                os.fsync(out.fileno())

    def speed(size: int, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return size / (time.perf_counter() - begin) / 1e6

    return {
        "decompress": speed(len(plain), lambda: zlib.decompress(packed, 31)),
        "hash": speed(len(plain), lambda: hashlib.sha256(plain).digest()),
        "write": speed(len(plain), lambda: write(False)),
        "write and fsync": speed(len(plain), lambda: write(True)),
    }


Times = dict[tuple[str, str], list[float]]


def measure(tools: list[Ours | Podman], sample: Sample, host: str, rounds: int, data: Path) -> Times:
    """``data`` is the registry's storage: it is emptied before each push, else blobs would only be mounted."""
    found: Times = {}
    for number in range(rounds):
        for tool in reversed(tools):
            shutil.rmtree(data, ignore_errors=True)
            found.setdefault((tool.name, "push"), []).append(tool.push(sample, f"{host}/{tool.name}/{sample.name}{number}:1"))
        for tool in tools:
            found.setdefault((tool.name, "pull"), []).append(tool.pull(f"{host}/orchestra/{sample.name}{number}:1"))
    return found


def report(tools: list[Ours | Podman], found: Times, sample: Sample, packed: int) -> list[str]:
    heads = ["what", "orchestra (s)", "MB/s (compressed)"] + (["podman (s)", "ratio"] if len(tools) > 1 else [])
    layers = f"{len(sample.tars)} layers" if len(sample.tars) > 1 else "One layer"
    lines = [f"{layers}, {sample.plain / 1e6:.0f} MB plain, {packed / 1e6:.0f} MB compressed.", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for title, what, pick in (("pull", "pull", statistics.median), ("push", "push", statistics.median), ("first push", "push", lambda times: times[0])):
        own = pick(found["orchestra", what])
        cells = [title, f"{own:.2f}", f"{packed / own / 1e6:.0f}"]
        if len(tools) > 1:
            theirs = pick(found["podman", what])
            cells += [f"{theirs:.2f}", f"{own / theirs:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(tools) > 1 else [*lines, "", "podman is not installed: there is nothing to compare with."]


def stage_table(seen: list[tuple[Sample, dict[str, Any]]], bare: dict[str, float]) -> list[str]:
    """Seconds and MB/s of each stage within our pulls, and the MB/s of the library or the disk alone."""
    heads = ["stage"]
    for sample, whole in seen:
        heads += [f"{len(sample.tars)} layer{'s' * (len(sample.tars) > 1)}: s of {whole['whole']:.2f}", "MB/s"]
    lines = [f"| {' | '.join(heads)} | alone, MB/s |", f"|{'---|' * (len(heads) + 1)}"]
    for stage, other in (
        ("download", ""), ("write the blob", "write"), ("hash", "hash"), ("decompress", "decompress"), ("write the files", "write"),
        ("create and dress the files", ""),
    ):  # fmt: skip
        cells = [stage]
        for _, whole in seen:
            seconds, size = whole["stages"].get(stage, (0.0, 0.0))
            cells += [f"{seconds:.2f}", f"{size / seconds / 1e6:.0f}" if size else "–"]
        lines.append(f"| {' | '.join(cells)} | {f'{bare[other]:.0f}' if other else '–'} |")
    return [*lines, "", f"Writing the plain bytes to one file and waiting for the disk (fsync): {bare['write and fsync']:.0f} MB/s."]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=120)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--write", default="")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that podman's mounts go
    if not shutil.which("docker-registry"):
        raise SystemExit("this needs docker-registry (apt install docker-registry)")
    work = Path(tempfile.mkdtemp(prefix="bench-registry-", dir="/var/tmp"))
    samples = [sample(work, "one", args.megabytes, 1), sample(work, "many", args.megabytes, args.layers)]
    process, host = serve(work)
    ours = Ours(work)
    tools: list[Ours | Podman] = [ours]
    if shutil.which("podman"):
        tools.append(Podman(work))
    try:
        lines: list[str] = []
        seen: list[tuple[Sample, dict[str, Any]]] = []
        for chosen in samples:
            for tool in tools:
                tool.add(chosen)
            found = measure(tools, chosen, host, args.rounds, work / "data")
            ours.push(chosen, f"{host}/orchestra/{chosen.name}:stages")
            whole = ours.stages(f"{host}/orchestra/{chosen.name}:stages")
            seen.append((chosen, whole))
            lines += [*report(tools, found, chosen, int(whole["stages"]["download"][1])), ""]
        subprocess.run(["gzip", "-k", "-6", str(samples[0].tars[0])], check=True)
        bare = alone(work, samples[0].tars[0].read_bytes(), Path(f"{samples[0].tars[0]}.gz").read_bytes())
        text = "\n".join([*lines, *stage_table(seen, bare)]) + "\n"
        print(text)
        if args.write:
            Path(args.write).write_text(text)
    finally:
        process.terminate()
        process.wait(20)
        for tool in tools:
            if isinstance(tool, Podman):
                tool.clean("pfirst")
                tool.clean("psecond")
            else:
                subprocess.run([tool.command, "system", "shutdown"], env=tool.environ("first"), capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
