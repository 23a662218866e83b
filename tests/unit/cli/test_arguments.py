"""The parser's habits: switches with a value, words and options mixed, complaints in docker's words."""

from __future__ import annotations

import argparse

import pytest

from orchestra.cli.arguments import columns
from orchestra.cli.main import make_parser
from orchestra.errors import OrchestraError


def parser(*, command: bool = False) -> argparse.ArgumentParser:
    made = make_parser("logs")
    made.add_argument("-f", "--follow", action="store_true")
    made.add_argument("--prune", action="store_true", default=True)
    made.add_argument("-n", "--tail", type=int, default=5)
    made.add_argument("--format", choices=["table", "json"], default="table")
    if command:
        made.add_argument("service")
        made.add_argument("command", nargs=argparse.REMAINDER)
    else:
        made.add_argument("services", nargs="*", metavar="SERVICE")
    return made


@pytest.mark.parametrize(("words", "follow"), [
    (["--follow"], True), (["--follow=true"], True), (["--follow=false"], False), (["-f=1"], True), (["-f", "--follow=F"], False), ([], False),
])  # fmt: skip
def test_a_switch_takes_a_value(words: list[str], follow: bool) -> None:
    assert parser().parse_args([*words, "web"]).follow is follow


def test_a_switch_that_is_on_can_be_put_off() -> None:
    assert parser().parse_args([]).prune is True and parser().parse_args(["--prune"]).prune is True
    assert parser().parse_args(["--prune=false"]).prune is False


def test_words_and_options_are_mixed() -> None:
    args = parser().parse_args(["web", "-f", "db", "--tail", "7", "cache"])
    assert (args.services, args.follow, args.tail) == (["web", "db", "cache"], True, 7)


def test_the_options_of_a_command_are_its_own() -> None:
    args = parser(command=True).parse_args(["-f", "web", "tail", "-f", "--follow=false", "--nope", "--prune=false"])
    assert args.command == ["tail", "-f", "--follow=false", "--nope", "--prune=false"] and args.follow and args.prune


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["--folow"], "unknown flag: --folow", "did you mean --follow?"),
    (["--folow=1", "web"], "unknown flag: --folow", "did you mean --follow?"),
    (["-x"], "unknown flag: -x", "see orchestra logs --help"),
    (["--tail"], "flag needs an argument: -n/--tail", "see orchestra logs --help"),
    (["--tail", "x"], 'invalid argument "x" for -n/--tail: not a whole number', "see orchestra logs --help"),
    (["--format", "xml"], 'invalid argument "xml" for --format: must be table or json', "see orchestra logs --help"),
    (["--follow=perhaps"], 'invalid argument "perhaps" for -f/--follow: not a boolean', "see orchestra logs --help"),
])  # fmt: skip
def test_complaints(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(OrchestraError) as caught:
        parser().parse_args(words)
    assert (caught.value.brief, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(("text", "width"), [("40", 40), ("0", None), ("wide", None), ("", None)])
def test_the_width_of_the_help(monkeypatch: pytest.MonkeyPatch, text: str, width: int | None) -> None:
    monkeypatch.setenv("COLUMNS", text)
    assert columns() == width if width else columns() > 0
