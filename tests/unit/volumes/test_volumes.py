from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.errors import ConflictError, NotFoundError, OrchestraError, UnsupportedError
from orchestra.volumes.manager import Volumes


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "volumes")


def test_a_volumes_life(volumes: Volumes) -> None:
    assert volumes.list() == [] and volumes.leftovers() == []
    made = volumes.create("data", labels={"a": "b"}, created=5.0)
    assert volumes.create("data", labels={"other": "x"}).labels == {"a": "b"}
    assert made == volumes.get("data") == volumes.list()[0]
    assert made.mountpoint.is_dir() and made.plain and volumes.is_empty("data")
    (made.mountpoint / "f").write_bytes(b"x" * 5000)
    assert volumes.usage("data") >= 5000
    with pytest.raises(ConflictError, match="in use by web-1"):
        volumes.remove("data", in_use={"data": ["web-1"]})
    swept: list[Path] = []
    volumes.remove("data", in_use={"other"}, sweep=swept.append)
    assert not volumes.exists("data") and volumes.leftovers() == swept
    volumes.create("data")
    assert volumes.is_empty("data")
    with pytest.raises(NotFoundError):
        volumes.remove("nope")
    with pytest.raises(NotFoundError):
        volumes.path("../data")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "-a", "ä", "x" * 256])
def test_wrong_names(volumes: Volumes, name: str) -> None:
    with pytest.raises(OrchestraError, match="invalid volume name"):
        volumes.create(name)


def test_wrong_drivers_and_options(volumes: Volumes) -> None:
    with pytest.raises(UnsupportedError):
        volumes.create("v", driver="rexray")
    with pytest.raises(OrchestraError, match="unknown option 'size'"):
        volumes.create("v", driver_opts={"size": "1"})
    with pytest.raises(OrchestraError, match="needs `device`"):
        volumes.create("v", driver_opts={"type": "tmpfs"})
    volumes.create("v", driver_opts={"type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(ConflictError):
        volumes.create("v")


def test_mounts(volumes: Volumes, tmp_path: Path) -> None:
    plain = volumes.create("plain")
    assert volumes.mount("plain", "/d", read_only=True) == {
        "destination": "/d",
        "type": "bind",
        "source": str(plain.mountpoint),
        "options": ["rbind", "rprivate", "ro"],
    }
    volumes.create("mem", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=5"})
    assert volumes.mount("mem", "/d") == {
        "destination": "/d",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["size=1m", "uid=5"],
    }
    volumes.create("here", driver_opts={"type": "none", "device": str(tmp_path), "o": "bind"})
    assert volumes.mount("here", "/d", read_only=True) == {
        "destination": "/d",
        "type": "bind",
        "source": str(tmp_path),
        "options": ["bind", "ro", "rprivate"],
    }
    volumes.create(
        "share", driver_opts={"type": "nfs", "device": ":/export", "o": "addr=127.0.0.1,rw,nfsvers=4"}
    )
    assert volumes.mount("share", "/d") == {
        "destination": "/d",
        "type": "nfs",
        "source": "127.0.0.1:/export",
        "options": ["nfsvers=4", "addr=127.0.0.1"],
    }
    volumes.create("lost", driver_opts={"type": "none", "device": str(tmp_path / "lost"), "o": "bind"})
    with pytest.raises(NotFoundError, match="does not exist"):
        volumes.mount("lost", "/d")
    with pytest.raises(UnsupportedError):
        volumes.mount("mem", "/d", subpath="x")


@pytest.mark.parametrize(
    ("server", "source", "address"),
    [("::1", "[::1]:/export", "::1"), ("[::1]", "[::1]:/export", "::1"), ("localhost", "localhost:/export", None)],
)
def test_names_and_addresses_of_nfs_servers(volumes: Volumes, server: str, source: str, address: str | None) -> None:
    volumes.create("far", driver_opts={"type": "nfs", "device": ":/export", "o": f"addr={server}"})
    mount = volumes.mount("far", "/d")
    assert mount["source"] == source
    given = next(word for word in mount["options"] if word.startswith("addr="))
    assert given == f"addr={address}" if address else given in ("addr=127.0.0.1", "addr=::1")


def test_subpaths(volumes: Volumes) -> None:
    data = volumes.create("v").mountpoint
    (data / "a/b").mkdir(parents=True)
    (data / "out").symlink_to("/etc")
    (data / "a/f").write_text("")
    assert volumes.subpath("v", "/a/./b") == data / "a/b"
    for path, error in (
        ("a/../..", OrchestraError),
        ("out", OrchestraError),
        ("out/passwd", OrchestraError),
        ("no", NotFoundError),
        ("a/f/x", NotFoundError),
    ):
        with pytest.raises(error):
            volumes.subpath("v", path)
    assert volumes.mount("v", "/d", subpath="a/b")["source"] == f"{data}/./a/b"


def test_filling_is_done_once_and_finished_after_a_crash(volumes: Volumes, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "srv").mkdir(parents=True)
    (layer / "srv/f").write_text("image")
    data = volumes.create("v").mountpoint
    assert not volumes.fill_from_image("v", [layer], "/nothing")
    assert not volumes.fill_from_image("v", [layer], "/srv/f")
    assert volumes.fill_from_image("v", [layer], "/srv")
    (data / "f").write_text("mine")
    assert not volumes.fill_from_image("v", [layer], "/srv")
    assert (data / "f").read_text() == "mine"
    half = volumes.create("half").mountpoint
    (half.parent / "_fill.new/sub").mkdir(parents=True)
    (half.parent / "_fill").mkdir()
    (half.parent / "_fill/rest").write_text("")
    assert not volumes.fill_from_image("half", [layer], "/srv")
    assert [entry.name for entry in half.iterdir()] == ["rest"]
