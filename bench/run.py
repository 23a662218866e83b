"""Figures of orchestra beside docker compose, in one run; printed, never gating a test.

    python bench/run.py [--counts 1,5,20,50] [--rounds 3] [--write FILE]

The peer is ``docker compose`` if it answers, or what ORCHESTRA_BENCH_PEER names (for example
``ssh box docker compose``); ORCHESTRA_BENCH_PEER_IMAGE is an image there that has ``sleep``. Without a
peer only our own times are shown. Ours are measured from a compiled copy in a virtual environment of
its own, against a private ORCHESTRA_ROOT; the daemon is started before (the peer's always runs).
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
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


class Tool:
    """One compose command. ``files`` is where it reads its files (for a peer in a world of its own)."""

    def __init__(self, name: str, words: list[str], image: str, environ: dict[str, str], folder: Path, shown: str) -> None:
        self.name, self.words, self.image, self.environ, self.folder, self.shown = name, words, image, environ, folder, shown

    def run(self, *words: str) -> float:
        begun = time.perf_counter()
        done = subprocess.run([*self.words, *words], env=self.environ, capture_output=True, text=True, check=False, cwd=self.folder)
        elapsed = time.perf_counter() - begun
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(words)}: {done.stderr[-500:]}")
        return elapsed

    def project(self, count: int) -> list[str]:
        """``-f FILE`` of a project with ``count`` services of sleep."""
        services = "".join(f"  s{i}:\n    image: {self.image}\n    command: sleep 100000\n    stop_grace_period: 1s\n    init: true\n"
                           for i in range(count))
        path = self.folder / f"bench{count}.yaml"
        path.write_text(f"name: bench{count}\nservices:\n{services}")
        return ["-f", f"{self.shown}/{path.name}"]


def install(folder: Path) -> str:
    """A compiled copy of this checkout; its ``orchestra``."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", str(HERE)], check=True, env=environ)
    subprocess.run([str(folder / "bin/python"), "-m", "compileall", "-q", str(folder / "lib")], check=False, env=environ)
    return str(folder / "bin/orchestra")


def ours(work: Path) -> Tool:
    command = install(work / "venv")
    environ = {**os.environ, "ORCHESTRA_ROOT": str(work / "root"), "ORCHESTRA_IDLE": "600"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = work / "ours"
    folder.mkdir()
    subprocess.run([command, "image", "from-host", "bench", "--bin", "busybox"], env=environ, check=True, capture_output=True)
    return Tool("orchestra", [command], "bench", environ, folder, str(folder))


def peer() -> Tool | None:
    words = shlex.split(os.environ.get("ORCHESTRA_BENCH_PEER", "docker compose"))
    shared = os.environ.get("ORCHESTRA_BENCH_PEER_FOLDER", "")
    folder = Path(shared.partition(":")[0]) if shared else Path(tempfile.mkdtemp(prefix="bench-peer-"))
    shown = shared.partition(":")[2] or str(folder)
    tool = Tool("docker compose", words, os.environ.get("ORCHESTRA_BENCH_PEER_IMAGE", "busybox"), dict(os.environ), folder, shown)
    try:
        tool.run("ls")
    except (OSError, RuntimeError):
        return None
    return tool


def median(work: Callable[[], float], rounds: int) -> float:
    return statistics.median(work() for _ in range(rounds))


def measure(tool: Tool, counts: list[int], rounds: int) -> dict[str, float]:
    """Seconds by what was done."""
    found: dict[str, float] = {}
    tool.run("version")
    tool.run("ls")
    found["version"] = median(lambda: tool.run("version"), 5)
    for count in counts:
        file = tool.project(count)
        ups, downs = [], []
        for _ in range(rounds if count < 50 else min(rounds, 2)):
            ups.append(tool.run(*file, "up", "-d"))
            if count == 20:
                found["ps at 20"] = median(lambda: tool.run(*file, "ps"), 5)  # noqa: B023
                found["up -d at 20, nothing to do"] = median(lambda: tool.run(*file, "up", "-d"), 3)  # noqa: B023
            downs.append(tool.run(*file, "down"))
        found[f"up -d, {count} services"] = statistics.median(ups)
        found[f"down, {count} services"] = statistics.median(downs)
    for count in (1, 200):
        file = tool.project(count)
        found[f"config -q, {count} services"] = median(lambda: tool.run(*file, "config", "-q"), 5)  # noqa: B023
    return found


def report(mine: dict[str, float], theirs: dict[str, float] | None) -> str:
    lines = ["| what | orchestra (s) | docker compose (s) | ratio |", "|---|---|---|---|"]
    for what, seconds in mine.items():
        other = (theirs or {}).get(what)
        lines.append(f"| {what} | {seconds:.2f} | {f'{other:.2f}' if other else '–'} | {f'{seconds / other:.2f}' if other else '–'} |")
    if theirs is None:
        lines.append("\nNo docker compose answered: there is nothing to compare with.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", default="1,5,20,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", default="", help="file to write the table to")
    args = parser.parse_args()
    counts = [int(word) for word in args.counts.split(",")]
    work = Path(tempfile.mkdtemp(prefix="bench-"))
    tool = ours(work)
    try:
        mine = measure(tool, counts, args.rounds)
        other = peer()
        theirs = measure(other, counts, args.rounds) if other else None
        text = report(mine, theirs)
        print(text)
        if args.write:
            Path(args.write).write_text(text)
    finally:
        subprocess.run([*tool.words, "system", "shutdown"], env=tool.environ, capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
