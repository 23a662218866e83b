"""Every example loads, and does what its first lines say (quickstart and webstack have tests of their own)."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from support.engine import Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/compose"


def copy(engine: Engine, name: str) -> Path:
    folder = engine.folder / name
    shutil.copytree(EXAMPLES / name, folder)
    return folder


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("name", sorted(entry.name for entry in EXAMPLES.iterdir()))
def test_it_loads_without_a_warning(engine: Engine, name: str) -> None:
    done = engine.run("config", cwd=EXAMPLES / name, environ={"API_TOKEN": "x"})
    assert done.stderr == "" and f"name: {name}" in done.stdout


def test_pipeline(engine: Engine) -> None:
    folder = copy(engine, "pipeline")
    done = engine.run("up", "--exit-code-from", "report", cwd=folder, environ={"COUNT": "100"})
    assert "total 5050 digest 93d4e5c77838" in done.stdout
    assert "prepared 100 numbers" in done.stdout
    engine.run("down", "-v", cwd=folder)
    (folder / "steps/sum.sh").write_text("exit 7\n")
    done = engine.run("up", "--exit-code-from", "sum", cwd=folder, code=None)
    assert done.returncode != 0
    assert "total" not in done.stdout
    rows = {row["Service"]: row for row in engine.json_lines("ps", "-a", "--format", "json", cwd=folder)}
    assert rows["sum"]["ExitCode"] == 7
    assert rows.get("report", {"State": "created"})["State"] == "created"
    engine.run("down", "-v", cwd=folder)


def test_build_and_watch(engine: Engine) -> None:
    folder = copy(engine, "build-and-watch")
    environ = {"PORT": "18089", "TITLE": "Tested"}
    watching = engine.popen("up", "--watch", cwd=folder, environ=environ)
    try:
        eventually(lambda: engine.run("ps", "-q", "--status", "running", cwd=folder, code=None).stdout.strip(), what="it runs")
        eventually(lambda: reachable("http://127.0.0.1:18089/"), what="the page is served")
        assert "Built by orchestra" in fetch("http://127.0.0.1:18089/index.html")
        assert "<title>Tested</title>" in fetch("http://127.0.0.1:18089/title.html")
        eventually(lambda: edited(folder), what="the file is synced")
    finally:
        watching.terminate()
        try:
            watching.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            watching.kill()
            watching.communicate()
    engine.run("down", "--rmi", "local", "-t", "2", cwd=folder)


def edited(folder: Path) -> bool:
    """The page shows a change (which has no effect before the watch has begun)."""
    (folder / "site/index.html").write_text("<h1>Edited</h1>\n")
    return "Edited" in fetch("http://127.0.0.1:18089/index.html")


def reachable(url: str) -> bool:
    try:
        return bool(fetch(url))
    except OSError:
        return False


def test_layers(engine: Engine) -> None:
    folder = copy(engine, "layers")
    environ = {"PORT": "18090"}
    engine.run("up", "-d", "--wait", cwd=folder, environ=environ)
    assert fetch("http://127.0.0.1:18090/mode.txt") == "development\n"
    assert engine.out("--profile", "debug", "run", "--rm", "-T", "shell", cwd=folder).strip().endswith("development")
    eventually(lambda: "development" in engine.out("logs", "monitor", cwd=folder), what="the included service asks")
    told = engine.out("config", "--explain", "services.web.environment.MODE", cwd=folder)
    assert "compose.override.yaml" in told and "plain" in told
    engine.run("-f", "compose.yaml", "-f", "production.yaml", "up", "-d", "--wait", cwd=folder)
    rows = engine.json_lines("ps", "--format", "json", "web", cwd=folder)
    assert len(rows) == 2
    assert engine.out("exec", "-T", "--index", "2", "web", "cat", "/srv/mode.txt", cwd=folder) == "production\n"
    engine.run("down", "-t", "2", cwd=folder)


def test_secrets(engine: Engine) -> None:
    folder = copy(engine, "secrets")
    done = engine.run("up", cwd=folder, environ={"API_TOKEN": "s3cret", "PLACE": "the test"})
    assert "password has 28 bytes" in done.stdout
    assert "token has 6 bytes, owner 1000:1000" in done.stdout
    assert "Welcome to the test" in done.stdout
    assert "nothing to see" in done.stdout
    engine.run("down", cwd=folder)
