"""Volumes of single containers and of projects: kinds, copy-up, options, what is never removed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def run(engine: Engine, *words: str) -> str:
    return engine.out("container", "run", "--rm", *words)


def place(engine: Engine, name: str) -> Path:
    return Path(json.loads(engine.out("volume", "inspect", name))[0]["Mountpoint"])


def built(engine: Engine) -> None:
    (engine.folder / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir -p /data/sub && echo image > /data/file && chown -R 7:8 /data && chmod 750 /data\nVOLUME /data\n"
    )
    engine.run("image", "build", "-q", "-t", "filled", ".")


def test_copy_up_and_kinds(engine: Engine) -> None:
    built(engine)
    look = "stat -c %u:%g:%a /data; cat /data/file"
    assert run(engine, "-v", "new:/data", "filled", "sh", "-c", look).split() == ["7:8:750", "image"]
    assert (place(engine, "new") / "file").read_text() == "image\n"
    assert run(engine, "--mount", "type=volume,src=bare,dst=/data,volume-nocopy", "filled", "ls", "/data") == ""
    run(engine, "-v", "new:/data", "filled", "sh", "-c", "echo changed > /data/file")
    assert run(engine, "-v", "new:/data", "filled", "cat", "/data/file") == "changed\n"  # not filled again
    assert run(engine, "filled", "cat", "/data/file") == "image\n"  # the image's own VOLUME, anonymous
    assert run(engine, "--mount", "type=volume,src=new,dst=/s,volume-subpath=sub", "busybox", "ls", "/s") == ""
    done = engine.run("container", "run", "--rm", "--mount", "type=volume,src=new,dst=/s,volume-subpath=../../..", "busybox", "true", code=125)
    assert "subpath" in done.stderr
    for words in (["-v", "new:/d:ro"], ["--mount", "type=volume,src=new,dst=/d,readonly"]):
        assert engine.run("container", "run", "--rm", *words, "busybox", "touch", "/d/x", code=1).stderr
    engine.run("volume", "rm", "new", "bare")
    engine.run("image", "rm", "filled")


def test_binds(engine: Engine) -> None:
    host = engine.folder / "host"
    host.mkdir()
    (host / "inner").mkdir()
    assert run(engine, "-v", f"{host}:/h", "busybox", "sh", "-c", "echo x > /h/made; ls /h").split() == ["inner", "made"]
    assert (host / "made").read_text() == "x\n"
    assert engine.run("container", "run", "--rm", "-v", f"{host}:/h:ro", "busybox", "touch", "/h/no", code=1).stderr
    run(engine, "-v", f"{engine.folder}/new/folder:/n", "busybox", "true")
    assert (engine.folder / "new/folder").is_dir()
    done = engine.run("container", "run", "--rm", "--mount", f"type=bind,src={engine.folder}/not-there,dst=/n", "busybox", "true", code=125)
    assert "not-there" in done.stderr
    assert run(engine, "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "busybox", "sh", "-c", "stat -c %a /t; df -k /t | tail -1").split()[:3:2] == ["700", "1024"]
    # a mount made on the host while it runs arrives with rslave only
    subprocess.run(["mount", "--bind", str(host), str(host)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(host)], check=True)
        for mode, arrives in (("rslave", True), ("rprivate", False)):
            engine.run("container", "run", "-d", "--name", "binds", "--init", "-v", f"{host}:/h:{mode}", "busybox", "sleep", "1000")
            subprocess.run(["mount", "-t", "tmpfs", "late", str(host / "inner")], check=True)
            try:
                mounts = engine.out("container", "exec", "binds", "cat", "/proc/self/mountinfo")
                assert ("/h/inner" in mounts) == arrives
            finally:
                engine.run("container", "rm", "-f", "binds")
                subprocess.run(["umount", str(host / "inner")], check=True)
    finally:
        subprocess.run(["umount", str(host)], check=True)


def test_volume_verbs(engine: Engine) -> None:
    engine.run("volume", "create", "--label", "a=b", "one")
    engine.run("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "memory")
    shared = engine.folder / "shared"
    shared.mkdir()
    engine.run("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={shared}", "bound")
    run(engine, "-v", "memory:/m", "-v", "bound:/b", "busybox", "sh", "-c", "df -k /m | tail -1 | grep -q 1024 && echo x > /b/x")
    assert (shared / "x").read_text() == "x\n"
    assert engine.out("volume", "ls", "-q", "--filter", "label=a=b").split() == ["one"]
    run(engine, "-v", "one:/d", "busybox", "sh", "-c", "echo kept > /d/k; chown 5:6 /d/k")
    archive = engine.folder / "one.tar"
    engine.run("volume", "export", "one", "-o", str(archive))
    engine.run("volume", "create", "two")
    engine.run("volume", "import", "two", str(archive))
    assert run(engine, "-v", "two:/d", "busybox", "stat", "-c", "%u:%g", "/d/k").strip() == "5:6"
    engine.run("container", "run", "-d", "--name", "user", "--init", "-v", "one:/d", "busybox", "sleep", "1000")
    done = engine.run("volume", "rm", "one", code=1)
    assert "user" in done.stderr or "in use" in done.stderr
    engine.run("volume", "prune", "-a", "-f")
    assert set(engine.out("volume", "ls", "-q").split()) == {"one"}
    engine.run("container", "rm", "-f", "user")
    engine.run("volume", "rm", "one")
    assert engine.run("volume", "rm", "one", code=1).stderr
    assert os.path.exists(shared / "x")  # what a bound volume shows is the host's


def test_volumes_of_a_project(engine: Engine) -> None:
    engine.write("""
        name: vols
        services:
          a:
            image: busybox
            init: true
            command: sleep 1000
            volumes: ["data:/data", "/scratch", "./conf:/conf:ro"]
        volumes:
          data: {labels: {who: me}}
    """)
    (engine.folder / "conf").mkdir()
    engine.run("up", "-d")
    engine.run("exec", "-T", "a", "sh", "-c", "echo kept > /data/x")
    assert json.loads(engine.out("volume", "inspect", "vols_data"))[0]["Labels"]["who"] == "me"
    engine.run("down", "-t", "1")
    engine.run("up", "-d")
    assert engine.out("exec", "-T", "a", "cat", "/data/x") == "kept\n"
    engine.run("down", "-v", "-t", "1")
    assert [name for name in engine.out("volume", "ls", "-q").split() if len(name) < 64] == []  # the first down kept an anonymous one
    engine.write("name: vols\nservices:\n  a: {image: busybox, volumes: ['data:/d']}\nvolumes:\n  data: {external: true, name: not-there}\n")
    done = engine.run("up", "-d", code=1)
    assert "not-there" in done.stderr and "volume create" in done.stderr


def test_other_filesystems_are_mounted_by_the_host(engine: Engine) -> None:
    """ramfs stands for all that the kernel can mount: gone with its last container, and nothing of it on the host."""
    engine.run("volume", "create", "-o", "type=ramfs", "-o", "device=ramfs", "-o", "o=mode=750,nosuid", "ram")
    engine.run("container", "run", "-d", "--init", "--name", "one", "-v", "ram:/ram", "busybox", "sleep", "1000")
    assert engine.out("container", "exec", "one", "sh", "-c", "echo x > /ram/x; stat -c %a /ram").strip() == "750"
    pid = json.loads(engine.out("container", "inspect", "one"))[0]["State"]["Pid"]
    (line,) = [entry for entry in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if " /ram " in entry]
    assert " - ramfs " in line and "nosuid" in line
    assert not [entry for entry in Path("/proc/self/mountinfo").read_text().splitlines() if "/.mounted-" in entry]
    assert sorted(os.listdir(engine.root / "lib/volumes")) == ["ram"]
    engine.run("container", "rm", "-f", "one")
    engine.run("volume", "create", "-o", "type=ramfs", "-o", "device=ramfs", "-o", "o=size", "-o", "type=surely-none", "none")
    done = engine.run("container", "run", "--rm", "-v", "none:/d", "busybox", "true", code=125)
    assert "volume none: cannot mount ramfs: this kernel has no filesystem surely-none" in done.stderr
    assert sorted(os.listdir(engine.root / "lib/volumes")) == ["none", "ram"]
