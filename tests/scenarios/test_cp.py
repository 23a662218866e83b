"""``container cp`` and ``cp``: docker's rules of names, both ways, and nothing of the host through a link."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.engine import BIN, Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


@pytest.fixture
def box(engine: Engine) -> str:
    engine.run("container", "run", "-d", "--name", "box", "--init", "busybox", "sleep", "1000")
    return "box"


def inside(engine: Engine, script: str) -> str:
    return engine.out("container", "exec", "box", "sh", "-c", script)


def test_names_both_ways(engine: Engine, box: str) -> None:
    engine.write("text", "file")
    (engine.folder / "tree/sub").mkdir(parents=True)
    engine.write("deep", "tree/sub/leaf")
    inside(engine, "mkdir /have")
    for source, target, found in (
        ("file", "/new", "/new"), ("file", "/have", "/have/file"), ("file", "/have/", "/have/file"), ("tree", "/copy", "/copy/sub/leaf"),
        ("tree", "/have", "/have/tree/sub/leaf"), ("tree/.", "/have", "/have/sub/leaf"),
    ):  # fmt: skip
        engine.run("container", "cp", source, f"box:{target}")
        assert inside(engine, f"cat {found}") in ("text", "deep"), (source, target)
    assert engine.run("container", "cp", "file", "box:/no/such/", code=1).stderr
    assert engine.run("container", "cp", "tree", "box:/new", code=1).stderr
    assert engine.run("container", "cp", "box:/nothing", ".", code=1).stderr
    out = engine.folder / "out"
    out.mkdir()
    for source, target, found in (
        ("/new", "out/x", "out/x"), ("/new", "out", "out/new"), ("/copy", "out", "out/copy/sub/leaf"), ("/copy/.", "out", "out/sub/leaf"), ("/copy", "out2", "out2/sub/leaf"),
    ):  # fmt: skip
        engine.run("container", "cp", f"box:{source}", target)
        assert (engine.folder / found).read_text() in ("text", "deep"), (source, target)


def test_streams_links_and_stopped_ones(engine: Engine, box: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("from-tar")
        info.size, info.mode, info.uid = 5, 0o640, 0
        tar.addfile(info, io.BytesIO(b"hello"))
    done = subprocess.run([BIN, "container", "cp", "-", "box:/tmp"], input=stream.getvalue(), env=engine.environ, cwd=engine.folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert inside(engine, "cat /tmp/from-tar; stat -c %a /tmp/from-tar") == "hello640\n"
    back = subprocess.run([BIN, "container", "cp", "box:/tmp/from-tar", "-"], env=engine.environ, cwd=engine.folder, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(back)) as tar:
        assert tar.getnames() == ["from-tar"]
    # links of the container lead nowhere on the host, in either direction
    secret = engine.folder / "secret"
    secret.write_text("host only")
    inside(engine, f"ln -s {secret} /leak; ln -s / /root-link; ln -s {engine.folder} /up")
    engine.run("container", "cp", "box:/leak", "leak")
    assert Path(engine.folder / "leak").is_symlink() and secret.read_text() == "host only"
    assert engine.run("container", "cp", "-L", "box:/leak", "followed", code=None).returncode != 0 or "host only" not in (engine.folder / "followed").read_text()
    engine.write("overwrite", "new")
    engine.run("container", "cp", "new", "box:/leak", code=None)
    assert secret.read_text() == "host only"
    engine.run("container", "cp", "new", "box:/up/planted", code=None)
    assert not (engine.folder / "planted").exists()
    engine.run("container", "stop", "-t", "1", "box")
    engine.run("container", "cp", "new", "box:/while-stopped")
    engine.run("container", "cp", "box:/while-stopped", "again")
    assert (engine.folder / "again").read_text() == "overwrite"
    engine.run("container", "start", "box")
    assert inside(engine, "cat /while-stopped") == "overwrite"


def test_of_a_project(engine: Engine) -> None:
    engine.write("name: cps\nservices:\n  a: {image: busybox, command: sleep 1000, init: true, scale: 2}\n")
    engine.run("up", "-d")
    engine.write("one", "file")
    engine.run("cp", "--index", "2", "file", "a:/only")
    assert engine.out("exec", "-T", "--index", "2", "a", "cat", "/only") == "one"
    assert engine.run("exec", "-T", "--index", "1", "a", "cat", "/only", code=1).stdout == ""
    engine.run("cp", "a:/etc/passwd", "passwd")
    assert "root:" in (engine.folder / "passwd").read_text()
    engine.run("down", "-t", "1")
