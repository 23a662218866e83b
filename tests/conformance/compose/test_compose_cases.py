"""Every case of the corpus: the same model or the same refusal as docker compose, or the difference
that is written down with its reason. Needs no docker: the answers are recorded (``record.py``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.compose_cases import Case, cases, comparable, config_of, portable, single_dollars

from orchestra.compose import ComposeError, load


def answer(case: Case, parent: Path) -> dict[str, Any]:
    top, cwd = case.copy(parent)
    try:
        project = load(case.load_options(cwd))
    except ComposeError as error:
        for problem in error.problems:
            assert problem.message and problem.text()
        return {"refused": portable(str(error), top)}
    return {"config": portable(config_of(project), top)}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path) -> None:
    got = answer(case, tmp_path)
    difference = case.read("difference.json")
    wanted = difference or case.read("expected.json")
    assert wanted is not None
    if difference is not None:
        assert difference["reason"]
    if "refused" in wanted:
        assert "refused" in got, f"docker compose refuses this: {wanted['refused']}"
        return
    assert "config" in got, got["refused"]
    config = wanted["config"]
    if difference is None and not case.options.get("no_interpolate"):
        config = single_dollars(config)
    assert comparable(got["config"]) == comparable(config)


def test_differences_are_in_the_docs() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("differences", Path(__file__).parent / "differences.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page()
