"""Bind mounts in user namespaces with the word ``idmap``: the host's owners are those inside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.engine import Engine

from orchestra.linux.mount import supports_idmap

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or not supports_idmap("/tmp"), reason="needs id-mapped mounts (root, kernel 5.19)"),
]


@pytest.fixture
def folder(engine: Engine) -> Path:
    """A folder of root with a private file, and one of user 1000."""
    engine.write("private\n", "d/mine").chmod(0o600)
    engine.write("theirs\n", "d/theirs").chmod(0o600)
    os.chown(engine.folder / "d/theirs", 1000, 1001)
    return engine.folder / "d"


CHECK = "cat /d/mine && stat -c %u:%g /d/mine /d/theirs && touch /d/made && chown 5:6 /d/made"


def check(text: str, folder: Path) -> None:
    assert text.split() == ["private", "0:0", "1000:1001"]
    made = (folder / "made").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)


def test_on_the_command_line(engine: Engine, folder: Path) -> None:
    run = ("container", "run", "--rm", "--userns", "auto")
    check(engine.out(*run, "-v", "./d:/d:idmap", "busybox", "sh", "-ec", CHECK), folder)
    assert engine.run(*run, "-v", "./d:/d", "busybox", "cat", "/d/mine", code=None).returncode != 0
    done = engine.run(*run, "-v", "./d:/d:ro,idmap", "busybox", "touch", "/d/more", code=None)
    assert done.returncode == 1 and "ead-only" in done.stderr
    assert engine.out(*run, "-v", "data:/d:idmap", "busybox", "stat", "-c", "%u", "/d") == "0\n"  # volumes always are
    # a file, too
    assert engine.out(*run, "-v", "./d/mine:/f:idmap", "busybox", "cat", "/f") == "private\n"


def test_in_compose_files(engine: Engine, folder: Path) -> None:
    text = "name: b\nservices:\n  a:\n    image: busybox\n    init: true\n    userns_mode: auto\n    command: sleep 1000\n    volumes: [VOLUME]\n"
    engine.write(text.replace("VOLUME", "./d:/d"))
    engine.run("up", "-d")
    assert engine.run("exec", "-T", "a", "cat", "/d/mine", code=None).returncode != 0
    engine.write(text.replace("VOLUME", '"./d:/d:idmap"'))
    engine.run("up", "-d")  # another container
    check(engine.out("exec", "-T", "a", "sh", "-ec", CHECK), folder)
    engine.run("restart", "-t", "1", "a")
    engine.run("exec", "-T", "a", "cat", "/d/mine")
    engine.write(text.replace("VOLUME", "{type: bind, source: ./d, target: /d, bind: {x-idmap: true}}"))
    engine.run("up", "-d")
    assert engine.out("exec", "-T", "a", "cat", "/d/mine") == "private\n"


def test_without_a_user_namespace(engine: Engine, folder: Path) -> None:
    engine.write('name: b\nservices:\n  a: {image: busybox, command: stat -c %u /d/theirs, volumes: ["./d:/d:idmap"]}\n')
    done = engine.run("up", "-d")
    assert "idmap at /d has no effect" in done.stderr and "userns_mode" in done.stderr


def test_where_the_kernel_cannot(engine: Engine, folder: Path) -> None:
    run = ("container", "run", "--rm", "--userns", "auto", "-v", "/proc/sys:/d:idmap")
    done = engine.run(*run, "busybox", "true", code=None)
    assert done.returncode == 125 and "/proc/sys at /d" in done.stderr and "no id-mapped mounts" in done.stderr
