"""The quickstart example, as the README has it: its parts use one another, its data stays."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path

import pytest
from support.engine import Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/compose/quickstart"


def fetch(url: str, data: bytes | None = None) -> str:
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        return str(answer.read().decode())


def test_quickstart(engine: Engine) -> None:
    folder = engine.folder / "quickstart"
    shutil.copytree(EXAMPLE, folder)
    engine.run("image", "from-host", "quickstart-python", "--bin", "python3", "--bin", "sh")
    port = {"WEB_PORT": "18088"}
    engine.run("up", "-d", "--wait", "-f", "compose.yaml", cwd=folder, environ=port)
    rows = {row["Service"]: row for row in engine.json_lines("ps", "--format", "json", cwd=folder)}
    assert set(rows) == {"front", "app", "store", "worker"}
    assert rows["front"]["Health"] == "healthy"
    page = fetch("http://127.0.0.1:18088/")
    assert "Hello from a container" in page and "visit 1" in page
    assert fetch("http://127.0.0.1:18088/notes", b"four words of text") == "queued\n"
    eventually(lambda: fetch("http://127.0.0.1:18088/words") == "4\n", what="the worker has counted")
    assert "worker-1  | worker: 4 words so far" in engine.out("logs", "worker", cwd=folder)
    engine.run("down", cwd=folder)
    engine.run("up", "-d", "--wait", cwd=folder, environ=port)
    assert "visit 2" in fetch("http://127.0.0.1:18088/")
    engine.run("down", "-v", cwd=folder)
