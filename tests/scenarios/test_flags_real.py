"""Flags of docker's and docker compose's command lines, for real: what they do, what they refuse, what they warn about."""

from __future__ import annotations

import contextlib
import json
import os
import pty

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

FILE = """
name: f
services:
  web:
    image: busybox
    command: ["sh", "-c", "trap 'exit 3' USR1; trap 'exit 0' TERM; while true; do sleep 0.05; done"]
"""


def test_flags_of_container_run(engine: Engine) -> None:
    out = engine.out("container", "run", "--rm", "-q", "--dns", "10.0.0.1", "--dns-opt", "ndots:7", "--disable-content-trust", "busybox", "cat", "/etc/resolv.conf")
    assert "ndots:7" in out
    done = engine.run("container", "run", "--rm", "--gpus", "all", "busybox", "true")
    assert "gpus" in done.stderr
    for words, said in ((["--isolation", "process"], "--isolation is not supported"), (["--use-api-socket"], "--use-api-socket is not supported"),
                        (["--volume-driver", "nfs"], "--volume-driver nfs is not supported"), (["--gpus", "x=y"], "invalid --gpus"),
                        (["--kernel-memory", "1g"], "--kernel-memory is not supported")):  # fmt: skip
        assert said in engine.run("container", "run", "--rm", *words, "busybox", "true", code=125).stderr


def test_flags_of_single_containers(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    shown = json.loads(engine.out("container", "inspect", "--size", "f-web-1"))[0]
    assert shown["SizeRootFs"] > 0 and shown["SizeRw"] >= 0
    assert "--details has no effect" in engine.run("container", "logs", "--details", "f-web-1").stderr
    assert "rm --link is not supported" in engine.run("container", "rm", "--link", "f-web-1", code=1).stderr
    assert "exec --detach-keys is not supported" in engine.run("container", "exec", "--detach-keys", "a", "f-web-1", "true", code=1).stderr
    engine.run("container", "restart", "--signal", "USR1", "f-web-1")
    assert engine.state("f-web-1") == "running"
    events = engine.out("events", "--since", "2m", "--until", "0s", "--json")
    assert '"exitCode": "3"' in events, "the signal came"
    assert engine.out("container", "ps", "--format", "{{.Names}}") == engine.out("container", "list", "--format", "{{.Names}}")


def test_events_of_everything(engine: Engine) -> None:
    engine.run("volume", "create", "one")
    engine.run("container", "run", "--rm", "--name", "told", "-l", "a=1", "busybox", "true")

    def told(*words: str) -> list[str]:
        return engine.out("system", "events", "--since", "5m", "--until", "0s", *words).splitlines()

    assert told("--filter", "type=volume", "--format", "{{.Action}} {{.Actor.ID}}") == ["create one"]
    events = [json.loads(line) for line in told("--format", "json", "-f", "container=told", "-f", "event=start", "-f", "event=die")]
    assert [event["Action"] for event in events] == ["start", "die"] and events[0]["Actor"]["Attributes"]["name"] == "told"
    assert len(told("-f", "label=a=1")) >= 3 and told("-f", "label=a=2") == []
    assert "invalid filter" in engine.run("system", "events", "-f", "nope=1", code=1).stderr


def test_pruning_by_label(engine: Engine) -> None:
    for kind in ("network", "volume"):
        engine.run(kind, "create", "--label", "keep=1", f"kept-{kind}")
        engine.run(kind, "create", f"gone-{kind}")
    engine.run("network", "prune", "-f", "--filter", "label!=keep")
    engine.run("volume", "prune", "-a", "-f", "--filter", "label!=keep=1")
    assert "kept-network" in engine.out("network", "ls") and "gone-network" not in engine.out("network", "ls")
    assert "kept-volume" in engine.out("volume", "ls") and "gone-volume" not in engine.out("volume", "ls")
    assert "invalid filter" in engine.run("volume", "prune", "-a", "-f", "--filter", "until=1h", code=1).stderr


def test_orphans_of_run_and_kill(engine: Engine) -> None:
    engine.write(FILE + "  old: {image: busybox, command: sleep 1000, init: true}\n")
    engine.run("up", "-d")
    engine.write(FILE)
    engine.run("run", "--rm", "--remove-orphans", "web", "true")
    assert set(engine.ps()) == {"f-web-1"}


def test_input_is_passed_unless_refused(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    assert engine.run("exec", "-T", "web", "cat", stdin="told").stdout == "told"
    assert engine.run("exec", "-T", "-i=false", "web", "cat", stdin="told").stdout == ""
    assert engine.run("run", "--rm", "-T", "web", "cat", stdin="told").stdout == "told"
    assert engine.run("run", "--rm", "-T", "--interactive=false", "web", "cat", stdin="told").stdout == ""


def test_what_image_build_says_besides(engine: Engine) -> None:
    folder = engine.folder / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
    done = engine.run("image", "build", "-t", "mine:1", "--provenance=false", "--sbom=false", "--metadata-file", "data.json", "image")
    assert "warning" not in done.stderr
    data = json.loads((engine.folder / "data.json").read_text())
    assert data["image.name"] == "mine:1" and data["containerimage.digest"].startswith("sha256:")
    assert "--sbom is not supported" in engine.run("image", "build", "--sbom", "true", "-q", "image").stderr
    assert "--push needs a name" in engine.run("image", "build", "--push", "image", code=1).stderr


def test_the_menu_detaches(engine: Engine) -> None:
    engine.write(FILE)
    ours, theirs = pty.openpty()
    process = engine.popen("up", "--menu", stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    while b"Started" not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"d")
    with contextlib.suppress(OSError):
        while chunk := os.read(ours, 4096):
            shown += chunk
    assert process.wait(40) == 0, shown
    assert b"Keys: d: detach" in shown and b"Detached, the containers run on" in shown
    assert engine.state("f-web-1") == "running"
    os.close(ours)
    assert "--menu has no effect without a terminal" in engine.run("up", "--menu", "--abort-on-container-exit", "--scale", "web=0").stderr


def test_quiet_builds_and_what_a_rebuild_replaces(engine: Engine) -> None:
    folder = engine.folder / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY text /text\nRUN echo told\n")
    (folder / "text").write_text("one")
    engine.write("""
        name: w
        services:
          app:
            build: app
            command: ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.05; done"]
            develop: {watch: [{path: app, action: rebuild}]}
        """)
    quiet = engine.run("up", "-d", "--quiet-build")
    assert "RUN echo" not in quiet.stderr and "Built" in quiet.stderr
    first = json.loads(engine.out("container", "inspect", "w-app-1"))[0]["Image"]
    watching = engine.popen("watch", "--quiet")
    assert watching.stderr is not None
    assert any("Watch enabled" in line for line in iter(watching.stderr.readline, ""))
    (folder / "text").write_text("two")
    eventually(lambda: engine.run("exec", "-T", "app", "cat", "/text", code=None).stdout == "two", what="rebuilt")
    eventually(lambda: first not in engine.out("image", "ls", "--no-trunc"), what="the replaced image is removed")
    watching.terminate()
    said = watching.stderr.read()
    assert "RUN echo" not in said, said
    watching.wait(20)
