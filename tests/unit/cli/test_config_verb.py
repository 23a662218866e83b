"""The config and graph verbs in this process."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.context import Context
from orchestra.cli.main import Globals
from orchestra.cli.verbs import config, graph
from orchestra.errors import OrchestraError

FILE = """
services:
  web: {image: "nginx:${TAG:-1}", depends_on: [db], environment: {DEBUG: "${DEBUG-0}"}, volumes: ["data:/d"], profiles: [p]}
  db: {build: .}
volumes: {data: {}}
"""


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def call(folder: Path, *words: str, verb: Any = config, text: str = FILE, environ: dict[str, str] | None = None) -> Outcome:
    (folder / "compose.yaml").write_text(text)
    out, err = io.StringIO(), io.StringIO()
    options = Globals()
    options.profile.append("p")
    base = {"HOME": "/home/u", "ORCHESTRA_ROOT": str(folder / "root")}
    ctx = Context(options, {**base, **(environ or {})}, str(folder), out, err)
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    code = verb.run(ctx, parser.parse_args(words))
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(("flag", "lines"), [
    ("--services", ["db", "web"]), ("--volumes", ["data"]), ("--networks", ["default"]), ("--profiles", ["p"]),
    ("--models", [])])
def test_lists(tmp_path: Path, flag: str, lines: list[str]) -> None:
    assert call(tmp_path, flag).out.splitlines() == lines


def test_images(tmp_path: Path) -> None:
    assert call(tmp_path, "--images", environ={"COMPOSE_PROJECT_NAME": "p"}).out.splitlines() == ["nginx:1", "p-db"]


def test_hash(tmp_path: Path) -> None:
    lines = call(tmp_path, "--hash", "*").out.splitlines()
    assert [line.split()[0] for line in lines] == ["db", "web"] and len(lines[0].split()[1]) == 64
    with pytest.raises(OrchestraError, match="no such service: wb"):
        call(tmp_path, "--hash", "wb")


def test_environment_and_variables(tmp_path: Path) -> None:
    assert "TAG=7" in call(tmp_path, "--environment", environ={"TAG": "7"}).out.splitlines()
    rows = json.loads(call(tmp_path, "--variables", "--format", "json").out)
    assert rows["TAG"] == {"Name": "TAG", "DefaultValue": "1", "PresenceValue": "", "Required": False}


def test_formats_and_output(tmp_path: Path) -> None:
    assert json.loads(call(tmp_path, "--format", "json").out)["services"]["web"]["image"] == "nginx:1"
    assert call(tmp_path, "-o", "out.yaml").out == ""
    assert "image: nginx:1" in (tmp_path / "out.yaml").read_text()
    assert call(tmp_path, "-q").out == ""
    assert "image: nginx:${TAG:-1}" in call(tmp_path, "--no-interpolate").out


def test_selection(tmp_path: Path) -> None:
    assert call(tmp_path, "--services", "db").out == "db\n"


def test_explain(tmp_path: Path) -> None:
    told = call(tmp_path, "--explain", "services.web.environment.DEBUG", environ={"DEBUG": "1"}).out
    assert 'services.web.environment.DEBUG = "1"' in told and "compose.yaml:3" in told and "set by shell" in told
    assert "variable TAG is not set" in call(tmp_path, "--explain", "TAG").out
    data = json.loads(call(tmp_path, "--explain", "services.web.image", "--format", "json").out)
    assert data["value"] == "nginx:1" and data["line"] == 3
    with pytest.raises(OrchestraError) as caught:
        call(tmp_path, "--explain", "services.web.imge")
    assert caught.value.hint == "did you mean services.web.image?"


def test_errors(tmp_path: Path) -> None:
    bad = "services: {a: {imge: x, user: 1}}"
    with pytest.raises(OrchestraError) as caught:
        call(tmp_path, "-q", text=bad)
    assert str(caught.value).count("error:") == 2 and "did you mean image?" in str(caught.value)
    data = json.loads(call(tmp_path, "--format", "json", text=bad).err)
    assert [item["path"] for item in data["problems"]] == ["services.a.imge", "services.a.user"]


def test_lock_needs_the_image(tmp_path: Path) -> None:
    with pytest.raises(OrchestraError, match="not in the local store"):
        call(tmp_path, "--lock-image-digests")


def test_graph(tmp_path: Path) -> None:
    assert "after db [started]" in call(tmp_path, verb=graph).out
    assert call(tmp_path, "--format", "svg", "-o", "g.svg", verb=graph).out == ""
    assert (tmp_path / "g.svg").read_text().startswith("<svg")
