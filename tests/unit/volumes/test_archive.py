from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from orchestra.errors import OrchestraError
from orchestra.volumes.archive import export_tar, import_tar


def test_out_and_in_again(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "sub/empty").mkdir(parents=True)
    target.mkdir()
    (source / "sub/file").write_bytes(b"x" * 3_000_000)
    (source / "sub/hard").hardlink_to(source / "sub/file")
    (source / "out").symlink_to("/etc")
    os.chmod(source / "sub/file", 0o640)
    os.utime(source / "sub", (1000, 1000))
    stream = io.BytesIO()
    export_tar(source, stream)
    stream.seek(0)
    assert import_tar(target, stream) == 6
    assert (target / "sub/file").read_bytes() == (source / "sub/file").read_bytes()
    assert (target / "sub/file").stat().st_mode & 0o777 == 0o640
    assert (target / "sub/hard").samefile(target / "sub/file")
    assert (target / "out").readlink() == Path("/etc") and (target / "sub/empty").is_dir()
    assert (target / "sub").stat().st_mtime == 1000
    stream.seek(0)
    assert import_tar(target, stream) == 6  # over itself


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.uid, member.gid = kind, link, os.geteuid(), os.getegid()
            member.size = 1 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"x"))
    stream.seek(0)
    return stream


@pytest.mark.parametrize(
    "members",
    [
        (("../evil", tarfile.REGTYPE, ""),),
        (("a/../../evil", tarfile.REGTYPE, ""),),
        (("dir", tarfile.SYMTYPE, ".."), ("dir/evil", tarfile.REGTYPE, "")),
        (("dir", tarfile.SYMTYPE, ".."), ("dir", tarfile.DIRTYPE, "")),
        (("hard", tarfile.LNKTYPE, "../secret"),),
        (("dir", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "dir/secret")),
        (("d", tarfile.DIRTYPE, ""), ("d", tarfile.REGTYPE, "")),
    ],
)
def test_hostile_archives(tmp_path: Path, members: tuple[tuple[str, bytes, str], ...]) -> None:
    (tmp_path / "secret").write_text("s")
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(OrchestraError):
        import_tar(root, archive(*members))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["root", "secret"]


def test_absolute_names_stay_inside_and_nonsense_is_refused(tmp_path: Path) -> None:
    import_tar(tmp_path, archive(("/etc/x", tarfile.REGTYPE, "")))
    assert (tmp_path / "etc/x").read_text() == "x"
    with pytest.raises(OrchestraError, match="cannot be read"):
        import_tar(tmp_path, io.BytesIO(b"no tar at all" * 100))
