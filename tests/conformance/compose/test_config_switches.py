"""The switches of ``config``: the same text as docker compose prints, or a difference with its reason."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from support.compose_cases import cases

sys.path.insert(0, str(Path(__file__).parent))
try:
    import switches
finally:
    sys.path.pop(0)

CASES = {case.name: case for case in cases()}
ANSWERS: dict[str, Any] = json.loads(switches.ANSWERS.read_text())


def ours(entry: tuple[str, str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    from orchestra.cli.main import main

    case = CASES[entry[0]]
    top, cwd = case.copy(folder)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in {"PATH": "/usr/bin:/bin", **case.environ()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cwd)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = main(switches.words(case, entry[1], entry[2]))
    return switches.portable_text(out.getvalue(), top) if code == 0 else None


def comparable(text: str | None, entry: tuple[str, str, str]) -> Any:
    """Lists as sets of lines; documents as they are."""
    if text is None:
        return None
    if "--format json" in entry[2] and text.strip():
        return json.loads(text)
    if "--environment" in entry[2] or "--variables" in entry[2]:
        return sorted(" ".join(line.split()) for line in text.splitlines() if not line.startswith(("PATH=", "PWD=")))
    if any(kind in entry[2] for kind in (*switches.LISTS, "--models")):
        return sorted(text.splitlines())
    return text


@pytest.mark.parametrize("entry", switches.WORDS, ids=switches.key)
def test_same_as_docker_compose(entry: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = ANSWERS[switches.key(entry)]
    got = comparable(ours(entry, tmp_path, monkeypatch), entry)
    if "differs" in recorded:
        assert got == comparable(recorded["ours"], entry)
        assert got != comparable(recorded["theirs"], entry), "no difference any more"
    else:
        assert got == comparable(recorded["theirs"], entry)
