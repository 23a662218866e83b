"""Which ids a container gets: modes, the engine's default, free ranges."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.engine import userns
from orchestra.engine.userns import FIRST, SIZE, Range
from orchestra.errors import ConflictError, OrchestraError, UnsupportedError


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "daemon.json"
    monkeypatch.setenv("ORCHESTRA_SETTINGS", str(place))
    return place


def wanted(mode: str, **modes: str) -> Range | None:
    return userns.wanted(mode, privileged=False, modes=modes)


def test_modes() -> None:
    assert wanted("") is None and wanted("host") is None
    assert wanted("auto") == wanted("private") == Range(SIZE)
    assert wanted("auto:size=1000") == Range(1000)


@pytest.mark.parametrize("mode", ["nomap", "keep-id", "auto:size=0", "auto:size=x", "auto:uidmapping=0:1:2", "container:x", f"auto:size={SIZE + 1}"])
def test_other_modes_are_refused(mode: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        wanted(mode)
    assert caught.value.hint


def test_contradictions() -> None:
    with pytest.raises(ConflictError, match="privileged"):
        userns.wanted("auto", privileged=True, modes={})
    with pytest.raises(ConflictError, match="network: host and pid: host"):
        wanted("auto", network="host", pid="host")
    assert userns.wanted("host", privileged=True, modes={"network": "host"}) is None


def test_the_default(settings: Path) -> None:
    settings.write_text('{"userns-remap": "auto"}')
    assert wanted("") == Range(SIZE)
    assert wanted("host") is None
    settings.write_text('{"userns-remap": ""}')
    assert wanted("") is None
    settings.write_text("{}")
    assert wanted("") is None


def test_ranges_of_subuid(tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "subuid"
    file.write_text("# comment\nother:1:2\nme:100000:70000\nme:5:5\nbad:x:y\n")
    assert userns._entry(str(file), "me") == (100000, 70000)
    assert userns._entry(str(file), "bad") is None
    assert userns._entry(str(tmp_path / "none"), "me") is None
    settings.write_text('{"userns-remap": "a-name-that-nobody-has"}')
    with pytest.raises(OrchestraError, match="subuid"):
        wanted("")


@pytest.mark.parametrize("text", ["{", "[]", '{"userns_remap": "auto"}'])
def test_bad_settings_say_where(settings: Path, text: str) -> None:
    settings.write_text(text)
    with pytest.raises(OrchestraError) as caught:
        wanted("")
    assert caught.value.location and caught.value.location.file == str(settings) and caught.value.location.line == 1


def test_free_ranges() -> None:
    assert userns.free_start([]) == FIRST + SIZE  # the first is the shared one
    assert userns.free_start([(FIRST, SIZE), (FIRST + 2 * SIZE, 1000), (100000, SIZE)]) == FIRST + SIZE
    assert userns.free_start([(FIRST + SIZE + 5, SIZE)]) == FIRST + 3 * SIZE  # it reaches into two
    assert userns.free_start([(FIRST - 10, 3 * SIZE)]) == FIRST + 3 * SIZE
    with pytest.raises(ConflictError):
        userns.free_start([(FIRST, userns.END - FIRST)])


def test_mounts_of_volumes() -> None:
    bind = {"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind", "rw"]}
    assert userns.map_mounts([bind])[0]["options"] == ["rbind", "rw", "idmap"]
    memory = {"destination": "/d", "type": "tmpfs", "source": "tmpfs", "options": ["size=1"]}
    assert userns.map_mounts([memory]) == [memory]
    with pytest.raises(UnsupportedError, match="nfs"):
        userns.map_mounts([{"destination": "/d", "type": "nfs", "source": ":/x", "options": []}])


def test_mappings() -> None:
    assert Range(10, False, 5, 7).mappings() == {
        "uidMappings": [{"containerID": 0, "hostID": 5, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 7, "size": 10}],
    }
