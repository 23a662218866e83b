"""Copy-up as root: whiteouts, opaque directories, owners, capabilities, device nodes."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from orchestra.paths import Paths
from orchestra.volumes.manager import Volumes
from orchestra.volumes.secrets import GrantedFile, Secrets, is_in_memory

pytestmark = pytest.mark.root


def test_the_copy_is_what_overlayfs_shows(tmp_path: Path) -> None:
    low, mid, high = (tmp_path / name for name in ("low", "mid", "high"))
    for layer in (low, mid, high):
        (layer / "data/dir").mkdir(parents=True)
        (layer / "data/opaque").mkdir()
    (low / "data/gone").write_text("x")
    (low / "data/opaque/hidden").write_text("x")
    (low / "data/dir/low").write_text("x")
    (low / "data/replaced").mkdir()
    (low / "data/replaced/f").write_text("x")
    (low / "data/was-file").write_text("x")
    os.mknod(mid / "data/gone", stat.S_IFCHR, 0)
    os.mknod(mid / "data/was-file", stat.S_IFCHR, 0)
    os.setxattr(mid / "data/opaque", "trusted.overlay.opaque", b"y")
    (mid / "data/opaque/shown").write_text("x")
    (mid / "data/replaced").write_text("a file")
    (high / "data/was-file").mkdir()
    os.setxattr(high / "data/was-file", "trusted.overlay.opaque", b"y")
    (high / "data/tool").write_text("#!")
    os.chown(high / "data/tool", 33, 44)
    os.chmod(high / "data/tool", 0o4755)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(high / "data/tool", "security.capability", capability)
    os.mknod(high / "data/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(high / "data/fifo")
    os.chown(high / "data", 100, 101)
    os.chmod(high / "data", 0o1770)

    volumes = Volumes(tmp_path / "volumes")
    data = volumes.create("v").mountpoint
    assert volumes.fill_from_image("v", [low, mid, high], "/data")

    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"lowerdir={high}:{mid}:{low}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        assert _look(data) == _look(merged / "data")
    finally:
        subprocess.run(["umount", merged], check=True)


def _look(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            path = Path(folder, name)
            info = path.lstat()
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            look = (info.st_mode, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns)
            found[str(path.relative_to(root))] = (
                look,
                {k: v for k, v in xattrs.items() if ".overlay." not in k},
            )
    return found


def test_secrets_are_in_memory_wherever_the_root_is(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "lib", tmp_path / "run", "copyuptest")
    paths.make()
    secrets = Secrets(paths)
    mounts = secrets.prepare("c1", [GrantedFile("/run/secrets/a", b"x", uid="1000", gid="1001", mode=0o400)])
    path = Path(mounts[0]["source"])
    assert is_in_memory(path.parent)
    assert (path.stat().st_uid, path.stat().st_gid) == (1000, 1001)
    secrets.remove("c1")
    assert not secrets.base().exists()
