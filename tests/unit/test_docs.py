"""The documentation against the code: links lead somewhere, commands exist, every verb has its row."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path

import pytest
from support import schemapaths

from orchestra.cli.main import FLAG_OPTIONS, VALUE_OPTIONS, make_parser
from orchestra.cli.table import GROUPS, HIDDEN, VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^\s*(?:#\s+)?(?:[A-Z_]+=\S+ )*orchestra ((?:-\S+ )*[a-z].*)$")


def parser_of(target: str) -> argparse.ArgumentParser:
    module, _, function = target.partition(":")
    found = importlib.import_module(f"orchestra.cli.verbs.{module}")
    made = make_parser("x")
    getattr(found, f"add_{function}" if function else "add_arguments")(made)
    return made


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line in a code block, and of the first lines of the examples."""
    found = []
    for page in PAGES:
        inside = False
        for line in page.read_text().splitlines():
            if line.startswith("```"):
                inside = not inside
            match = COMMAND.match(line)
            if match and (inside or line.startswith("    ")):
                found.append((page.name, match[1]))
    for example in (ROOT / "examples/compose").glob("*/compose.yaml"):
        for line in example.read_text().splitlines():
            match = COMMAND.match(line) if line.startswith("#   ") else None
            if match:
                found.append((example.parent.name, match[1]))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_exist(page: str, command: str) -> None:
    words = re.split(r"\s+(?:#|\(|&&|\|)", command)[0].split()
    while words and words[0].startswith("-"):
        assert words[0].split("=")[0] in {*VALUE_OPTIONS, *FLAG_OPTIONS}, command
        del words[: 2 if words[0] in VALUE_OPTIONS else 1]
    verb = words.pop(0).rstrip(":,;")
    if verb in GROUPS:
        if not words or not words[0].isalpha():
            return
        target = GROUPS[verb].get(words.pop(0))
    else:
        target = VERBS.get(verb)
    assert target, f"{page}: orchestra {command}: no such command"
    known = {*parser_of(target)._option_string_actions, *VALUE_OPTIONS, *FLAG_OPTIONS}
    for word in words:
        if word in ("--", "…") or not word.startswith("-"):
            if verb in ("exec", "run") or target.endswith(("run", "exec")):
                break  # the rest is the container's command
            continue
        assert word.split("=")[0] in known, f"{page}: orchestra {command}: {word}"


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
