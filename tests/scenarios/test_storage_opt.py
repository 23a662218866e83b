"""storage_opt: a container's own layer is limited where the filesystem has project quotas, and refused elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engine import Engine, image_cache, need_root

from orchestra.linux import quota

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PYTHON = [path for path in dict.fromkeys(("/lib64", "/lib/x86_64-linux-gnu", sys.prefix, sys.base_prefix)) if os.path.isdir(path)]
MAKERS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"], "prjquota"),
    "xfs": (["mkfs.xfs", "-q", "-f"], "pquota"),
}


@pytest.fixture(params=sorted(MAKERS))
def limited(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose root is a filesystem with project quotas, in a file."""
    need_root()
    command, option = MAKERS[request.param]
    if not shutil.which(command[0]):
        pytest.skip(f"needs {command[0]}")
    folder = Path(tempfile.mkdtemp(prefix="oc-quota-"))
    image, place = folder / "image", folder / "root"
    place.mkdir()
    mounted = False
    try:
        with open(image, "wb") as file:
            file.truncate(400 << 20)
        subprocess.run([*command, str(image)], check=True, capture_output=True)
        done = subprocess.run(["mount", "-t", request.param, "-o", f"loop,{option}", str(image), str(place)], capture_output=True, text=True, check=False)
        mounted = done.returncode == 0
        if not mounted or not quota.enforced(place):
            pytest.skip(f"this kernel mounts no {request.param} with {option}: {done.stderr.strip()[:200]}")
        made = Engine(place)
        try:
            made.run("image", "load", "-i", str(image_cache()))
            yield made
        finally:
            made.close()
    finally:
        if mounted:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(folder)


def fill(engine: Engine, name: str, path: str, megabytes: int) -> bool:
    """Whether there was room."""
    script = f"dd if=/dev/zero of={path} bs=1048576 count={megabytes} 2>/dev/null && sync"
    return engine.run("container", "exec", name, "sh", "-c", script, code=None).returncode == 0


def run(engine: Engine, name: str, *words: str) -> None:
    engine.run("container", "run", "-d", "--name", name, "--init", *words, "busybox", "sleep", "1000")


def test_the_limit_holds(limited: Engine) -> None:
    engine = limited
    run(engine, "one", "--storage-opt", "size=20M", "-v", "data:/data")
    assert fill(engine, "one", "/small", 10)
    assert not fill(engine, "one", "/big", 30)
    assert engine.run("container", "exec", "one", "rm", "/big").returncode == 0
    assert fill(engine, "one", "/data/big", 30)  # volumes do not count
    shown = engine.out("container", "exec", "one", "df", "-m", "/").splitlines()[-1].split()
    assert int(shown[1]) == 20
    # it is the layer's, whatever happens to the container, and nobody else's
    engine.run("container", "restart", "-t", "1", "one")
    assert not fill(engine, "one", "/big", 30)
    run(engine, "two", "--storage-opt", "size=40M")
    assert fill(engine, "two", "/big", 30) and not fill(engine, "two", "/more", 30)
    run(engine, "free")
    assert fill(engine, "free", "/big", 60)
    upper = engine.root / "lib/containers" / engine.inspect("two")["Id"] / "upper"
    assert quota.project(upper) != 0
    engine.run("container", "rm", "-f", "one", "two", "free")


LEAVE = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
data = bytearray(fcntl.ioctl(fd, 0x801C581F, bytes(28)))
data[12:16] = bytes(4)
try:
    fcntl.ioctl(fd, 0x401C5820, bytes(data))
except OSError as problem:
    sys.exit(problem.strerror)
"""


def test_no_file_leaves_the_limit(limited: Engine) -> None:
    """The owner of a file may put it into another project, but for the seccomp filter or a user namespace."""
    engine = limited
    mounts = [word for path in PYTHON for word in ("-v", f"{path}:{path}:ro")]
    for name, more, leaves in (
        ("plain", [], False),
        ("space", ["--userns", "auto", "--security-opt", "seccomp=unconfined"], False),
        ("open", ["--security-opt", "seccomp=unconfined"], True),
    ):
        run(engine, name, "--storage-opt", "size=20M", *mounts, *more)
        engine.run("container", "exec", name, "mkdir", "/d")
        done = engine.run("container", "exec", name, sys.executable, "-I", "-S", "-c", LEAVE, "/d", code=None)
        assert (done.returncode == 0) is leaves, done.stderr
        if not leaves:
            assert "ot supported" in done.stderr or "nvalid argument" in done.stderr or "not permitted" in done.stderr
        assert fill(engine, name, "/d/big", 30) is leaves


def test_in_compose_and_with_a_user_namespace(limited: Engine) -> None:
    engine = limited
    engine.write("""
        name: q
        services:
          a: {image: busybox, init: true, command: sleep 1000, userns_mode: auto, storage_opt: {size: 20M}}
    """)
    engine.run("up", "-d", "--wait")
    assert fill(engine, "q-a-1", "/small", 5) and not fill(engine, "q-a-1", "/big", 30)
    engine.write((engine.folder / "compose.yaml").read_text().replace("20M", "60M"))
    engine.run("up", "-d", "--wait", "-t", "1")  # another container
    assert fill(engine, "q-a-1", "/big", 30)
    engine.run("down", "-v", "-t", "1")


def test_refused_where_the_filesystem_cannot(engine: Engine) -> None:
    if quota.enforced(engine.root):
        pytest.skip("the filesystem of the test has project quotas")
    engine.write("name: q\nservices:\n  a:\n    image: busybox\n    command: sleep 1000\n    storage_opt: {size: 1G}\n")
    done = engine.run("up", "-d", code=1)
    assert "compose.yaml:6:" in done.stderr and "storage_opt" in done.stderr and "prjquota" in done.stderr
    assert engine.ps() == {} and os.listdir(engine.root / "lib/containers") == []
    for word, said in (("size=1G", "project quotas"), ("size=x", "no size"), ("inodes=5", '"inodes" is not supported')):
        done = engine.run("container", "run", "--rm", "--storage-opt", word, "busybox", "true", code=125)
        assert said in done.stderr
