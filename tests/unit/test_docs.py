"""The documentation against the code: links lead somewhere, commands are understood, every verb has its row."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from support import schemapaths

from orchestra.cli.main import Globals, _add_globals, make_parser, split
from orchestra.cli.table import GROUPS, HIDDEN, VERBS
from orchestra.errors import OrchestraError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^\s*(?:#\s+)?(?:[A-Z_]+=\S+ )*orchestra ((?:-\S+ )*[a-z].*)$")

NAMED = re.compile(r"`orchestra ((?:-\S+ )*[a-z-]+(?: [^`]*)?)`")


def parser_of(target: str, name: str) -> argparse.ArgumentParser:
    module, _, function = target.partition(":")
    found = importlib.import_module(f"orchestra.cli.verbs.{module}")
    made = make_parser(name)
    getattr(found, f"add_{function}" if function else "add_arguments")(made)
    _add_globals(made)
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def whole_lines(page: Path) -> list[str]:
    """Lines that end with a backslash go on in the next one."""
    return re.sub(r"\\\n#?\s*", "", page.read_text()).splitlines()


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line in a code block, and of the first lines of the examples."""
    found = []
    for page in PAGES:
        inside = False
        for line in whole_lines(page):
            if line.startswith("```"):
                inside = not inside
            match = COMMAND.match(line)
            if match and (inside or line.startswith("    ")):
                found.append((page.name, match[1]))
    for example in (ROOT / "examples/compose").glob("*/compose.yaml"):
        for line in whole_lines(example):
            match = COMMAND.match(line) if line.startswith("#   ") else None
            if match:
                found.append((example.parent.name, match[1]))
    return found


def named() -> list[tuple[str, str]]:
    """(page, command) of every command that is named within the text."""
    found = [(page.name, text) for page in PAGES for text in NAMED.findall(page.read_text())]
    return sorted(set(found))


def parse(command: str) -> None:
    """As the program does; raises OrchestraError for what is not there."""
    words = shlex.split(re.split(r"\s+(?:#|\(|&&|\|)", command)[0])
    words = [word for word in words if word != "…"]
    verb, rest = split(words, Globals())
    target = VERBS.get(verb)
    if verb == "VERB":
        return
    if verb in GROUPS:
        if not rest:
            return
        verb, target = f"{verb} {rest[0]}", GROUPS[verb].get(rest.pop(0))
    assert target, f"orchestra {command}: no such command"
    parser_of(target, verb).parse_args(rest)


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_in_code_are_understood(page: str, command: str) -> None:
    try:
        parse(command)
    except OrchestraError as error:
        assert "…" in command and "required" in str(error), f"{page}: orchestra {command}: {error}"


@pytest.mark.parametrize(("page", "command"), named())
def test_commands_in_text_are_understood(page: str, command: str) -> None:
    """They may lack what they work on."""
    try:
        parse(command)
    except OrchestraError as error:
        assert re.search("required|flag needs an argument", str(error)), f"{page}: orchestra {command}: {error}"


def test_every_verb_is_in_the_feature_table() -> None:
    text = (ROOT / "docs/features.md").read_text()
    missing = [verb for verb in VERBS if verb not in HIDDEN and not re.search(rf"\b{re.escape(verb)}\b", text)]
    assert missing == []


def test_every_example_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [place.name for place in (ROOT / "examples/compose").iterdir() if place.name not in text] == []


def test_the_list_of_attributes_is_complete() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", (ROOT / "docs/attributes.md").read_text(), re.M)
    assert [path for path, _ in rows] == schemapaths.paths()
    assert {state for _, state in rows} == {"works", "partly", "warning", "refused", "no meaning"}


def test_what_security_rests_on_exists() -> None:
    """Each test that docs/security.md names: `word` behind a file is a part of a test's (or a class's) name in it."""
    missing, named = [], 0
    for cell in (ROOT / "docs/security.md").read_text().replace("\n", "|").split("|"):
        texts: list[str] = []
        for file, word in re.findall(r"(test_\w+\.py)|`([A-Za-z_]+)`", cell):
            if file:
                texts = [place.read_text() for place in (ROOT / "tests").rglob(file)]
                missing += [file] if not texts else []
            elif texts:
                named += 1
                found = any(re.search(rf"(def test_\w*|class \w*){word}", text) for text in texts)
                missing += [] if found else [word]
    assert missing == []
    assert named > 30
