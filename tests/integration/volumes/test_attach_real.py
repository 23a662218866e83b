"""Mounts that the host makes for volumes, with ramfs in the place of a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.linux import procfs
from orchestra.volumes import attach
from orchestra.volumes.manager import Volumes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    made = Volumes(tmp_path / "volumes")
    made.create("ram", driver_opts={"type": "ramfs", "device": "ramfs", "o": "mode=711,noexec"})
    yield made
    attach.clear(tmp_path / "volumes")
    assert not mounted(tmp_path)


def mounted(folder: Path) -> list[procfs.Mount]:
    return [mount for mount in procfs.mounts() if mount.target.startswith(f"{os.path.realpath(folder)}/")]


def test_lent_and_taken_back(volumes: Volumes, tmp_path: Path) -> None:
    with volumes.lent("ram", volumes.mount("ram", "/d", read_only=True)) as mount:
        (found,) = mounted(tmp_path)
        assert (found.fstype, found.target) == ("ramfs", mount["source"])
        assert {"ro", "noexec"} <= set(found.options)
        assert mount["options"] == ["rbind", "rprivate", "ro"]
    assert not mounted(tmp_path) and os.listdir(tmp_path / "volumes") == ["ram"]
    with pytest.raises(KeyError), volumes.contents("ram") as place:
        assert os.stat(place).st_mode & 0o777 == 0o711
        raise KeyError
    assert not mounted(tmp_path)


def test_what_a_killed_daemon_left_is_unmounted_and_never_deleted(volumes: Volumes, tmp_path: Path) -> None:
    context = volumes.contents("ram")
    place = context.__enter__()
    (place / "file").write_text("of the server\n")
    keep = os.open(place, os.O_RDONLY | os.O_DIRECTORY)  # as a container would
    try:
        assert Volumes(tmp_path / "volumes").leftovers() == []
        assert not mounted(tmp_path) and os.listdir(tmp_path / "volumes") == ["ram"]
        assert os.listdir(keep) == ["file"]
    finally:
        os.close(keep)
    (tmp_path / "volumes/.mounted-full").mkdir()
    (tmp_path / "volumes/.mounted-full/file").write_text("")
    attach.clear(tmp_path / "volumes")  # not a mount, not empty: left alone
    assert (tmp_path / "volumes/.mounted-full/file").exists()
