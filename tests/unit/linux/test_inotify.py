"""A watch on trees: what appears, moves and vanishes."""

from __future__ import annotations

import time
from pathlib import Path

from orchestra.linux.inotify import TreeWatch


def changes(tree: TreeWatch, wanted: str) -> set[str]:
    """Everything until ``wanted`` was seen."""
    found: set[str] = set()
    deadline = time.monotonic() + 20
    while wanted not in found:
        assert time.monotonic() < deadline, found
        found |= tree.read(1)
    return found


def test_files_in_new_directories_are_seen(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / ".git").mkdir()
    with TreeWatch([str(tmp_path)], skip=[".git"]) as tree:
        assert tree.read(0) == set()
        (tmp_path / ".git/index").write_text("x")
        (tmp_path / "old/file").write_text("x")
        assert not [path for path in changes(tree, str(tmp_path / "old/file")) if ".git" in path]
        (tmp_path / "new/deep").mkdir(parents=True)
        (tmp_path / "new/deep/file").write_text("x")
        changes(tree, str(tmp_path / "new/deep/file"))
        (tmp_path / "new").rename(tmp_path / "moved")
        changes(tree, str(tmp_path / "moved"))
        (tmp_path / "moved/deep/file").write_text("y")
        changes(tree, str(tmp_path / "moved/deep/file"))
        (tmp_path / "moved/deep/file").unlink()
        changes(tree, str(tmp_path / "moved/deep/file"))


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("x")
    with TreeWatch([str(tmp_path / "one")]) as tree:
        (tmp_path / "other").write_text("x")
        (tmp_path / "draft").write_text("y")
        (tmp_path / "draft").rename(tmp_path / "one")
        assert changes(tree, str(tmp_path / "one")) == {str(tmp_path / "one")}
