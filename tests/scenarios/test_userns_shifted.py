"""User namespaces without id-mapped mounts (switched off by the settings): owners are shifted on disk, and everything
looks the same inside and in what comes out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.engine import BIN, Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300), pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FIRST = 0x70000000
MAKE = "echo one > /made; mkdir /dir; echo two > /dir/theirs; chown 1000:1001 /dir/theirs; chmod 4711 /dir/theirs; echo kept > /data/file; chown 7:8 /data/file"
SHOW = ("stat", "-c", "%u:%g:%a", "/made", "/dir/theirs", "/data/file", "/usr/bin/busybox", "/")
SEEN = ["0:0:644", "1000:1001:4711", "7:8:644", "0:0:755", "0:0:755"]


@pytest.fixture
def shifting(engine: Engine) -> Engine:
    remap(engine, "auto")
    return engine


def remap(engine: Engine, how: str, mapped: bool = False) -> None:
    settings = engine.root / "daemon.json"
    settings.write_text(json.dumps({"userns-remap": how, "id-mapped-mounts": mapped}))
    engine.environ["ORCHESTRA_SETTINGS"] = str(settings)


def run(engine: Engine, name: str, *words: str) -> None:
    engine.run("container", "run", "-d", "--name", name, "-v", "data:/data", "--init", *words, "busybox", "sleep", "1000")


def first_of(engine: Engine, name: str) -> int:
    return int(Path(f"/proc/{engine.inspect(name)['State']['Pid']}/uid_map").read_text().split()[1])


def upper(engine: Engine, name: str) -> Path:
    return engine.root / "lib/containers" / engine.inspect(name)["Id"] / "upper"


def shell(engine: Engine, name: str, text: str) -> str:
    return engine.out("container", "exec", name, "sh", "-ec", text)


def exported(engine: Engine, name: str) -> dict[str, tuple[int, int, int]]:
    done = subprocess.run([BIN, "container", "export", name], env=engine.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {m.name: (m.uid, m.gid, m.mode) for m in tar}


def copies(engine: Engine) -> list[Path]:
    return sorted((engine.root / "lib/images/layers").glob("*/shifted-*"))


def test_the_life_of_a_container(shifting: Engine) -> None:
    engine = shifting
    run(engine, "one")
    shell(engine, "one", MAKE)
    start = first_of(engine, "one")
    assert start > FIRST
    volume = engine.root / "lib/volumes/data/_data"
    assert upper(engine, "one").stat().st_uid == start
    assert (upper(engine, "one") / "dir/theirs").stat().st_uid == start + 1000
    assert (volume / "file").stat().st_uid == start + 7
    assert copies(engine)[0].name == f"shifted-{start}-{start}-65536"
    assert engine.out("container", "exec", "one", *SHOW).split() == SEEN
    lines = engine.out("container", "diff", "one")
    assert "A /made" in lines and "A /dir/theirs" in lines
    running = exported(engine, "one")
    assert running["dir/theirs"] == (1000, 1001, 0o4711) and running["usr/bin/busybox"][:2] == (0, 0)
    # another one has other ids, and may not have the volume meanwhile
    engine.run("container", "run", "-d", "--name", "two", "--init", "busybox", "sleep", "1000")
    assert first_of(engine, "two") != start
    done = engine.run("container", "run", "--rm", "-v", "data:/data", "busybox", "true", code=None)
    assert done.returncode == 125 and "volume data is in use by one" in done.stderr and "default" in done.stderr
    # it has the same ones again, whatever happens
    engine.run("container", "restart", "-t", "1", "one")
    assert first_of(engine, "one") == start
    engine.run("container", "stop", "-t", "1", "one")
    assert exported(engine, "one") == running
    assert engine.out("container", "diff", "one") == lines
    engine.run("container", "start", "one")
    assert engine.out("container", "exec", "one", *SHOW).split() == SEEN
    # without a user namespace the volume means the same
    engine.run("container", "rm", "-f", "one")
    run(engine, "host", "--userns", "host")
    assert engine.out("container", "exec", "host", "stat", "-c", "%u:%g", "/data/file", "/data").split() == ["7:8", "0:0"]


def test_files_go_in_and_out(shifting: Engine) -> None:
    engine = shifting
    run(engine, "one")
    shell(engine, "one", MAKE)
    note = engine.write("note\n", "note")
    os.chown(note, 1000, 1001)
    for state in ("running", "stopped"):
        engine.run("container", "cp", "-a", "note", f"one:/dir/{state}")
        engine.run("container", "cp", "-a", "note", f"one:/data/{state}")
        engine.run("container", "cp", "-a", "one:/dir/theirs", f"out-{state}")
        found = (engine.folder / f"out-{state}").stat()
        assert (found.st_uid, found.st_gid) == (1000, 1001)
        engine.run("container", "commit", "one", f"kept:{state}")
        if state == "running":
            engine.run("container", "stop", "-t", "1", "one")
    engine.run("container", "start", "one")
    paths = [f"{folder}/{state}" for folder in ("/dir", "/data") for state in ("running", "stopped")]
    assert engine.out("container", "exec", "one", "stat", "-c", "%u:%g", *paths).split() == ["1000:1001"] * 4
    for state in ("running", "stopped"):
        for mode in ("host", "auto"):
            said = engine.out("container", "run", "--rm", "--userns", mode, f"kept:{state}", "stat", "-c", "%u:%g:%a", "/dir/theirs", "/made")
            assert said.split() == ["1000:1001:4711", "0:0:644"]
    engine.run("container", "stop", "-t", "1", "one")
    done = subprocess.run([BIN, "volume", "export", "data"], env=engine.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert {m.name.lstrip("./"): m.uid for m in tar}["file"] == 7


def test_one_range_for_all(engine: Engine) -> None:
    """Volumes are shared, layers are copied once and go with their image; a killed daemon changes nothing."""
    remap(engine, "default")
    run(engine, "one")
    run(engine, "two")
    shell(engine, "one", MAKE)
    assert first_of(engine, "one") == first_of(engine, "two") == FIRST
    assert shell(engine, "two", "stat -c %u:%g /data/file; echo more >> /data/file").strip() == "7:8"
    assert len(copies(engine)) == 1
    engine.kill_daemon()
    assert engine.out("container", "exec", "one", *SHOW).split() == SEEN
    engine.run("container", "kill", "one")
    engine.run("container", "start", "one")
    # pruning spares what is in use
    engine.run("image", "prune", "-f")
    assert len(copies(engine)) == 1
    # as soon as ids can be mapped, files are again as inside
    engine.run("container", "stop", "-t", "1", "one", "two")
    engine.run("image", "prune", "-f")
    assert copies(engine) == []
    remap(engine, "default")
    engine.run("container", "start", "one")
    assert len(copies(engine)) == 1
    assert engine.out("container", "exec", "one", *SHOW).split() == SEEN
    engine.run("container", "stop", "-t", "1", "one")
    remap(engine, "default", mapped=True)
    engine.run("container", "start", "one", "two")
    assert (upper(engine, "one") / "dir/theirs").stat().st_uid in (1000, FIRST + 1000)
    assert engine.out("container", "exec", "one", *SHOW).split() == SEEN
    engine.run("container", "rm", "-f", "one", "two")
    engine.run("image", "rm", "busybox")
    assert copies(engine) == []


def test_what_needs_mapped_mounts_is_refused(shifting: Engine) -> None:
    shifting.write("FROM busybox\nRUN true\n", "Dockerfile")
    assert "id-mapped mounts" in shifting.run("image", "build", ".", code=1).stderr
    done = shifting.run("container", "run", "--rm", "-v", "./:/d:idmap", "busybox", "true", code=125)
    assert "idmap at /d" in done.stderr
    # images as volumes come shifted, too
    said = shifting.out("container", "run", "--rm", "--mount", "type=image,source=busybox,target=/image", "busybox",
                        "stat", "-c", "%u", "/image/usr/bin/busybox")  # fmt: skip
    assert said.strip() == "0"


def test_in_compose(shifting: Engine) -> None:
    shifting.write("""
        name: c
        services:
          a:
            image: busybox
            init: true
            user: "1000:1000"
            command: sh -c "echo out > /dev/stdout; cat /run/secrets/token > /tmp/token; exec sleep 1000"
            volumes: [data:/data]
            tmpfs: /scratch
            secrets: [{source: token, uid: "1000"}]
            healthcheck: {test: [CMD, test, -s, /tmp/token], interval: 1s, start_interval: 200ms, start_period: 20s}
        secrets: {token: {file: ./token}}
        volumes: {data: }
    """)
    shifting.write("sesame", "token")
    shifting.run("up", "-d", "--wait")
    assert shifting.out("exec", "-T", "-u", "0", "a", "sh", "-ec", "cat /tmp/token; chown 1000 /data; stat -c %u /tmp/token /data").split() == ["sesame1000", "1000"]
    shifting.run("up", "-d", "--force-recreate", "--wait", "-t", "1")
    assert shifting.out("exec", "-T", "a", "sh", "-ec", "touch /data/mine; stat -c %u /data/mine").strip() == "1000"
    assert "out" in shifting.out("logs", "a")
    shifting.run("down", "-v", "-t", "1")
