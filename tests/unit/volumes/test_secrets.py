from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.paths import Paths
from orchestra.volumes.secrets import GrantedFile, Secrets, is_in_memory


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    (tmp_path / "run").mkdir()
    return Secrets(
        Paths(tmp_path / "lib", tmp_path / "run", "t"), in_memory=lambda folder: folder == tmp_path / "run"
    )


def test_contents_become_files_with_owner_and_mode(secrets: Secrets, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"from a file")
    me, group = str(os.geteuid()), str(os.getegid())
    files = [
        GrantedFile("/run/secrets/a", b"contents", uid=me, gid=group, mode=0o400),
        GrantedFile("/run/secrets/b", path=str(plain)),
        GrantedFile("/run/secrets/c", path=str(plain), uid=me, gid=group, mode=0o440),
    ]
    for _ in range(2):  # a second start
        mounts = secrets.prepare("c1", files)
    first, direct, copied = (Path(mount["source"]) for mount in mounts)
    assert first.read_bytes() == b"contents" and first.stat().st_mode & 0o7777 == 0o400
    assert direct == plain and copied != plain and copied.read_bytes() == b"from a file"
    assert mounts[0]["destination"] == "/run/secrets/a" and "ro" in mounts[0]["options"]
    assert secrets.base().stat().st_mode & 0o777 == 0o700
    secrets.remove("c1")
    secrets.remove("c1")
    assert not secrets.base().exists()


def test_errors(secrets: Secrets) -> None:
    with pytest.raises(NotFoundError):
        secrets.prepare("c", [GrantedFile("/x", path="/nonexistent")])
    with pytest.raises(NotFoundError):
        secrets.prepare("c", [GrantedFile("/x", path="/nonexistent", mode=0o400)])
    with pytest.raises(OrchestraError, match="not a number"):
        secrets.prepare("c", [GrantedFile("/x", b"", uid="bob")])
    with pytest.raises(OrchestraError, match="not an absolute path"):
        secrets.prepare("c", [GrantedFile("x", b"")])
    secrets.remove("c")


def test_never_on_a_disk(tmp_path: Path) -> None:
    nowhere = Secrets(Paths(tmp_path / "lib", tmp_path / "run"), in_memory=lambda _: False)
    with pytest.raises(OrchestraError, match="in memory"):
        nowhere.prepare("c", [GrantedFile("/x", b"")])
    nowhere.remove("c")
    assert not is_in_memory(Path("/proc"))


def test_removal_looks_everywhere_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may make something in /dev/shm; and which place is in memory may have changed since the start."""
    run, shared, other = (tmp_path / name for name in ("run", "shm", "other"))
    for folder in (run, shared, other / "c1"):
        folder.mkdir(parents=True)
    (other / "c1" / "data").write_text("kept")
    secrets = Secrets(Paths(tmp_path / "lib", run, "t"), in_memory=lambda folder: folder == run)
    monkeypatch.setattr(secrets, "_places", lambda: ((run, "secrets"), (shared, "s")))
    secrets.prepare("c1", [GrantedFile("/a", b"1")])
    (shared / "s").symlink_to(other)
    secrets.remove("c1")
    assert not (run / "secrets").exists() and (other / "c1" / "data").read_text() == "kept"
    (shared / "s").unlink()
    (shared / "s" / "c1").mkdir(parents=True)
    secrets.remove("c1")
    assert not (shared / "s").exists()
