"""The store under several processes, ``kill -9`` and a full disk."""

from __future__ import annotations

import gzip
import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.trees import archive, small_disk

from orchestra.errors import OrchestraError
from orchestra.images.archive import load, save
from orchestra.images.commit import create_image
from orchestra.images.config import Settings, new_config
from orchestra.images.digest import digest_of
from orchestra.images.image import Image
from orchestra.images.manifest import Descriptor
from orchestra.images.mediatype import OCI_LAYER_GZIP
from orchestra.images.store import ImageStore

pytestmark = pytest.mark.root

LOAD = """
import sys
from pathlib import Path
from orchestra.images.archive import load
from orchestra.images.store import ImageStore
store = ImageStore(Path(sys.argv[1]))
print("begin", flush=True)
with open(sys.argv[2], "rb") as stream:
    for image in load(store, stream):
        print(image.id, len(store.layers(image)), flush=True)
"""


def make(store: ImageStore, name: str, layers: int = 3, size: int = 400_000) -> Image:
    """An image of gzip layers with incompressible files."""
    dice = random.Random(name)
    descriptors, diff_ids = [], []
    for number in range(layers):
        files = [(f"l{number}/f{n}", "file", {"content": dice.randbytes(size // 20)}) for n in range(20)]
        plain = archive(*files)
        packed = gzip.compress(plain, 1, mtime=0)
        descriptors.append(Descriptor(OCI_LAYER_GZIP, store.blobs.put(packed), len(packed)))
        diff_ids.append(digest_of(plain))
    return create_image(store, new_config(Settings(), diff_ids, created=0), descriptors, names=[name])


@pytest.fixture
def packed(tmp_path: Path) -> tuple[Path, Image]:
    store = ImageStore(tmp_path / "origin")
    image = make(store, "app:1")
    with open(tmp_path / "app.tar", "wb") as stream:
        save(store, ["app:1"], stream.write)
    return tmp_path / "app.tar", image


def start(root: Path, archive_: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(root), str(archive_)], stdout=subprocess.PIPE, text=True
    )


def whole(store: ImageStore) -> None:
    """Nothing half-made is visible."""
    assert store.check() == []
    for image in store.list():
        for number, path in enumerate(store.layers(image)):
            assert len(os.listdir(path / f"l{number}")) == 20


def test_killed_at_any_moment(tmp_path: Path, packed: tuple[Path, Image]) -> None:
    archive_, image = packed
    root = tmp_path / "store"
    dice = random.Random(5)
    for _ in range(12):
        child = start(root, archive_)
        assert child.stdout is not None
        assert child.stdout.readline() == "begin\n"
        time.sleep(dice.uniform(0, 0.12))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        whole(ImageStore(root))
    child = start(root, archive_)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0 and out.split()[-2:] == [image.id, "3"]
    store = ImageStore(root)
    whole(store)
    store.gc()
    assert os.listdir(store.blobs.ingest) == [] and os.listdir(store.leases_dir) == []


def test_processes_meet(tmp_path: Path, packed: tuple[Path, Image]) -> None:
    archive_, image = packed
    root = tmp_path / "store"
    children = [start(root, archive_) for _ in range(4)]
    sweeper = ImageStore(root)
    while any(child.poll() is None for child in children):
        sweeper.gc()
        time.sleep(0.01)
    for child in children:
        out, _ = child.communicate(timeout=120)
        assert child.returncode == 0 and out.split()[-2:] == [image.id, "3"]
    whole(sweeper)
    assert len([name for name in os.listdir(sweeper.layers_dir) if not name.endswith(".lock")]) == 3


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as disk:
        store = ImageStore(disk / "images")
        make(store, "small:1", layers=1, size=200_000)
        origin = ImageStore(tmp_path / "origin")
        big = make(origin, "big:1", layers=3, size=3_000_000)
        stream = io.BytesIO()
        save(origin, ["big:1"], stream.write)
        stream.seek(0)
        with pytest.raises(OrchestraError, match="no space left") as error:
            load(store, stream)
        assert error.value.hint and "prune" in error.value.hint
        assert [image.tags for image in store.list()] == [["small:1"]]
        store.gc()
        assert store.layers(store.get("small:1"))
        whole(store)
        medium = make(ImageStore(tmp_path / "origin"), "medium:1", layers=1, size=3_000_000)
        stream = io.BytesIO()
        save(origin, ["medium:1"], stream.write)
        stream.seek(0)
        (loaded,) = load(store, stream)
        assert loaded.id == medium.id
        with pytest.raises(OrchestraError, match="no space left"):
            store.layers(loaded)
        assert os.listdir(store.blobs.ingest) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert len(store.layers(loaded)) == 1
        del big
