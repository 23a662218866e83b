"""Pull and push of one image over loopback, beside podman in the same run, and what each stage gives alone.

    python bench/registry.py [--rounds 3] [--megabytes 120] [--write FILE]

The image is one layer of files of this machine. Needs docker-registry (Debian package); podman takes part
where it is installed. The tools take turns; each push goes to an empty registry, each pull into an empty store.
Nothing here gates a test.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from run import install

PODMAN = ["podman", "--log-level", "error"]


def layer(path: Path, megabytes: int) -> None:
    """A tar of files below /usr, ``megabytes`` in all."""
    left = megabytes * 1_000_000
    with tarfile.open(path, "w") as archive:
        for top in ("/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/share"):
            for folder, folders, names in os.walk(top):
                folders.sort()
                for name in sorted(names):
                    place = f"{folder}/{name}"
                    size = os.lstat(place).st_size if os.path.isfile(place) and not os.path.islink(place) else 0
                    if not 0 < size < 20_000_000:
                        continue
                    archive.add(place, place.lstrip("/"), recursive=False)
                    left -= size
                    if left <= 0:
                        return


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

    def add(self, tar: Path) -> None:
        run([self.command, "image", "import", str(tar), "bench:1"], self.environ("first"))

    def push(self, name: str) -> float:
        run([self.command, "image", "tag", "bench:1", name], self.environ("first"))
        return run([self.command, "image", "push", name], self.environ("first"))

    def pull(self, name: str) -> float:
        shutil.rmtree(self.work / "second", ignore_errors=True)
        return run([self.command, "image", "pull", name], self.environ("second"))


class Podman:
    name = "podman"

    def __init__(self, work: Path) -> None:
        self.work = work

    def words(self, store: str) -> list[str]:
        return [*PODMAN, "--root", f"{self.work}/{store}", "--runroot", f"{self.work}/{store}-run"]

    def add(self, tar: Path) -> None:
        run([*self.words("pfirst"), "import", str(tar), "bench:1"], dict(os.environ))

    def push(self, name: str) -> float:
        run([*self.words("pfirst"), "tag", "bench:1", name], dict(os.environ))
        return run([*self.words("pfirst"), "push", "--tls-verify=false", name], dict(os.environ))

    def pull(self, name: str) -> float:
        self.clean("psecond")
        return run([*self.words("psecond"), "pull", "--tls-verify=false", name], dict(os.environ))

    def clean(self, store: str) -> None:
        if (self.work / store).exists():
            subprocess.run([*self.words(store), "system", "reset", "-f"], capture_output=True, check=False)
            shutil.rmtree(self.work / store, ignore_errors=True)


def alone(folder: Path, plain: bytes, packed: bytes) -> list[str]:
    """MB/s of each stage by itself, of the bytes it takes in or gives out."""

    def write() -> None:
        with open(folder / "written", "wb") as out:
            out.write(plain)
            os.fsync(out.fileno())

    def speed(size: int, work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return size / (time.perf_counter() - begin) / 1e6

    return [
        "| stage alone | MB/s |",
        "|---|---|",
        f"| read the compressed layer | {speed(len(packed), (folder / 'layer.tar.gz').read_bytes):.0f} |",
        f"| hash it (sha256) | {speed(len(packed), lambda: hashlib.sha256(packed).digest()):.0f} |",
        f"| decompress it (zlib; MB of plain bytes) | {speed(len(plain), lambda: zlib.decompress(packed, 31)):.0f} |",
        f"| hash the plain bytes | {speed(len(plain), lambda: hashlib.sha256(plain).digest()):.0f} |",
        f"| write them to one file, and fsync | {speed(len(plain), write):.0f} |",
    ]


def measure(tools: list[Ours | Podman], host: str, rounds: int, data: Path) -> dict[tuple[str, str], list[float]]:
    """``data`` is the registry's storage: it is emptied before each push, else blobs would only be mounted."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for tool in reversed(tools):
            shutil.rmtree(data, ignore_errors=True)
            found.setdefault((tool.name, "push"), []).append(tool.push(f"{host}/{tool.name}/r{number}:1"))
        for tool in tools:
            found.setdefault((tool.name, "pull"), []).append(tool.pull(f"{host}/orchestra/r{number}:1"))
    return found


def report(tools: list[Ours | Podman], found: dict[tuple[str, str], list[float]], plain: int, packed: int) -> list[str]:
    heads = ["what", "orchestra (s)", "MB/s (compressed)"] + (["podman (s)", "ratio"] if len(tools) > 1 else [])
    lines = [f"One layer, {plain / 1e6:.0f} MB plain, {packed / 1e6:.0f} MB compressed.", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for what in ("pull", "push"):
        own = statistics.median(found["orchestra", what])
        cells = [what, f"{own:.2f}", f"{packed / own / 1e6:.0f}"]
        if len(tools) > 1:
            theirs = statistics.median(found["podman", what])
            cells += [f"{theirs:.2f}", f"{own / theirs:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines if len(tools) > 1 else [*lines, "", "podman is not installed: there is nothing to compare with."]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=120)
    parser.add_argument("--write", default="")
    args = parser.parse_args()
    if not shutil.which("docker-registry"):
        raise SystemExit("this needs docker-registry (apt install docker-registry)")
    work = Path(tempfile.mkdtemp(prefix="bench-registry-", dir="/var/tmp"))
    tar = work / "layer.tar"
    layer(tar, args.megabytes)
    subprocess.run(["gzip", "-k", "-6", str(tar)], check=True)
    process, host = serve(work)
    tools: list[Ours | Podman] = [Ours(work)]
    if shutil.which("podman"):
        tools.append(Podman(work))
    try:
        for tool in tools:
            tool.add(tar)
        found = measure(tools, host, args.rounds, work / "data")
        plain, packed = tar.read_bytes(), (work / "layer.tar.gz").read_bytes()
        text = "\n".join([*report(tools, found, len(plain), len(packed)), "", *alone(work, plain, packed)]) + "\n"
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
