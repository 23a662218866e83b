"""Files by descriptor: nothing leads out of the root."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.linux import fs


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH)
    yield fd
    os.close(fd)


def _place(fd: int) -> str:
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return path


def test_missing_parts_are_made(root: int, tmp_path: Path) -> None:
    assert _place(fs.make_inside(root, "/a/b/c")) == str(tmp_path / "root/a/b/c")
    assert _place(fs.make_inside(root, "a/b/file", directory=False)) == str(tmp_path / "root/a/b/file")
    assert (tmp_path / "root/a/b/file").is_file()
    assert _place(fs.make_inside(root, "a/b")) == str(tmp_path / "root/a/b")


@pytest.mark.parametrize("target", ["/outside", "../../outside", "/a/../../outside"])
def test_links_stay_inside(root: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").mkdir()
    os.symlink(target, tmp_path / "root/link")
    (tmp_path / "root/a").mkdir()
    assert _place(fs.make_inside(root, "link/new")) == str(tmp_path / "root/outside/new")
    assert not list((tmp_path / "outside").iterdir())


def test_dots_stay_inside(root: int, tmp_path: Path) -> None:
    assert _place(fs.open_inside(root, "../../..")) == str(tmp_path / "root")


def test_link_loops_and_strictness(root: int, tmp_path: Path) -> None:
    os.symlink("loop", tmp_path / "root/loop")
    with pytest.raises(OSError) as caught:
        fs.make_inside(root, "loop/x")
    assert caught.value.errno == errno.ELOOP
    (tmp_path / "root/real").mkdir()
    os.symlink("real", tmp_path / "root/link")
    os.close(fs.open_inside(root, "link"))
    with pytest.raises(OSError):
        fs.open_inside(root, "link", follow=False)


def test_a_file_in_the_way(root: int, tmp_path: Path) -> None:
    (tmp_path / "root/file").write_text("x")
    with pytest.raises(OSError):
        fs.make_inside(root, "file/below")


def test_write_file_is_whole_and_has_its_mode(tmp_path: Path) -> None:
    fs.write_file(tmp_path / "note", "one")
    fs.write_file(tmp_path / "note", b"two", 0o640)
    assert (tmp_path / "note").read_text() == "two"
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_remove_tree_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept/inner").mkdir(parents=True)
    (tmp_path / "gone/a/b").mkdir(parents=True)
    (tmp_path / "gone/a/file").write_text("x")
    os.symlink(tmp_path / "kept", tmp_path / "gone/a/link")
    fs.remove_tree(tmp_path / "gone")
    fs.remove_tree(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/inner").is_dir()
