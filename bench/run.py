"""Figures of orchestra beside docker compose and podman-compose, in one run; printed, never gating a test.

    python bench/run.py [--counts 1,5,20,50] [--rounds 3] [--write FILE]

Every round asks each tool in turn, so that a machine that is busy for a while slows all of them. A peer
takes part when its command answers:

    ORCHESTRA_BENCH_PEER         words of docker compose   (default: docker compose)
    ORCHESTRA_BENCH_PODMAN       words of podman-compose   (default: podman-compose)
    ORCHESTRA_BENCH_PEER_IMAGE   an image there that has ``sleep`` (default: busybox)
    ORCHESTRA_BENCH_PEER_FOLDER  folder for compose files, "ours[:as the peers see it]"

Ours are measured from a compiled copy in a virtual environment of its own, with a private ORCHESTRA_ROOT
and its run directory on a tmpfs, as /run is; the daemon is started before (the peer's always runs).
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
LONG = 20  # from so many services on two rounds have to do


class Tool:
    """One compose command. ``shown`` is where it reads its files (for a peer in a world of its own)."""

    def __init__(self, name: str, words: list[str], image: str, environ: dict[str, str], folder: Path, shown: str) -> None:
        self.name, self.words, self.image, self.environ, self.folder, self.shown = name, words, image, environ, folder, shown
        self.can_config = "podman" not in name  # podman-compose config has no -q
        self.times: dict[str, list[float]] = {}

    def run(self, *words: str) -> float:
        begun = time.perf_counter()
        done = subprocess.run([*self.words, *words], env=self.environ, capture_output=True, text=True, check=False, cwd=self.folder)
        elapsed = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(words)}: {done.stderr[-500:]}")
        return elapsed

    def measure(self, what: str, *words: str) -> None:
        self.times.setdefault(what, []).append(self.run(*words))

    def median(self, what: str) -> float | None:
        return statistics.median(self.times[what]) if what in self.times else None

    def project(self, count: int) -> list[str]:
        """``-f FILE`` of a project with ``count`` services of sleep."""
        services = "".join(f"  s{i}:\n    image: {self.image}\n    command: sleep 100000\n    stop_grace_period: 1s\n    init: true\n"
                           for i in range(count))
        path = self.folder / f"bench{count}.yaml"
        path.write_text(f"name: bench{count}\nservices:\n{services}")
        return ["-f", f"{self.shown}/{path.name}"]

    def rich(self, count: int) -> list[str]:
        """``-f FILE`` of a project whose services have what real ones have."""
        parts = [f"name: rich{count}\nx-env: &env\n  LOG_LEVEL: ${{LOG_LEVEL:-info}}\n  REGION: eu\nservices:\n"]
        for i in range(count):
            needs = f"    depends_on:\n      s{i - 1}: {{condition: service_healthy}}\n" if i % 10 else ""
            parts.append(
                f"  s{i}:\n    image: registry.example.com/team/app{i}:${{TAG:-1.{i}}}\n    command: [serve, --port, \"{8000 + i}\"]\n{needs}"
                f"    environment:\n      <<: *env\n      NAME: app{i}\n      URL: http://s{i // 2}:80/${{PATH_PREFIX:-}}\n"
                f"    ports:\n      - \"{10000 + i}:80\"\n      - target: 443\n        published: {30000 + i}\n        protocol: tcp\n"
                f"    volumes:\n      - data{i % 10}:/data\n      - ./conf/{i}:/etc/app:ro\n      - type: tmpfs\n        target: /cache\n"
                f"    networks:\n      front:\n        aliases: [app{i}]\n      back: {{}}\n    labels:\n      com.example.owner: team{i % 7}\n"
                f"    healthcheck:\n      test: [CMD, curl, -f, http://127.0.0.1/]\n      interval: 10s\n      timeout: 1m30s\n"
                f"    deploy:\n      resources:\n        limits: {{cpus: \"0.5\", memory: 64M}}\n    restart: unless-stopped\n"
            )
        parts.append("networks:\n  front: {}\n  back:\n    internal: true\nvolumes:\n" + "".join(f"  data{i}: {{}}\n" for i in range(10)))
        path = self.folder / f"rich{count}.yaml"
        path.write_text("".join(parts))
        return ["-f", f"{self.shown}/{path.name}"]


def install(folder: Path) -> str:
    """A compiled copy of this checkout; its ``orchestra``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", str(HERE)], check=True, env=environ)
    subprocess.run([str(folder / "bin/python"), "-m", "compileall", "-q", str(folder / "lib")], check=False, env=environ)
    return str(folder / "bin/orchestra")


def ours(work: Path, run: Path) -> Tool:
    command = install(work / "venv")
    environ = {**os.environ, "ORCHESTRA_ROOT": str(work / "root"), "ORCHESTRA_RUN": str(run), "ORCHESTRA_IDLE": "600"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = work / "ours"
    folder.mkdir()
    subprocess.run([command, "image", "from-host", "bench", "--bin", "busybox"], env=environ, check=True, capture_output=True)
    return Tool("orchestra", [command], "bench", environ, folder, str(folder))


def peers() -> list[Tool]:
    shared = os.environ.get("ORCHESTRA_BENCH_PEER_FOLDER", "")
    folder = Path(shared.partition(":")[0]) if shared else Path(tempfile.mkdtemp(prefix="bench-peer-"))
    shown = shared.partition(":")[2] or str(folder)
    image = os.environ.get("ORCHESTRA_BENCH_PEER_IMAGE", "busybox")
    found = []
    for name, variable in (("docker compose", "ORCHESTRA_BENCH_PEER"), ("podman-compose", "ORCHESTRA_BENCH_PODMAN")):
        tool = Tool(name, shlex.split(os.environ.get(variable, name)), image, dict(os.environ), folder, shown)
        try:
            tool.run("version")
            tool.run(*tool.project(1), "up", "-d")
            tool.run(*tool.project(1), "down")
        except (OSError, RuntimeError) as problem:
            print(f"{name} takes no part: {problem}", file=sys.stderr)
            continue
        found.append(tool)
    return found


def measure(tools: list[Tool], counts: list[int], rounds: int) -> list[str]:
    """Fills the tools' times; what was measured, in order."""
    for tool in tools:
        tool.run("version")
    for _ in range(max(rounds, 5)):
        for tool in tools:
            tool.measure("version", "version")
    names = ["version"]
    for count in counts:
        names += [f"up -d, {count} services", f"down, {count} services"]
        for _ in range(rounds if count < LONG else min(rounds, 2)):
            for tool in tools:
                file = tool.project(count)
                tool.measure(f"up -d, {count} services", *file, "up", "-d")
                if count == LONG:
                    for _ in range(3):
                        tool.measure("ps at 20", *file, "ps")
                        tool.measure("up -d at 20, nothing to do", *file, "up", "-d")
                tool.measure(f"down, {count} services", *file, "down")
    names += ["ps at 20", "up -d at 20, nothing to do"] if LONG in counts else []
    for count in (1, 200):
        names.append(f"config -q, {count} services")
        for _ in range(max(rounds, 7)):
            for tool in tools:
                if tool.can_config:
                    tool.measure(names[-1], *tool.rich(count), "config", "-q")
    return names


def report(names: list[str], mine: Tool, others: list[Tool]) -> str:
    heads = ["what", "orchestra (s)"]
    for tool in others:
        heads += [f"{tool.name} (s)", "ratio"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for what in names:
        own = mine.median(what) or 0.0
        cells = [what, f"{own:.2f}"]
        for tool in others:
            theirs = tool.median(what)
            cells += [f"{theirs:.2f}" if theirs else "–", f"{own / theirs:.2f}" if theirs else "–"]
        lines.append(f"| {' | '.join(cells)} |")
    if not others:
        lines.append("\nNo docker compose and no podman-compose answered: there is nothing to compare with.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="1,5,20,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", default="", help="file to write the table to")
    args = parser.parse_args()
    counts = [int(word) for word in args.counts.split(",")]
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    memory = Path("/run" if os.path.ismount("/run") else "/dev/shm")
    run = Path(tempfile.mkdtemp(prefix="orchestra-bench-", dir=memory))
    tool = ours(work, run)
    try:
        others = peers()
        text = report(measure([tool, *others], counts, args.rounds), tool, others)
        print(text)
        if args.write:
            Path(args.write).write_text(text)
    finally:
        subprocess.run([*tool.words, "system", "shutdown"], env=tool.environ, capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


if __name__ == "__main__":
    main()
