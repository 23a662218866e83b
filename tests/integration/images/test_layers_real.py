"""Layers with everything a root file system has, real overlay mounts, and other programs' views of them."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.engine import need
from support.stacks import TarMaker, assert_same, build_stack, comparable, stack_view
from support.trees import archive, everything, overlay, snapshot

from orchestra.images import layer
from orchestra.images.archive import load, save
from orchestra.images.commit import extend, layer_of_tree, store_layer
from orchestra.images.compress import chunks
from orchestra.images.config import Settings
from orchestra.images.diff import TreeOptions, changes, write_tree
from orchestra.images.fromhost import HostOptions, from_host
from orchestra.images.image import Image
from orchestra.images.store import ImageStore

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def test_everything_survives(tmp_path: Path) -> None:
    everything(tmp_path / "source")
    stream = io.BytesIO()
    write_tree(tmp_path / "source", stream.write, TreeOptions(exact_times=True))
    stream.seek(0)
    (tmp_path / "target").mkdir()
    result = layer.apply(chunks(stream), tmp_path / "target")
    assert result.warnings == []
    assert snapshot(tmp_path / "target") == snapshot(tmp_path / "source")


def test_gnu_tar_agrees(tmp_path: Path) -> None:
    """Our archive read by tar, and tar's archive read by us."""
    everything(tmp_path / "source")
    want = snapshot(tmp_path / "source", times=False)
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner"]
    data = subprocess.run(
        ["tar", "-C", str(tmp_path / "source"), "-cS", "--format=posix", *flags, "."],
        stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    layer.apply(chunks(io.BytesIO(data)), tmp_path / "ours")
    ours = snapshot(tmp_path / "ours", times=False)
    assert {path: ours[path] for path in ours if path != "link"} == {
        path: want[path] for path in want if path != "link"
    }
    stream = io.BytesIO()
    write_tree(tmp_path / "source", stream.write)
    subprocess.run(
        ["tar", "-C", str(tmp_path / "theirs"), "-xp", "--same-owner", *flags],
        input=stream.getvalue(), check=True,
    )  # fmt: skip
    theirs = snapshot(tmp_path / "theirs", times=False)
    for path in want:
        if path != "link":  # tar sets no attributes on links
            assert theirs[path] == want[path], path


SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_stacks_equal_what_was_built(store: ImageStore, tmp_path: Path, seed: int) -> None:
    """Each round changes a container, its upper directory becomes a layer; the stack of unpacked layers
    shows the same tree."""
    image, want = build_stack(store, tmp_path, seed, check=_check_changes)
    assert len(image.diff_ids) == 4
    assert_same(stack_view(store, image, tmp_path), want)


@pytest.mark.peer
@pytest.mark.parametrize("seed", SEEDS)
def test_umoci_sees_the_same_stacks(store: ImageStore, tmp_path: Path, seed: int) -> None:
    """What umoci makes of the same image in one directory."""
    need("umoci", bool(shutil.which("umoci")), "umoci is not installed")
    image, want = build_stack(store, tmp_path, 100 + seed)
    ours = stack_view(store, image, tmp_path)
    assert_same(ours, want)
    assert_same(_umoci_view(store, tmp_path), ours)


@pytest.mark.peer
@pytest.mark.parametrize("seed", range(24))
def test_umoci_sees_the_same_in_layers_of_other_builders(store: ImageStore, tmp_path: Path, seed: int) -> None:
    """Tars as they come: whiteouts of nothing, directories without a member, members twice."""
    need("umoci", bool(shutil.which("umoci")), "umoci is not installed")
    maker = TarMaker(random.Random(seed))
    made = [store_layer(store, lambda sink, data=data: sink(data)) for data in (maker.layer() for _ in range(4))]
    image = extend(store, None, made, Settings(), history=[], created=0, names=["stack:1"])
    ours, theirs = stack_view(store, image, tmp_path), _umoci_view(store, tmp_path)
    for view in (ours, theirs):  # umoci's directories without a member are from now
        view.update({p: (*v[:3], None, *v[4:]) for p, v in view.items() if stat.S_ISDIR(v[0])})
    assert_same(theirs, ours)


def made_of(store: ImageStore, *tars: bytes) -> Image:
    made = [store_layer(store, lambda sink, data=data: sink(data)) for data in tars]
    return extend(store, None, made, Settings(), history=[], created=0)


def test_whiteouts_that_hide_nothing_are_not_listed(store: ImageStore, tmp_path: Path) -> None:
    """overlayfs does not filter a directory that one layer alone has."""
    image = made_of(
        store,
        archive(("old/x", "file"), ("gone/x", "file")),
        archive(
            ("new", "dir", {"mtime": 5}), ("new/.wh.ghost", "file"), ("new/real", "file"), ("only/marks/.wh.ghost", "file"),
            ("old", "dir", {"mtime": 7}), ("old/.wh..wh..opq", "file"), ("old/.wh.x", "file"), (".wh.gone", "file"),
            ("gone/.wh.x", "file"), ("plain", "file"), (".wh.plain", "file"), ("hard", "hard", {"link": "plain"}),
        ),
    )  # fmt: skip
    with overlay(store.layers(image), tmp_path / "mount") as merged:
        shown = sorted(os.path.relpath(os.path.join(top, name), merged) for top, ds, fs in os.walk(merged) for name in (*ds, *fs))
        assert shown == ["hard", "new", "new/real", "old", "plain"]
        assert (merged / "new").stat().st_mtime == 5 and (merged / "old").stat().st_mtime == 7
    assert store.check(mend=False) == []


def test_directories_without_a_member_after_a_deletion(store: ImageStore, tmp_path: Path) -> None:
    """They look like the directory below only where that one is still to be seen."""
    first = archive(*((name, "dir", {"mode": 0o700, "uid": 5}) for name in ("kept", "was", "both", "under", "under/in")), ("f", "file"))
    second = archive((".wh.was", "file"), ("kept/.wh.nothing", "file"))
    third = archive(
        ("kept/x", "file"), ("was/x", "file"), (".wh.both", "file"), ("both/x", "file"), (".wh.under", "file"), ("under/in/x", "file"),
        ("f/x", "file"),
    )  # fmt: skip
    image = made_of(store, first, second, third)
    with overlay(store.layers(image), tmp_path / "mount") as merged:
        looks = {name: (info.st_mode & 0o7777, info.st_uid) for name in os.listdir(merged) for info in [(merged / name).stat()]}
        assert looks.pop("kept") == (0o700, 5)
        assert looks == dict.fromkeys(("was", "both", "under", "f"), (0o755, 0))
        assert (merged / "under/in").stat().st_uid == 0
    assert store.check(mend=False) == []


def _check_changes(upper: Path, lowers: list[Path], merged: Path) -> None:
    listed = {(change.path, change.kind) for change in changes(upper, lowers)}
    for path, kind in listed:
        exists = os.path.lexists(f"{merged}{path}")
        assert exists == (kind != "D"), (path, kind)
        below = any(os.path.lexists(f"{lower}{path}") for lower in lowers)
        if kind in "CD":
            assert below, (path, kind)


def _umoci_view(store: ImageStore, tmp_path: Path) -> dict[str, Any]:
    layout = tmp_path / "layout"
    layout.mkdir()
    stream = io.BytesIO()
    save(store, ["stack:1"], stream.write, docker=False)
    subprocess.run(["tar", "-C", str(layout), "-x"], input=stream.getvalue(), check=True)
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "one"}
    (layout / "index.json").write_text(json.dumps(index))
    bundle = tmp_path / "bundle"
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:one", str(bundle)], check=True, capture_output=True
    )
    return comparable(snapshot(bundle / "rootfs"))


def test_whiteouts_hide_and_opaque_directories_replace(store: ImageStore, tmp_path: Path) -> None:
    data = [
        archive(("d/old", "file"), ("gone", "file"), ("keep", "file"), ("tree/deep/x", "file")),
        archive(
            ("d/.wh..wh..opq", "file"), ("d/new", "file"), (".wh.gone", "file"), ("tree/deep/.wh.x", "file")
        ),
    ]
    made = [store_layer(store, lambda sink, part=part: sink(part)) for part in data]
    image = extend(store, None, made, Settings(), history=[], created=0)
    with overlay(store.layers(image), tmp_path / "mount") as merged:
        shown = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    assert shown == ["d", "d/new", "keep", "tree", "tree/deep"]


@pytest.mark.peer
def test_skopeo_reads_and_writes_our_archives(store: ImageStore, tmp_path: Path) -> None:
    need("skopeo", bool(shutil.which("skopeo")), "skopeo is not installed")
    everything(tmp_path / "source")
    made = layer_of_tree(store, tmp_path / "source")
    image = extend(store, None, [made], Settings(cmd=["x"]), history=[], created=0, names=["mine:1"])
    for form in ("docker-archive", "oci-archive"):
        ours, theirs = tmp_path / f"{form}.tar", tmp_path / f"{form}-back.tar"
        with open(ours, "wb") as stream:
            save(store, ["mine:1"], stream.write, docker=form == "docker-archive")
        for target in ("docker-archive", "oci-archive"):
            theirs.unlink(missing_ok=True)
            subprocess.run(
                ["skopeo", "--insecure-policy", "copy", f"{form}:{ours}", f"{target}:{theirs}:mine:2"],
                check=True, capture_output=True,
            )  # fmt: skip
            other = ImageStore(tmp_path / f"other-{form}-{target}")
            with open(theirs, "rb") as stream:
                (loaded,) = load(other, stream)
            assert loaded.tags == ["mine:2"] and loaded.diff_ids == image.diff_ids
            if target == form:
                assert loaded.id == image.id
            got = snapshot(other.layers(loaded)[0], times=False)
            assert got == snapshot(store.layers(image)[0], times=False)


def test_programs_of_this_machine_run(store: ImageStore, tmp_path: Path) -> None:
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    options = HostOptions(bins=["sh", "cat", "ls", *(["python3"] if python else [])])
    image = from_host(store, "tools", options)
    with overlay(store.layers(image), tmp_path / "mount") as merged:

        def run(*words: str) -> str:
            done = subprocess.run(["chroot", str(merged), *words], capture_output=True, text=True, check=True)
            return done.stdout

        assert run("/bin/sh", "-c", "echo $((1+2)); ls / | cat").splitlines()[0] == "3"
        if python:
            code = "import json, hashlib, socket, ctypes, threading, zlib; print(hashlib.sha256(b'').hexdigest())"
            assert run("python3", "-c", code).startswith("e3b0c442")
