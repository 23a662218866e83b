"""Pulls that are killed, that meet, and that fill the disk: nothing half-made, and the next pull goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registry import Fault, Registry
from support.trees import archive, small_disk

from orchestra.errors import OrchestraError
from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.transfer import pull
from orchestra.images.store import ImageStore

pytestmark = pytest.mark.root

LAYERS = [archive(*((f"l{layer}/f{n}", "file", {"content": os.urandom(50_000)}) for n in range(20))) for layer in range(3)]
PULL = """
import sys
from pathlib import Path
from orchestra.images.registry.transfer import pull
from orchestra.images.store import ImageStore
print("begin", flush=True)
image = pull(ImageStore(Path(sys.argv[1])), sys.argv[2], environ={"HOME": "/nonexistent", "PATH": "/nowhere"})
print(image.id, flush=True)
"""
ENV = {"HOME": "/nonexistent", "PATH": "/nowhere"}


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Its layers come slowly, about 0.3 s each."""
    with Registry() as running:
        running.add_image("app", "1", LAYERS, compression="none")
        running.faults.append(Fault("GET", "/blobs/", times=10**6, drip=0.01, piece=40_000))
        yield running


def start(root: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PULL, str(root), name], stdout=subprocess.PIPE, text=True)


def whole(store: ImageStore) -> None:
    assert store.check() == []
    for image in store.list():
        for number, path in enumerate(store.layers(image)):
            assert len(os.listdir(path / f"l{number}")) == 20


def test_killed_at_any_moment(tmp_path: Path, registry: Registry) -> None:
    root, name = tmp_path / "store", f"{registry.host}/app:1"
    dice = random.Random(7)
    for _ in range(8):
        child = start(root, name)
        assert child.stdout is not None and child.stdout.readline() == "begin\n"
        time.sleep(dice.uniform(0.02, 0.45))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        whole(ImageStore(root))
    registry.faults.clear()
    child = start(root, name)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    store = ImageStore(root)
    assert store.get(name).id == out.split()[-1]
    whole(store)
    assert any("range" in seen.headers for seen in registry.requests("GET", "/blobs/"))  # a later pull went on
    store.gc()
    assert os.listdir(store.blobs.ingest) == [] and os.listdir(store.leases_dir) == []


def test_processes_meet(tmp_path: Path, registry: Registry) -> None:
    root, name = tmp_path / "store", f"{registry.host}/app:1"
    children = [start(root, name) for _ in range(3)]
    outs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0] and len({out.split()[-1] for out in outs}) == 1
    for layer in json.loads(registry.manifests["app"]["1"][1])["layers"]:
        assert len(registry.requests("GET", layer["digest"])) == 1
    whole(ImageStore(root))


def test_one_is_killed_and_another_goes_on(tmp_path: Path, registry: Registry) -> None:
    """The second waits for the first's download and takes over where it was killed."""
    root, name = tmp_path / "store", f"{registry.host}/app:1"
    first, second = start(root, name), start(root, name)
    deadline = time.monotonic() + 30
    while not registry.requests("GET", "/blobs/") and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    first.kill()
    first.communicate(timeout=60)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and ImageStore(root).get(name).id == out.split()[-1]
    whole(ImageStore(root))


def test_a_server_that_dies_and_comes_back(tmp_path: Path, registry: Registry) -> None:
    """The connections break for a while; the attempts and their back-off outlive that."""
    name = f"{registry.host}/app:1"
    registry.faults.insert(0, Fault("GET", "/blobs/", times=10**6, reset=True))
    threading.Timer(2.0, registry.faults.pop, [0]).start()
    store = ImageStore(tmp_path / "store")
    pull(store, name, environ=ENV)
    whole(store)


def test_a_full_disk(tmp_path: Path, registry: Registry) -> None:
    registry.faults.clear()
    registry.add_image("small", "1", LAYERS[:1])
    with small_disk(tmp_path / "disk", "3500k") as disk:
        store = ImageStore(disk / "images")
        small = pull(store, f"{registry.host}/small:1", environ=ENV)
        with pytest.raises(OrchestraError, match="no space left") as caught:
            pull(store, f"{registry.host}/app:1", environ=ENV, config=RegistryConfig(attempts=2))
        assert caught.value.hint and "prune" in caught.value.hint
        assert [image.id for image in store.list()] == [small.id]
        found = store.check(mend=True)  # it unpacks beside what it checks: perhaps there is no room, which is no damage
        assert all("no space left" in finding.text and not finding.mended for finding in found)
        assert len(store.layers(small)) == 1
        subprocess.run(["mount", "-o", "remount,size=30m", str(disk)], check=True)
        registry.log.clear()
        pull(store, f"{registry.host}/app:1", environ=ENV)
        whole(ImageStore(store.root))
        asked = registry.requests("GET", "/blobs/")
        assert len(asked) < 4 or any("range" in seen.headers for seen in asked)  # what fitted was kept
