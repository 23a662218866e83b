"""The manual pages against the parsers that they are made from; where groff is, that it takes them without a word."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["orchestra.1", "orchestra-runtime.1"]


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man", ROOT / "docs/man.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_that_of_the_parsers(name: str) -> None:
    assert maker().PAGES[name]() == (ROOT / "docs" / name).read_text(), "run: python docs/man.py (make docs)"


@pytest.mark.parametrize("name", PAGES)
def test_the_wheel_installs_the_page(name: str) -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = data["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared[f"docs/{name}"] == f"share/man/man1/{name}"


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_no_complaint(name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", f"docs/{name}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_is_on_the_page() -> None:
    from support import flaguse

    text = (ROOT / "docs/orchestra.1").read_text().replace("\\-", "-")
    for name in flaguse.TARGETS:
        if name == "convert":
            continue
        section = text.partition(f'.SS "{name}"\n')[2].partition("\n.S")[0]
        for action in flaguse.parser_of(name)._actions:
            if action.help != "==SUPPRESS==" and action.dest != "help":
                assert all(f"\\fB{option}\\fR" in section for option in action.option_strings), (name, action.option_strings)
