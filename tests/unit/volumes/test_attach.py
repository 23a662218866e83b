"""Mounts that the host makes for volumes: what is tried, how failures read, and that nothing stays."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.errors import NotFoundError, OrchestraError, UnsupportedError
from orchestra.linux import constants as C
from orchestra.volumes import attach
from orchestra.volumes.manager import Volumes
from orchestra.volumes.mount_process import parameters


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path / "volumes")


@pytest.mark.parametrize(
    ("kind", "words", "tried"),
    [
        ("nfs", ["addr=::1"], ["4.2", "4.1", "4.0", "3"]),
        ("nfs4", ["addr=::1"], ["4.2", "4.1", "4.0"]),
        ("nfs", ["nfsvers=4"], []),
        ("nfs", ["vers=3", "nolock"], []),
        ("nfs", ["v4.1"], []),
        ("cifs", ["vers=3.0"], []),
        ("cifs", [], []),
    ],
)
def test_versions_are_tried_where_none_is_named(kind: str, words: list[str], tried: list[str]) -> None:
    assert attach.versions(kind, words) == tried


def test_words_become_parameters_and_attributes() -> None:
    words = ["ro", "nosuid", "rw", "soft", "timeo=10", "addr=::1", "defaults", "context=a=b"]
    found, attributes = parameters("host:/x", words)
    assert found == [
        ("source", "host:/x"), ("ro", None), ("soft", None), ("timeo", "10"), ("addr", "::1"), ("context", "a=b"),
    ]  # fmt: skip
    assert attributes == C.MOUNT_ATTR_NOSUID | C.MOUNT_ATTR_RDONLY


@pytest.mark.parametrize(
    ("kind", "number", "said"),
    [
        ("nfs", errno.ENOENT, "no such export"),
        ("nfs", errno.EACCES, "refuses this machine"),
        ("nfs", errno.ECONNREFUSED, "refuses the connection"),
        ("nfs", errno.ETIMEDOUT, "cannot be reached"),
        ("nfs", errno.EPROTONOSUPPORT, "version of the protocol"),
        ("nfs", errno.ENODEV, "this kernel has no filesystem nfs"),
        ("nfs", errno.EINVAL, "nfs: Unknown parameter 'x'"),
        ("ext4", errno.ENOENT, "nfs: Unknown parameter 'x'"),
    ],
)
def test_failures_are_explained(kind: str, number: int, said: str) -> None:
    text, hint = attach.explain(kind, number, f"mount {kind}: nfs: Unknown parameter 'x'")
    assert said in text and hint


def test_a_volume_is_lent_as_a_bind(volumes: Volumes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, Mapping[str, Any], Path]] = []

    def mount(name: str, wanted: Mapping[str, Any], place: Path) -> None:
        asked.append((name, wanted, place))
        (place / "sub").mkdir()

    released: list[Path] = []
    monkeypatch.setattr(attach, "_mount", mount)
    monkeypatch.setattr(attach, "release", released.append)
    volumes.create("far", driver_opts={"type": "nfs", "device": ":/x", "o": "addr=::1,nosuid"})
    wanted = volumes.mount("far", "/d", read_only=True, subpath="sub")
    with volumes.lent("far", wanted, subpath="sub") as lent:
        place = asked[0][2]
        assert lent == {
            "destination": "/d", "type": "bind", "source": f"{place}/./sub", "options": ["rbind", "rprivate", "ro"],
        }  # fmt: skip
        assert place.parent == tmp_path / "volumes" and not released
    assert released == [place]
    with pytest.raises(NotFoundError, match="subpath gone"), volumes.lent("far", wanted, subpath="gone"):
        pass
    assert len(released) == 2
    assert [v.name for v in volumes.list()] == ["far"]


def test_what_the_container_mounts_itself_is_left_alone(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("plain")
    volumes.create("here", driver_opts={"type": "none", "device": str(tmp_path), "o": "bind"})
    volumes.create("mem", driver_opts={"type": "tmpfs", "device": "tmpfs"})
    for name in ("plain", "here", "mem"):
        mount = volumes.mount(name, "/d")
        with volumes.lent(name, mount) as lent:
            assert lent == mount
    with volumes.contents("here") as place:
        assert place == tmp_path
    with volumes.contents("plain") as place:
        assert place == volumes.path("plain")
    with pytest.raises(UnsupportedError, match="only inside of containers"), volumes.contents("mem"):
        pass


def test_a_mount_that_takes_too_long_is_given_up(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(attach, "PATIENCE", 0.2)
    monkeypatch.setattr(attach, "_CODE", "import time; time.sleep(60)  # {}")
    volumes.create("far", driver_opts={"type": "nfs", "device": ":/x", "o": "addr=::1"})
    with pytest.raises(OrchestraError, match=r"volume far: cannot mount \[::1\]:/x: no answer within 0.2 s"), volumes.lent("far", volumes.mount("far", "/d")):
        raise AssertionError("it was not mounted")
    assert [p.name for p in (tmp_path / "volumes").iterdir()] == ["far"]


def test_an_unknown_filesystem_is_named(volumes: Volumes, tmp_path: Path) -> None:
    volumes.create("odd", driver_opts={"type": "surely-none", "device": "x"})
    with pytest.raises(OrchestraError, match="volume odd: cannot mount x: "), volumes.lent("odd", volumes.mount("odd", "/d")):
        raise AssertionError("it was not mounted")
    assert [p.name for p in (tmp_path / "volumes").iterdir()] == ["odd"]


@pytest.mark.parametrize(
    ("device", "o", "options"),
    [
        ("//127.0.0.1/share", "username=a,password=b", ["username=a", "password=b", "ip=127.0.0.1"]),
        (r"\\::1\share", "guest", ["guest", "ip=::1"]),
        ("//files.example/share", "addr=127.0.0.1,guest,rw", ["guest", "ip=127.0.0.1"]),
    ],
)
def test_servers_of_cifs(volumes: Volumes, device: str, o: str, options: list[str]) -> None:
    volumes.create("far", driver_opts={"type": "cifs", "device": device, "o": o})
    assert volumes.mount("far", "/d") == {"destination": "/d", "type": "cifs", "source": device, "options": options}
    with pytest.raises(OrchestraError, match="no server given"):
        volumes.mount(volumes.create("none", driver_opts={"type": "cifs", "device": "/", "o": "guest"}).name, "/d")
