"""Members never leave their folder, whatever Python's own filter can do."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from support.trees import archive

from orchestra.images.tarsafe import Outside, extract


def unpack(data: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            extract(tar, member, str(folder))


@pytest.mark.parametrize("members", [
    [("../evil", "file", {"content": b"x"})],
    [("a", "link", {"link": ".."}), ("a/evil", "file", {"content": b"x"})],
    [("a", "link", {"link": "/tmp"}), ("a/evil-orchestra", "file", {"content": b"x"})],
    [("a", "hard", {"link": "../outside"})],
])  # fmt: skip
def test_hostile_members(tmp_path: Path, members: list[tuple[str, str, dict[str, object]]]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside").write_text("mine")
    with pytest.raises(Outside):
        unpack(archive(*members), folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "outside"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "outside").write_text("mine")
    unpack(archive(("a", "link", {"link": "../outside"}), ("a", "file", {"content": b"new"})), folder)
    assert (tmp_path / "outside").read_text() == "mine" and (folder / "a").read_text() == "new"
