"""Runs ``orchestra-runtime`` on throw-away bundles, and takes everything away again."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import bundle

import orchestra

MAIN = Path(orchestra.__file__).parent / "runtime/main.py"
COMMAND = [sys.executable, "-I", "-S", str(MAIN)]
Result = subprocess.CompletedProcess[str]
SLOWNESS = float(os.environ.get("ORCHESTRA_TEST_PATIENCE", "1"))  # of an emulated machine


def eventually(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait for a true value."""
    deadline = time.monotonic() + timeout * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)


class Lab:
    """One state directory, one root file system, one bundle a container."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.root = bundle.make_root(place / "root")
        self.state = place / "state"
        self.mark = secrets.token_hex(3)
        self._count = itertools.count(1)

    def config(self, *args: str, **process: Any) -> dict[str, Any]:
        config = bundle.make_config(list(args), **process)
        config["root"]["path"] = str(self.root)
        return config

    def shell(self, script: str, **process: Any) -> dict[str, Any]:
        return self.config("sh", "-c", script, **process)

    def bundle(self, config: dict[str, Any]) -> tuple[str, Path]:
        """(a fresh id, its bundle)"""
        name = f"t{self.mark}-{next(self._count)}"
        place = self.place / "bundles" / name
        place.mkdir(parents=True)
        bundle.write(place, config)
        return name, place

    def command(self, *words: str, check: bool = False, timeout: float = 90, **options: Any) -> Result:
        options.setdefault("stdin", subprocess.DEVNULL)
        result = subprocess.run([*COMMAND, "--root", str(self.state), *words], capture_output=True, text=True,
                                timeout=timeout * SLOWNESS, check=False, **options)
        if check:
            assert result.returncode == 0, f"{words}: {result.stderr}"
        return result

    def run(self, config: dict[str, Any], *words: str, check: bool = False, **options: Any) -> Result:
        name, place = self.bundle(config)
        return self.command("run", "--bundle", str(place), *words, name, check=check, **options)

    def output(self, config: dict[str, Any], *words: str, **options: Any) -> str:
        """What a run that must succeed wrote."""
        result = self.run(config, *words, **options)
        assert result.returncode == 0, f"exit {result.returncode}: {result.stderr}{result.stdout}"
        return result.stdout

    def start(self, config: dict[str, Any], *, wait: bool = True) -> str:
        """A running container in the background; its id."""
        name, place = self.bundle(config)
        log = open(place / "output", "wb")
        try:
            for words in (("create", "--bundle", str(place), name), ("start", name)):
                done = subprocess.run([*COMMAND, "--root", str(self.state), *words], stdin=subprocess.DEVNULL,
                                      stdout=log, stderr=log, timeout=90 * SLOWNESS, check=False)
                assert done.returncode == 0, (place / "output").read_text()
        finally:
            log.close()
        if wait:
            eventually(lambda: "ready" in (place / "output").read_text(), f"{name} says ready")
        return name

    def text(self, name: str) -> str:
        """What a container of ``start`` wrote so far."""
        return (self.place / "bundles" / name / "output").read_text()

    def describe(self, name: str) -> dict[str, Any]:
        found = json.loads(self.command("state", name, check=True).stdout)
        assert isinstance(found, dict)
        return found

    def status(self, name: str) -> str:
        return str(self.describe(name)["status"])

    def pid(self, name: str) -> int:
        return int(self.describe(name)["pid"])

    def close(self) -> None:
        if self.state.exists():
            for name in os.listdir(self.state):
                self.command("delete", "--force", name)


def own_namespace(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{kind}")
