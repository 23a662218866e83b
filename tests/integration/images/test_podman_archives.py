"""``podman save`` and ``podman load`` on the other side of our ``image load`` and ``image save``: the same layers,
the same configuration, the same files, and programs that run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.engine import Engine
from support.podman import Podman
from support.podman import podman as make_podman
from support.stacks import assert_same, build_stack, comparable
from support.trees import CAPABILITY, archive, everything, overlay, snapshot

from orchestra.images.archive import save
from orchestra.images.commit import extend, layer_of_tree, store_layer
from orchestra.images.config import Settings, history_step
from orchestra.images.fromhost import HostOptions, from_host
from orchestra.images.image import Image
from orchestra.images.store import ImageStore, open_store
from orchestra.paths import Paths

pytestmark = [pytest.mark.root, pytest.mark.peer]

FORMS = ["docker-archive", "oci-archive"]
COMPARED = ("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal")


@pytest.fixture
def podman() -> Iterator[Podman]:
    with make_podman() as made:
        yield made


def plain(files: dict[str, Any]) -> dict[str, Any]:
    """Without the times of directories (podman's are those of its own unpacking) and parts of seconds, and the
    trusted attributes (podman drops them)."""
    kept = {}
    for path, (kind, mode, owner, mtime, content, xattrs, group) in comparable(files).items():
        mine = tuple(pair for pair in xattrs if not pair[0].startswith("trusted."))
        kept[path] = (kind, mode, owner, mtime // 10**9 if not stat.S_ISDIR(kind) else None, content, mine, group)
    return kept


def files(store: ImageStore, image: Image, place: Path) -> dict[str, Any]:
    with overlay(store.layers(image), place) as merged:
        return plain(snapshot(merged))


def build(store: ImageStore, tmp_path: Path) -> Image:
    """Four layers: programs of this machine; one of everything; removals and a replaced directory; a capability."""
    base = from_host(store, "base", HostOptions(bins=["busybox"]))
    (tmp_path / "tree").mkdir()
    everything(tmp_path / "tree" / "all")
    (tmp_path / "tree" / "all" / "sparse").unlink()
    second = layer_of_tree(store, tmp_path / "tree")
    third = store_layer(
        store,
        lambda sink: sink(
            archive(
                ("all/.wh.setuid", "file"),
                ("all/closed/.wh..wh..opq", "file"),
                ("all/closed/new", "file", {"content": b"new\n", "uid": 70_000, "gid": 9}),
                ("all/sticky", "dir", {"mode": 0o1775, "uid": 7}),
                ("srv/data", "file", {"content": b"data\n", "mode": 0o4711, "mtime": 1_400_000_000}),
                ("srv/note", "file", {"content": b"new\n"}),
                ("srv/same", "hard", {"link": "srv/data", "mode": 0o4711, "mtime": 1_400_000_000}),
            )
        ),
    )
    (tmp_path / "fourth").mkdir()
    (tmp_path / "fourth" / "able").write_text("x")
    os.setxattr(tmp_path / "fourth" / "able", "security.capability", CAPABILITY)
    fourth = layer_of_tree(store, tmp_path / "fourth")
    settings = Settings(
        user="70000:9", env={"PATH": "/bin", "WORD": "a b=c"}, cmd=["-c", "cat /srv/note; id -u; echo $WORD; pwd"],
        entrypoint=["/bin/sh"], working_dir="/srv", labels={"what": "öne"}, exposed_ports=["80/tcp"], volumes=["/data"],
        stop_signal="SIGINT",
    )  # fmt: skip
    steps = [history_step(1_500_000_000, f"step {number}") for number in range(3)]
    return extend(store, base, [second, third, fourth], settings, history=steps, created=1_500_000_000, names=["mine:1"])


@pytest.mark.parametrize("form", FORMS)
def test_podman_loads_what_we_saved(tmp_path: Path, engine: Engine, podman: Podman, form: str) -> None:
    store = open_store(Paths(f"{engine.root}/lib", f"{engine.root}/run", None))
    image = build(store, tmp_path)
    saved = tmp_path / "saved.tar"
    engine.out("image", "save", "--format", form, "-o", str(saved), "mine:1")
    assert "mine:1" in podman("load", "-i", str(saved))
    seen = podman.inspect("mine:1")
    assert f"sha256:{seen['Id']}" == image.id
    assert seen["RootFS"]["Layers"] == list(image.diff_ids)
    assert {key: seen["Config"].get(key) for key in COMPARED} == {key: image.settings.get(key) for key in COMPARED}
    assert [step["created_by"] for step in seen["History"]] == [step["created_by"] for step in image.config["history"]]
    assert plain(podman.files("mine:1")) == files(store, image, tmp_path / "mount")
    assert podman.run("--rm", "mine:1") == "new\n70000\na b=c\n/srv\n"


@pytest.mark.parametrize("seed", range(300, 303))
def test_podman_sees_the_same_stacks(tmp_path: Path, podman: Podman, seed: int) -> None:
    store = ImageStore(tmp_path / "images")
    image, _ = build_stack(store, tmp_path, seed)
    with open(tmp_path / "saved.tar", "wb") as stream:
        save(store, ["stack:1"], stream.write)
    podman("load", "-i", str(tmp_path / "saved.tar"))
    with overlay(store.layers(image), tmp_path / "mount") as merged:
        want = plain(snapshot(merged))
    assert_same(plain(podman.files("stack:1")), want)


@pytest.mark.parametrize("form", FORMS)
def test_we_load_what_podman_saved(tmp_path: Path, engine: Engine, podman: Podman, form: str) -> None:
    """An image that podman itself made: committed from a container that changed much."""
    store = open_store(Paths(f"{engine.root}/lib", f"{engine.root}/run", None))
    built = build(store, tmp_path)
    engine.out("image", "save", "-o", str(tmp_path / "first.tar"), "mine:1")
    podman("load", "-i", str(tmp_path / "first.tar"))
    podman.run("--user", "0", "--name", "box", "mine:1", "-c", CHANGES)
    changes = ("--change", "CMD [\"-c\", \"cat made; cat /all/sticky/in; ls /all\"]", "--change", "ENV MORE=1", "--change", "USER 0")
    podman("commit", "-q", "--format", form.split("-")[0], *changes, "box", "theirs:2")
    saved = tmp_path / "saved.tar"
    podman("save", "--format", form, "-o", str(saved), "theirs:2")
    seen = podman.inspect("theirs:2")
    assert engine.out("image", "load", "-i", str(saved)).strip() == "Loaded image: localhost/theirs:2"
    image = store.get("localhost/theirs:2")
    assert image.id == f"sha256:{seen['Id']}"
    assert list(image.diff_ids) == seen["RootFS"]["Layers"]
    assert len(image.diff_ids) == len(built.diff_ids) + 1
    assert {key: image.settings.get(key) for key in COMPARED} == {key: seen["Config"].get(key) for key in COMPARED}
    mine, theirs = files(store, image, tmp_path / "mount"), plain(podman.files("theirs:2"))
    assert mine == theirs
    assert "all/hard" in mine and "all/file" not in mine and "all/closed/new" not in mine
    # and back again, with what we make of it
    engine.out("image", "save", "--format", form, "-o", str(tmp_path / "again.tar"), "localhost/theirs:2")
    podman("rmi", "--force", "theirs:2")
    podman("load", "-i", str(tmp_path / "again.tar"))
    assert podman.inspect("localhost/theirs:2")["Id"] == seen["Id"]
    ran = engine.out("container", "run", "--rm", "--network", "none", "localhost/theirs:2")
    assert ran == podman.run("--rm", "localhost/theirs:2")
    assert ran.startswith("made\nfresh\n")


CHANGES = """
set -e
echo made > /srv/made
rm /all/file
rm -r /all/closed && mkdir /all/closed && echo fresh > /all/closed/other
rmdir /all/sticky && mkdir -m 1777 /all/sticky && echo fresh > /all/sticky/in
chmod 640 /able; chown 5:6 /srv/data
mknod /srv/pipe p
ln /srv/data /srv/third; ln -s ../all /srv/link
mv /all/setgid /srv/moved
"""
