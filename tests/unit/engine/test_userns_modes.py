"""Which ids a container gets: modes, the engine's default, free ranges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra.engine import userns
from orchestra.engine.userns import FIRST, SIZE, Range
from orchestra.errors import ConflictError, OrchestraError, UnsupportedError
from orchestra.paths import Paths


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


@pytest.fixture
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user me is 1000, the group us is 2000, and both have ranges."""
    users, groups = {"me": 1000, "other": 1001, "gap": 1002}, {"us": 2000, "other": 1001}
    monkeypatch.setattr(userns, "_user_name", lambda text: swap(users, text))
    monkeypatch.setattr(userns, "_group_name", lambda text: swap(groups, text))
    (tmp_path / "subuid").write_text("# comment\nother:1:2\nme:100000:70000\nbad:x:y\n1001:3:5\n"
                                     "gap:10:10\ngap:20:5\n1002:25:5\ngap:100:100\n")  # fmt: skip
    (tmp_path / "subgid").write_text("2000:300000:1000\nme:200000:65536\nother:9:9\ngap:50:200\n")
    monkeypatch.setattr(userns, "SUBUID", tmp_path / "subuid")
    monkeypatch.setattr(userns, "SUBGID", tmp_path / "subgid")


def swap(names: dict[str, int], text: str) -> str:
    numbers = {str(number): name for name, number in names.items()}
    return numbers.get(text, text) if text.isdigit() else str(names.get(text, text))


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("remap", "uid", "gid", "size"),
    [
        ("me", 100000, 200000, 65536),
        ("1000", 100000, 200000, 65536),
        ("me:us", 100000, 300000, 1000),
        ("1000:2000", 100000, 300000, 1000),
        ("me:2000", 100000, 300000, 1000),
        ("1000:us", 100000, 300000, 1000),
        ("me:nobody", 100000, 200000, 65536),  # the group has no entry: the user's
        ("other", 1, 9, 7),  # by name and by number, without a gap
        ("gap", 10, 50, 20),  # what follows a gap does not count
    ],
)
def test_forms_of_userns_remap(settings: Path, monkeypatch: pytest.MonkeyPatch, remap: str, uid: int, gid: int, size: int) -> None:
    monkeypatch.setattr(userns, "may_map", lambda _paths: True)
    settings.write_text(json.dumps({"userns-remap": remap}))
    assert wanted("") == Range(size, False, uid, gid)
    assert userns.for_builds(Paths("/nowhere", "/nowhere")) == (uid, gid, size)
    assert wanted("host") is None and wanted("auto") == Range(SIZE)


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("remap", "said"),
    [
        ("nobody", "subuid has no range for nobody"),
        ("4711", "subuid has no range for 4711"),
        ("bad", "subuid has no range for bad"),
        ("4711:us", "subuid has no range for 4711"),
        ("me:us:more", "not understood"),
        ("me:", "not understood"),
        (":us", "not understood"),
    ],
)
def test_refused_forms(settings: Path, remap: str, said: str) -> None:
    settings.write_text(json.dumps({"userns-remap": remap}))
    with pytest.raises(OrchestraError, match=said) as caught:
        wanted("")
    assert caught.value.hint


def test_default_takes_entries_of_our_own_where_there_are_some(tmp_path: Path, settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.write_text('{"userns-remap": "default"}')
    for name in ("SUBUID", "SUBGID"):
        monkeypatch.setattr(userns, name, tmp_path / name)
    assert wanted("") == Range(SIZE, False, FIRST, FIRST)
    (tmp_path / "SUBUID").write_text("orchestra:500:600\n")
    assert wanted("") == Range(SIZE, False, FIRST, FIRST)
    (tmp_path / "SUBGID").write_text("orchestra:700:500\n")
    assert wanted("") == Range(500, False, 500, 700)


def test_spellings_of_this_machine() -> None:
    assert userns._user_name("root") == "0" and userns._user_name("0") == "root"
    assert userns._group_name("root") == "0" and userns._group_name("0") == "root"
    for text in ("no-such-name", "4000000000", "99999999999999999999"):
        assert userns._user_name(text) == userns._group_name(text) == text


@pytest.mark.parametrize("value", ["1000", "true", "[]  ", '["me"]', '{"a": 1}'])
def test_other_types_are_refused(settings: Path, value: str) -> None:
    settings.write_text(f'{{"userns-remap": {value}}}')
    if json.loads(value):
        with pytest.raises(OrchestraError, match="no string"):
            wanted("")
    else:
        assert wanted("") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"userns_remap": "auto"}'])
def test_bad_settings_say_where(settings: Path, text: str) -> None:
    settings.write_text(text)
    with pytest.raises(OrchestraError) as caught:
        wanted("")
    assert caught.value.location and caught.value.location.file == str(settings) and caught.value.location.line == 1


def test_builds_need_mapped_ids(settings: Path) -> None:
    settings.write_text('{"userns-remap": "default", "id-mapped-mounts": false}')
    with pytest.raises(UnsupportedError, match="id-mapped"):
        userns.for_builds(Paths("/nowhere", "/nowhere"))
    assert userns.mapping_setting() is False
    settings.write_text('{"id-mapped-mounts": false}')
    assert userns.for_builds(Paths("/nowhere", "/nowhere")) is None
    settings.write_text('{"id-mapped-mounts": "no"}')
    with pytest.raises(OrchestraError, match="neither true nor false"):
        userns.mapping_setting()
    settings.unlink()
    assert userns.mapping_setting() is True


def test_the_range_that_it_had_before() -> None:
    used = [(FIRST + SIZE, SIZE)]
    assert userns.free_start(used, before=FIRST + 5 * SIZE) == FIRST + 5 * SIZE
    for other in (0, FIRST, FIRST + SIZE, FIRST + 5 * SIZE + 1, userns.END, 100000):
        assert userns.free_start(used, before=other) == FIRST + 2 * SIZE


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
