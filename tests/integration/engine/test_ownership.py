"""Trees given to a range and back: files of every kind, and a crash in between."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from orchestra.engine.ownership import bring, can_map, now
from orchestra.images import shifted
from orchestra.linux.mount import supports_idmap

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

A, B, OVERLAPPING = (100000, 200000, 65536), (300000, 300000, 2000), (100500, 300000, 65536)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "dir/inner").mkdir(parents=True)
    (top / "dir/file").write_text("content")
    os.chown(top / "dir/file", 1000, 1001)
    os.link(top / "dir/file", top / "hard")
    (top / "setuid").write_text("x")
    os.chmod(top / "setuid", 0o6755)
    os.symlink("/etc/shadow", top / "link")
    os.chown(top / "link", 5, 6, follow_symlinks=False)
    os.mkfifo(top / "pipe")
    os.mknod(top / "whiteout", stat.S_IFCHR, 0)
    (top / "far").write_text("y")
    os.chown(top / "far", 90000, 90000)
    (top / "able").write_text("z")
    os.setxattr(top / "able", "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    os.chown(top / "dir/inner", 3, 4)
    os.utime(top / "dir/file", ns=(1, 1_500_000_000_000_000_000))
    return top


def look(top: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for folder, folders, files in os.walk(top):
        for name in [".", *folders, *files]:
            place = os.path.normpath(os.path.join(folder, name))
            info = os.lstat(place)
            attributes = {} if stat.S_ISLNK(info.st_mode) else {n: os.getxattr(place, n) for n in os.listxattr(place)}
            found[os.path.relpath(place, top)] = (info.st_uid, info.st_gid, info.st_mode, info.st_rdev, str(attributes))
    return found


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    marker, before = tmp_path / "ids", look(tree)
    for wanted in (A, A, B, OVERLAPPING, A, None):
        bring(tree, marker, wanted)
        assert now(marker) == wanted
        found = look(tree)
        first = wanted or (0, 0, 65536)
        assert found["."][:2] == first[:2] and found["dir/inner"][:2] == (first[0] + 3, first[1] + 4)
        assert found["hard"][:2] == found["dir/file"][:2] == (first[0] + 1000, first[1] + 1001)
        assert found["link"][:2] == (first[0] + 5, first[1] + 6)
        assert found["far"][:2] == (90000, 90000)
        assert found["setuid"][2] == before["setuid"][2]
        assert {name: row[2:4] for name, row in found.items()} == {name: row[2:4] for name, row in before.items()}
    assert look(tree) == before and not marker.exists()


def test_a_crash_in_between(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, before = tmp_path / "ids", look(tree)
    real, count = os.chown, [0]

    def chown(*words: object, **more: object) -> None:
        count[0] += 1
        if count[0] == limit:
            raise KeyboardInterrupt
        real(*words, **more)  # type: ignore[arg-type]

    for limit in range(1, 8):
        count[0] = 0
        monkeypatch.setattr(os, "chown", chown)
        with pytest.raises(KeyboardInterrupt):
            bring(tree, marker, A)
        monkeypatch.setattr(os, "chown", real)
        bring(tree, marker, B if limit % 2 else None)
        bring(tree, marker, None)
        assert look(tree) == before


def test_a_copy(tree: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir(mode=0o700)
    before = look(tree)
    shifted.copy_tree(tree, target, A)
    assert look(tree) == before
    found = look(target)
    assert (target / "dir/file").read_text() == "content" and os.readlink(target / "link") == "/etc/shadow"
    assert os.path.samefile(target / "dir/file", target / "hard")
    assert (target / "dir/file").stat().st_mtime_ns == 1_500_000_000_000_000_000
    bring(tree, tmp_path / "ids", A)
    assert found == look(tree)


def test_the_probe(tmp_path: Path) -> None:
    assert can_map(tmp_path / "layers", tmp_path / "containers") == supports_idmap(str(tmp_path))
    assert os.listdir(tmp_path / "layers") == os.listdir(tmp_path / "containers") == []
