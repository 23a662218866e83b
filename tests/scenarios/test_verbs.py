"""The other verbs of a project, each asked once for what a docker compose user expects of it."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

FILE = """
    name: v
    services:
      web:
        image: busybox
        command: httpd -f -p 80
        init: true
        ports: ["80"]
        volumes: [data:/data]
        post_start: [{command: [touch, /started]}]
        pre_stop: [{command: [touch, /data/stopping]}]
      job: {image: busybox, stop_grace_period: 1s, command: "sh -c 'while ! test -e /go; do sleep 0.1; done; exit 3'"}
    volumes: {data: }
"""


def test_looking_at_what_runs(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    assert "httpd -f -p 80" in engine.out("top", "web")
    stats = engine.json_lines("stats", "--no-stream", "--format", "json", "web")[0]
    assert stats["Name"] == "v-web-1" and stats["PIDs"] == "2" and stats["CPUPerc"].endswith("%")
    images = json.loads(engine.out("images", "--format", "json"))
    assert {row["ContainerName"] for row in images} == {"v-web-1", "v-job-1"} and images[0]["Repository"] == "busybox"
    assert engine.out("volumes", "-q") == "v_data\n"
    assert engine.out("port", "web", "80").startswith("0.0.0.0:")
    assert engine.out("exec", "-T", "web", "ls", "/started") == "/started\n"  # post_start has run


def test_waiting_and_events(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    watching = engine.popen("events", "--json")
    lines: list[str] = []
    assert watching.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(watching.stdout or ()), daemon=True)
    reader.start()
    eventually(lambda: engine.run("kill", "-s", "WINCH", "web", code=None).returncode == 0 and any('"kill"' in line for line in lines),
               what="the stream shows the signal")
    engine.run("exec", "-T", "job", "touch", "/go")
    assert engine.run("wait", "job", code=3).stdout == 'container "v-job-1" exited with status code 3\n'
    eventually(lambda: any('"die"' in line and '"exitCode": "3"' in line for line in lines), what="the end is an event")
    watching.kill()
    watching.wait()
    event = json.loads(lines[0])
    assert {"time", "type", "service", "id", "action", "attributes"} == set(event)


def test_pausing_copying_killing_removing(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    engine.run("pause", "web")
    assert engine.ps()["v-web-1"]["State"] == "paused" and "(Paused)" in engine.ps()["v-web-1"]["Status"]
    engine.run("unpause", "web")
    engine.run("cp", "compose.yaml", "web:/tmp/there")
    engine.run("cp", "web:/tmp/there", "back")
    assert (engine.folder / "back").read_text() == (engine.folder / "compose.yaml").read_text()
    engine.run("stop", "-t", "5", "web")
    engine.run("start", "web")
    assert engine.out("exec", "-T", "web", "ls", "/data") == "stopping\n"  # pre_stop has run
    engine.run("kill", "web")
    engine.wait_state("v-web-1", "exited")
    engine.run("export", "-o", "root.tar", "web")
    names = subprocess.run(["tar", "tf", "root.tar"], cwd=engine.folder, capture_output=True, text=True, check=True).stdout
    assert "bin/busybox" in names and "started" in names
    assert engine.out("commit", "-m", "saved", "web", "saved:1").startswith("sha256:")
    assert "saved" in engine.out("image", "ls")
    engine.run("rm", "-f", "-s")
    assert engine.ps() == {}


def test_create_starts_nothing_and_start_does(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("create")
    assert {row["State"] for row in engine.ps().values()} == {"created"}
    engine.run("start", "web")
    assert engine.state("v-web-1") == "running" and engine.state("v-job-1") == "created"


def test_dry_run_touches_nothing(engine: Engine) -> None:
    engine.write(FILE)
    done = engine.run("--dry-run", "up", "-d")
    assert "DRY-RUN MODE - create v-web-1: missing" in done.stdout
    assert engine.ps() == {}
    assert "v_default" not in engine.out("network", "ls")


DRY = [
    (["down", "-v", "--rmi", "all"], ["stop v-web-1: down", "remove v-web-1: down", "remove network v_default: down", "remove image busybox: --rmi all"]),
    (["stop", "web"], ["stop v-web-1: stop"]),
    (["restart", "web"], ["stop v-web-1: restart", "start v-web-1: start"]),
    (["rm", "-s"], ["remove v-web-1: rm"]),
    (["kill"], ["kill v-web-1"]),
    (["pause"], ["pause v-web-1"]),
    (["unpause"], ["nothing to do"]),
    (["scale", "web=2"], ["create v-web-2"]),
    (["run", "--rm", "job"], ["create v-job-run-…: run"]),
    (["pull"], ["pull busybox: policy always"]),
]


def test_dry_run_of_every_verb_touches_nothing(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d", "web")
    before = engine.ps()
    for words, lines in DRY:
        out = engine.out("--dry-run", *words)
        assert all(f"DRY-RUN MODE - {line}" in out for line in lines), (words, out)
        assert engine.state("v-web-1") == "running", words
    done = engine.run("exec", "--dry-run", "web", "touch", "/made", code=1)
    assert "exec has no dry run" in done.stderr
    assert {name: row["ID"] for name, row in engine.ps().items()} == {name: row["ID"] for name, row in before.items()}
    assert "busybox" in engine.out("image", "ls") and "v_default" in engine.out("network", "ls")
