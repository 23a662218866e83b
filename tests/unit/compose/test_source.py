"""Which files, directory, variables and name a project has; what files may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.compose import source
from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.options import LoadOptions


def around(cwd: Path, **fields: Any) -> source.Surroundings:
    return source.surroundings(LoadOptions(cwd=str(cwd), **fields), Problems())


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_search_goes_upwards_and_takes_the_override(tmp_path: Path) -> None:
    put(tmp_path, compose_yaml="", compose_override_yml="", deep__er__x="")
    found = around(tmp_path / "deep/er")
    assert found.files == (f"{tmp_path}/compose.yaml", f"{tmp_path}/compose.override.yml")
    assert found.working_dir == str(tmp_path)


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(ComposeError) as caught:
        around(tmp_path)
    assert caught.value.brief == "no compose file found" and caught.value.hint


def test_several_candidates_warn(tmp_path: Path) -> None:
    put(tmp_path, compose_yaml="", **{"docker-compose_yml": ""})
    problems = Problems()
    found = source.surroundings(LoadOptions(cwd=str(tmp_path)), problems)
    assert found.files == (f"{tmp_path}/compose.yaml",)
    assert "several compose files" in problems.warnings[0].message


def test_flags_win_and_the_first_file_gives_the_directory(tmp_path: Path) -> None:
    found = around(tmp_path, files=("s/a.yaml", "-", "/t/b.yaml"), environ={"COMPOSE_FILE": "x"})
    assert found.files == (f"{tmp_path}/s/a.yaml", "-", "/t/b.yaml")
    assert found.working_dir == f"{tmp_path}/s"
    assert around(tmp_path, files=("-",)).working_dir == str(tmp_path)
    assert around(tmp_path, files=("s/a.yaml",), project_directory="d").working_dir == f"{tmp_path}/d"


def test_compose_file_variable(tmp_path: Path) -> None:
    assert around(tmp_path, environ={"COMPOSE_FILE": "a:b"}).files == (f"{tmp_path}/a", f"{tmp_path}/b")
    environ = {"COMPOSE_FILE": "a,b", "COMPOSE_PATH_SEPARATOR": ","}
    assert around(tmp_path, environ=environ).files == (f"{tmp_path}/a", f"{tmp_path}/b")


def test_precedence_of_variables(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=dot\nB=dot\n")
    (tmp_path / "one").write_text("A=one\nB=one\nC=one\n")
    (tmp_path / "two").write_text("B=two\nD=$C-$A\n")
    found = around(tmp_path, files=("c",), environ={"A": "shell"}, env_files=("one", "two"))
    assert found.environment == {"A": "shell", "B": "two", "C": "one", "D": "one-shell"}
    assert found.origins["B"] == ("two:1", "one:2") and found.origins["A"] == ("shell", "one:1")
    found = around(tmp_path, files=("c",), environ={"A": "shell"})
    assert found.environment == {"A": "shell", "B": "dot"}
    assert found.env_files == (f"{tmp_path}/.env",)
    found = around(tmp_path, files=("c",), environ={"COMPOSE_DISABLE_ENV_FILE": "true"})
    assert "B" not in found.environment


def test_profiles(tmp_path: Path) -> None:
    environ = {"COMPOSE_PROFILES": " a, b ,,"}
    assert around(tmp_path, files=("c",), environ=environ).profiles == ("a", "b")
    assert around(tmp_path, files=("c",), environ=environ, profiles=("x",)).profiles == ("x",)


@pytest.mark.parametrize(("text", "name"), [("Foo_Bar!x", "foo_barx"), ("--a-b", "a-b"), ("éé", ""), ("9A", "9a"), ("_x", "x")])
def test_normal_names(text: str, name: str) -> None:
    assert source.normal_name(text) == name


@pytest.mark.parametrize("text", ["Foo", "a b", "-a", "", "a.b"])
def test_given_names_must_comply(text: str) -> None:
    with pytest.raises(ComposeError) as caught:
        source.checked_name(text, "--project-name", Problems())
    assert "invalid project name" in caught.value.brief


def test_paths() -> None:
    assert source.join("/a", "./b/../c") == "/a/c"
    assert source.join("/a", "/b") == "/b"
    assert source.join("/a", "~/x", "/home/u") == "/home/u/x"
    assert source.join("sub", "./x") == "sub/x"
    assert source.shown_name("/w/p/c.yaml", "/w/p") == "c.yaml"
    assert source.shown_name("/w/q/c.yaml", "/w/p") == "/w/q/c.yaml"
    assert source.shown_name("/c.yaml", "/") == "/c.yaml"


def test_encodings() -> None:
    for data in ("é".encode(), b"\xef\xbb\xbf" + "é".encode(), "é".encode("utf-16")):
        assert source.decode(data, "f", Problems(), "file") == "é"
    with pytest.raises(ComposeError) as caught:
        source.decode(b"a\nb\xff", "f", Problems(), "file")
    assert caught.value.location is not None
    assert (caught.value.location.line, caught.value.location.column) == (2, 2)


def test_bound_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 11)
    with pytest.raises(ComposeError):
        source.read_text(str(tmp_path / "f"), Problems(), "file", limit=10)
