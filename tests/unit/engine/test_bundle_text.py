"""The written configuration is what was computed, whichever way it was encoded; what of the machine it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestra.engine import bundle
from orchestra.engine import machine as machine_of
from orchestra.engine.hostfiles import write_all
from orchestra.runtime import defaults

HELD = tuple(defaults.CAPABILITIES)


def config(**linux: Any) -> dict[str, Any]:
    process = {"args": ["a\u00e4\"}}"], "capabilities": {"bounding": list(HELD)}}
    return {"ociVersion": "1.2.0", "process": process, "linux": {"sysctl": {"a": "}}"}, **linux}, "hostname": "h"}


@pytest.mark.parametrize("linux", [
    {"seccomp": bundle._default_profile(HELD)}, {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}, {},
    {"seccomp": bundle._default_profile(HELD[:2])},
])  # fmt: skip
def test_the_text_is_the_configuration(linux: dict[str, Any]) -> None:
    wanted = config(**linux)
    before = json.dumps(wanted)
    assert json.loads(bundle.encoded(wanted)) == wanted
    assert json.dumps(wanted) == before  # nothing of it was changed


def test_it_is_written_for_its_owner_only_and_through_no_link(tmp_path: Path) -> None:
    place = tmp_path / "config.json"
    old = os.umask(0)
    try:
        bundle._put(str(place), b"long content")
        bundle._put(str(place), b"short")
    finally:
        os.umask(old)
    assert place.read_bytes() == b"short" and place.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(OSError):
        bundle._put(str(tmp_path / "link"), b"x")
    bundle.make_folder(str(tmp_path / "a" / "b"))
    bundle.make_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_the_files_of_etc_keep_their_inode_and_lose_what_a_container_did_to_them(tmp_path: Path) -> None:
    write_all(str(tmp_path), {"hosts": "a long first text\n"})
    first = (tmp_path / "hosts").stat()
    (tmp_path / "hosts").chmod(0o600)
    write_all(str(tmp_path), {"hosts": "short\n", "hostname": "h\n"})
    second = (tmp_path / "hosts").stat()
    assert (tmp_path / "hosts").read_text() == "short\n" and (tmp_path / "hostname").read_text() == "h\n"
    assert first.st_ino == second.st_ino and second.st_mode & 0o777 == 0o644


def test_the_machine_is_looked_at_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(machine_of, "_has_swap", lambda: bool(looks.append(1)) or len(looks) > 1)
    machine_of._in_second.cache_clear()
    found = [machine_of.machine(lambda at=at: at).swap for at in (5.0, 5.9, 6.0, 6.5)]  # type: ignore[misc]
    machine_of._in_second.cache_clear()
    assert found == [False, False, True, True] and len(looks) == 2
