"""Configurations with a filter that is known: what they mean is not changed by that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.runtime import configfile, defaults, process, seccomp

PROFILE = seccomp.default_profile(defaults.CAPABILITIES, machine="x86_64")


def load(place: Path, config: Any, **words: Any) -> Any:
    (place / "config.json").write_text(json.dumps(config, **words))
    return configfile.load(str(place / "config.json"))


@pytest.fixture(autouse=True)
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configfile, "_known", {})
    monkeypatch.setattr(seccomp, "native", lambda: "x86_64")


def test_the_filter_is_compiled_once(tmp_path: Path) -> None:
    config = {"a": 1, "linux": {"x": [], "seccomp": PROFILE, "y": {"z": None}}, "b": "ü"}
    first, second = load(tmp_path, config), load(tmp_path, {**config, "a": 2})
    assert first["linux"]["seccomp"] is second["linux"]["seccomp"]
    known = process.compile_filter(PROFILE)
    assert (first["linux"]["seccomp"].program, first["linux"]["seccomp"].flags) == (known.program, known.flags)
    for found, number in ((first, 1), (second, 2)):
        found["linux"]["seccomp"] = PROFILE
        assert found == {**config, "a": number}


def test_one_filter_that_begins_like_another(tmp_path: Path) -> None:
    other = {**PROFILE, "syscalls": [*PROFILE["syscalls"], {"names": ["getpid"], "action": "SCMP_ACT_ERRNO"}]}
    programs = [load(tmp_path, {"linux": {"seccomp": one}})["linux"]["seccomp"].program for one in (PROFILE, other, PROFILE)]
    assert programs[0] == programs[2] == process.compile_filter(PROFILE).program
    assert programs[1] == process.compile_filter(other).program


@pytest.mark.parametrize(
    "config",
    [
        {"linux": {}},
        {"linux": {"seccomp": None}},
        {"linux": {"seccomp": {}}},
        {"linux": {"seccomp": {"flags": ["NO_SUCH"], "defaultAction": "SCMP_ACT_ALLOW"}}},
        {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NO_SUCH"}}},
        {"linux": {"seccomp": "word"}},
        {"linux": None, "seccomp": PROFILE},
        {"process": {"seccomp": PROFILE}, "linux": {}},
        {"process": {"seccomp": PROFILE}, "linux": {"seccomp": PROFILE}},
        {"process": {"seccomp": PROFILE}, "linux": {"seccomp": None}},
        {'a"seccomp': {"x": 1}, "linux": {"y": 2}},
        {"text": '"seccomp": {}', "linux": {"seccomp": None}},
        {"text": '"seccomp": ', "linux": {}},
    ],
)
def test_what_is_unusual_is_read_as_it_is(tmp_path: Path, config: dict[str, Any]) -> None:
    assert load(tmp_path, config) == config
    load(tmp_path, {"linux": {"seccomp": PROFILE}})
    assert load(tmp_path, config) == config


def test_other_spacing_is_read_as_it_is(tmp_path: Path) -> None:
    config = {"linux": {"seccomp": PROFILE}}
    assert load(tmp_path, config, separators=(",", ":")) == config
    found = load(tmp_path, config, indent=1)["linux"]["seccomp"]
    assert found.program == process.compile_filter(PROFILE).program


def test_few_are_kept(tmp_path: Path) -> None:
    for number in range(10):
        load(tmp_path, {"linux": {"seccomp": {**PROFILE, "defaultErrnoRet": number + 1}}})
    assert len(configfile._known) == 4


@pytest.mark.parametrize("text", ["", "{", '{"linux": {"seccomp": {"a": 1}', '{"linux": {"seccomp": '])
def test_no_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r".*"):
        configfile.load(str(tmp_path / "config.json"))
