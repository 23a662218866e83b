"""Projects from a text, for tests."""

from __future__ import annotations

from typing import Any

from orchestra.compose.diagnostics import Problem
from orchestra.compose.loader import Loaded, load_full
from orchestra.compose.model import Project
from orchestra.compose.options import LoadOptions


def loaded(text: str, **options: Any) -> Loaded:
    """The text as standard input of a project named p in /srv/p."""
    fields: dict[str, Any] = {"files": ("-",), "stdin": text, "cwd": "/srv/p", "project_name": "p", "environ": {"HOME": "/home/u"}}
    return load_full(LoadOptions(**{**fields, **options}))


def project(text: str, **options: Any) -> Project:
    return loaded(text, **options).project


def problems(text: str, **options: Any) -> tuple[Problem, ...]:
    """The errors of a text that does not load."""
    from orchestra.compose.diagnostics import ComposeError

    try:
        loaded(text, **options)
    except ComposeError as error:
        return error.problems
    raise AssertionError("the text loads")
