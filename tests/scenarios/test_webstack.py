"""The webstack example: nginx, a Python application, PostgreSQL and Redis from Debian packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.engine import Engine, eventually, need

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/compose/webstack"
PACKAGES = "nginx-light,python3,python3-psycopg2,python3-redis,redis-server,postgresql"


def curl(*words: str) -> dict[str, object]:
    done = subprocess.run(["curl", "-sSf", "-m", "20", *words], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def test_real_servers(engine: Engine) -> None:
    need("mmdebstrap", shutil.which("mmdebstrap") is not None or shutil.which("debootstrap") is not None, "needs mmdebstrap")
    need("psql", shutil.which("psql") is not None and shutil.which("redis-cli") is not None, "needs psql and redis-cli")
    folder = engine.folder / "webstack"
    shutil.copytree(EXAMPLE, folder)
    engine.run("image", "bootstrap", "debian:bookworm", "--tag", "webstack-debian", "--include", PACKAGES, timeout=800)
    engine.run("up", "-d", "--wait", cwd=folder, timeout=300)
    url = "http://127.0.0.1:8089/"
    assert curl(url)["visits"] == 1
    assert curl("-d", "a note", url) == {"stored": True}
    assert curl(url) == {"visits": 2, "notes": ["a note"]}
    networks = {name: engine.inspect(f"webstack-{name}-1")["NetworkSettings"]["Networks"] for name in ("db", "redis")}
    database, cache = networks["db"]["webstack_back"]["IPAddress"], networks["redis"]["webstack_back"]["IPAddress"]
    rows = subprocess.run(["psql", "-h", database, "-U", "app", "-At", "-c", "SELECT text FROM notes", "app"], capture_output=True,
                          text=True, env={**os.environ, "PGPASSWORD": "only-an-example"}, check=False, timeout=60)
    assert rows.stdout == "a note\n", rows.stderr
    assert subprocess.run(["redis-cli", "-h", cache, "get", "visits"], capture_output=True, text=True, check=False,
                          timeout=60).stdout.strip() == "2"
    engine.run("down", cwd=folder)
    engine.run("up", "-d", "--wait", cwd=folder, timeout=300)
    eventually(lambda: curl(url).get("notes") == ["a note"], what="the note is still there")
    engine.run("down", "-v", cwd=folder)
