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


def test_a_hard_link_to_what_is_not_there_is_an_error_of_the_archive(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo("f")
        info.type, info.linkname = tarfile.LNKTYPE, "missing"
        made.addfile(info)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar, pytest.raises(tarfile.ExtractError, match="not there"):
        extract(tar, tar.getmembers()[0], str(tmp_path))
