"""Named volumes of type nfs against the kernel's own NFS server: mounted, shared, unmounted, and every failure a
clear one. Needs a kernel with nfs and nfsd (`make test-vm` has one) and the package nfs-kernel-server."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engine import BIN, SLOWNESS, Engine, eventually

from orchestra.linux import procfs

pytestmark = [pytest.mark.root, pytest.mark.timeout(300 * max(1, SLOWNESS / 2))]

NFSD = Path("/proc/fs/nfsd")
TOOLS = ("exportfs", "rpc.nfsd", "rpc.mountd")


def filesystems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}


def skip_without_facilities() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin") is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} (package nfs-kernel-server)")
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-aq", "nfs", "nfsv4", "nfsd"], check=False, capture_output=True)
    lacking = {"nfs", "nfsd"} - filesystems()
    if lacking:
        pytest.skip(f"this kernel has no {' and no '.join(sorted(lacking))}")
    if (NFSD / "threads").exists() and (NFSD / "threads").read_text().strip() != "0":
        pytest.skip("an NFS server runs on this machine already")


class Server:
    """The kernel's server on loopback, version 4 only, with one directory as its root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted = False
        self.helpers: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        for place in ("/var/lib/nfs/v4recovery", "/var/lib/nfs/rpc_pipefs"):
            os.makedirs(place, exist_ok=True)
        for name in ("etab", "rmtab"):  # the package makes them when it is installed
            Path("/var/lib/nfs", name).touch()
        if not (NFSD / "threads").exists():
            subprocess.run(["mount", "-t", "nfsd", "nfsd", str(NFSD)], check=True)
            self.mounted = True
        made = subprocess.run(
            ["exportfs", "-i", "-o", "rw,fsid=0,no_root_squash,no_subtree_check,insecure,sync", f"127.0.0.1:{self.folder}"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode or "does not support" in made.stderr:
            pytest.skip(f"{self.folder} cannot be exported: {made.stderr.strip()}")
        self.helpers.append(subprocess.Popen(["rpc.mountd", "-F", "-N", "3", "-u"], stderr=subprocess.DEVNULL))
        for name in ("nfsv4gracetime", "nfsv4leasetime"):  # no state of an earlier server is to be reclaimed
            (NFSD / name).write_text("10")
        subprocess.run(["rpc.nfsd", "-N", "3", "-H", "127.0.0.1", "2"], check=True)
        if (NFSD / "v4_end_grace").exists():
            (NFSD / "v4_end_grace").write_text("Y")

    def end(self) -> None:
        subprocess.run(["rpc.nfsd", "0"], check=False)
        subprocess.run(["exportfs", "-u", f"127.0.0.1:{self.folder}"], check=False)
        for helper in self.helpers:
            helper.terminate()
            helper.wait()
        if self.mounted:
            subprocess.run(["umount", str(NFSD)], check=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    skip_without_facilities()
    folder = Path(tempfile.mkdtemp(prefix="oc-nfs-"))
    made = Server(folder)
    try:
        made.begin()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)


def compose(engine: Engine, options: str, device: str, more: str = "", command: str = "exec sleep 1000") -> None:
    engine.write(f"""
        name: far
        services:
          app:
            image: busybox
            init: true
            command: [sh, -c, "{command}"]
            volumes: [{{type: volume, source: data, target: /data{more}}}]
        volumes:
          data:
            driver_opts: {{type: nfs, o: "{options}", device: "{device}"}}
    """)


def nfs_mounts(pid: int | str = "self") -> list[procfs.Mount]:
    return [mount for mount in procfs.mounts(pid) if mount.fstype.startswith("nfs") and mount.fstype != "nfsd"]


def in_use() -> str:
    """What this kernel has mounted from the server, in whatever mount namespace."""
    place = Path("/proc/fs/nfsfs/volumes")
    lines = place.read_text().splitlines() if place.exists() else []
    return "\n".join(line for line in lines if line.startswith("v"))


def nothing_mounted(engine: Engine) -> None:
    eventually(lambda: not in_use(), what="nothing is mounted from the server")
    assert not nfs_mounts()
    volumes = engine.root / "lib/volumes"
    assert not volumes.exists() or not [p for p in volumes.iterdir() if p.name.startswith(".mounted-")]


@pytest.mark.parametrize("version", ["nfsvers=4", ""])
def test_a_volume_is_shared_with_the_server(engine: Engine, server: Server, version: str) -> None:
    share = server.folder / f"share{version}"
    share.mkdir()
    (share / "before").write_text("of the server\n")
    compose(engine, ",".join(filter(None, ["addr=127.0.0.1", "rw", version])), f":/{share.name}",
            command="cat /data/before && echo of the container > /data/word && exec sleep 1000")  # fmt: skip
    engine.run("up", "-d")
    eventually((share / "word").exists, what="the server has the file")
    assert (share / "word").read_text() == "of the container\n"
    assert engine.out("logs", "--no-log-prefix", "app").strip() == "of the server"
    (share / "later").write_text("seen\n")
    assert eventually(lambda: engine.run("exec", "-T", "app", "cat", "/data/later", code=None).stdout, what="seen inside") == "seen\n"
    (mount,) = nfs_mounts(int(engine.inspect("far-app-1")["State"]["Pid"]))
    assert mount.target == "/data" and mount.fstype in ("nfs", "nfs4")
    assert "vers=4.0" in mount.super_options if version else "vers=4.2" in mount.super_options
    assert not nfs_mounts()  # the host itself keeps none

    # stopped and started again, and reached while it is stopped
    engine.run("stop", "-t", "1")
    engine.write("by cp\n", "note")
    engine.run("cp", "note", "app:/data/note")
    assert (share / "note").read_text() == "by cp\n"
    eventually(lambda: not in_use(), what="a stopped container keeps nothing mounted")
    engine.run("start")
    assert engine.out("exec", "-T", "app", "cat", "/data/note") == "by cp\n"
    archive = subprocess.run(
        [BIN, "volume", "export", "far_data"],
        env=engine.environ, check=True, capture_output=True,
    ).stdout  # fmt: skip
    names = {os.path.normpath(member.name) for member in tarfile.open(fileobj=io.BytesIO(archive))}
    assert {"before", "word", "later", "note"} <= names

    engine.run("down", "-v", "-t", "1")
    nothing_mounted(engine)
    assert "far_data" not in engine.out("volume", "ls", "-q").split()
    assert sorted(os.listdir(share)) == ["before", "later", "note", "word"]  # the server's files are its own


def test_read_only_and_a_part_of_it(engine: Engine, server: Server) -> None:
    (server.folder / "parts/inner").mkdir(parents=True)
    (server.folder / "parts/inner/file").write_text("part\n")
    compose(engine, "addr=127.0.0.1,nfsvers=4.2,nosuid", ":/parts", more=", read_only: true, volume: {subpath: inner}")
    engine.run("up", "-d")
    assert engine.out("exec", "-T", "app", "cat", "/data/file") == "part\n"
    assert "ead-only" in engine.run("exec", "-T", "app", "touch", "/data/new", code=1).stderr
    engine.run("down", "-v", "-t", "1")
    nothing_mounted(engine)


def test_a_wrong_export_is_told(engine: Engine, server: Server) -> None:
    del server
    compose(engine, "addr=127.0.0.1,rw,nfsvers=4", ":/nowhere")
    said = engine.run("up", "-d", code=1).stderr
    assert "volume far_data: cannot mount 127.0.0.1:/nowhere: the server has no such export" in said
    nothing_mounted(engine)
    compose(engine, "addr=127.0.0.1,rw,nfsvers=4,surely=not", ":/")
    engine.run("down", "-v")
    said = engine.run("up", "-d", code=1).stderr
    assert "surely" in said and "far_data" in said
    engine.run("down", "-v", "-t", "1")
    assert engine.ps() == {}
    nothing_mounted(engine)


def test_an_unreachable_server_fails_in_time(engine: Engine, server: Server) -> None:
    del server
    # nobody listens there
    compose(engine, "addr=127.0.0.1,nfsvers=4.2,port=1,soft,timeo=10,retrans=1", ":/")
    began = time.monotonic()
    said = engine.run("up", "-d", code=1).stderr
    assert "far_data: cannot mount 127.0.0.1:/" in said
    assert time.monotonic() - began < 60 * SLOWNESS
    engine.run("down", "-v")
    # somebody does, and never says a word; such a mount would wait for minutes
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        compose(engine, f"addr=127.0.0.1,nfsvers=4.2,port={silent.getsockname()[1]}", ":/")
        began = time.monotonic()
        said = engine.run("up", "-d", code=1).stderr
        assert "far_data: cannot mount 127.0.0.1:/: " in said
        assert "no answer within" in said or "cannot be reached" in said
        assert time.monotonic() - began < 45 + 15 * SLOWNESS
    engine.run("down", "-v")
    nothing_mounted(engine)
