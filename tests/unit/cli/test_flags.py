"""The command line beside docker compose's: each of its verbs and flags is taken, refused by name, or a difference with a reason.

data/docker-compose-flags.json was recorded from a docker compose binary's help (tests/support/record_flags.py).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import flaguse

from orchestra.cli.main import FLAG_OPTIONS, REPEATED, VALUE_OPTIONS, main
from orchestra.cli.table import GROUPS, REFUSED, VERBS
from orchestra.errors import OrchestraError

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "data/docker-compose-flags.json").read_text())
FLAGS = [(verb, flag) for verb, told in RECORDED["verbs"].items() if verb in VERBS for flag in [*told["flags"], *told["hidden"]]]

# (verb, flag) → why orchestra has it otherwise
DIFFERENT = {
    ("pull", "--parallel"): "the global option, which takes a number; docker compose's switch has no effect",
    ("pull", "--no-parallel"): "unknown here: --parallel 1 does it; docker compose's switch has no effect",
    ("build", "--parallel"): "the global option, which takes a number; docker compose's switch has no effect",
    ("ps", "--filter"): "may be given several times",
}
DEFAULTS = {
    ("config", "--output"): "the recorded words are a sentence, not a value",
    ("stats", "--all"): "the recorded words are a sentence, not a value",
    ("exec", "--no-tty"): "a terminal is used when input and output are terminals, which is what docker compose's default means",
    ("run", "--no-TTY"): "a terminal is used when input and output are terminals, which is what docker compose's default means",
    ("ps", "--format"): "empty means table",
    ("volumes", "--format"): "empty means table",
}
# Options that the code of their verb never reads, and why that is no silence.
HARMLESS = {
    "rm --all": "one-off containers are removed in any case, as in docker compose",
    "image ls --all": "there are no intermediate images to hide",
    "image build --rm": "nothing is left behind in any case",
    "image build --force-rm": "nothing is left behind in any case",
    "builder build --rm": "nothing is left behind in any case",
    "builder build --force-rm": "nothing is left behind in any case",
    "config --services": "read by a name that is put together", "config --volumes": "likewise", "config --networks": "likewise",
    "convert --services": "likewise", "convert --volumes": "likewise", "convert --networks": "likewise",
    **{f"container {verb} --disable-content-trust": "images are verified by their digests in any case" for verb in ("run", "create")},
    **{f"container {verb} --health-{word}": "likewise" for verb in ("run", "create") for word in ("interval", "start-interval", "start-period", "timeout")},
}  # fmt: skip
EXTRA = {"config": {"--explain"}, "create": {"--quiet-build"}, "ps": {"--no-orphans"}, "start": {"--wait", "--wait-timeout"}}


def action(verb: str, flag: str) -> argparse.Action | None:
    return flaguse.parser_of(verb)._option_string_actions.get(flag)


@pytest.mark.parametrize("verb", sorted(RECORDED["verbs"]))
def test_every_verb_is_there_or_refused_by_name(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = verb.split()[0]
    if first in VERBS:
        return
    assert first in REFUSED and main(verb.split()) == 1
    said = capsys.readouterr().err
    assert f"{first} is not supported" in said and "hint:" in said


@pytest.mark.parametrize(("verb", "flag"), FLAGS)
def test_every_flag_is_taken(verb: str, flag: str) -> None:
    if (verb, flag) in DIFFERENT:
        return
    told = RECORDED["verbs"][verb]["flags"].get(flag)
    found = action(verb, flag)
    if found is None:
        assert flag in {*VALUE_OPTIONS, *FLAG_OPTIONS}, "neither the verb's nor global"
        return
    if told is None:
        return  # hidden in docker compose: nothing about it is recorded
    assert (found.nargs == 0) == (told["kind"] == "bool"), "a switch there, a value here, or the reverse"
    if told["short"]:
        assert action(verb, told["short"]) is not None and told["short"] in found.option_strings
    if found.nargs != 0:
        assert isinstance(found, argparse._AppendAction) == (told["kind"] in ("stringArray", "list", "scale", "filter"))
    if "default" in told and (verb, flag) not in DEFAULTS:
        assert str(found.default).lower() == told["default"].lower()


def test_the_global_options() -> None:
    assert main(["--version"]) == 0
    known = {**VALUE_OPTIONS, **FLAG_OPTIONS}
    for flag, told in RECORDED["global"]["flags"].items():
        assert flag in known and (not told["short"] or known[told["short"]] == known[flag])
        assert (flag in FLAG_OPTIONS) == (told["kind"] == "bool")
        assert (known[flag] in REPEATED) == (told["kind"] == "stringArray")
    assert set(RECORDED["global"]["hidden"]) - {"--version"} <= set(known)


@pytest.mark.parametrize("verb", sorted(set(VERBS) & set(RECORDED["verbs"])))
def test_what_orchestra_adds_is_listed(verb: str) -> None:
    told = RECORDED["verbs"][verb]
    known = {*told["flags"], *told["hidden"], "--help"}
    ours = {max(a.option_strings, key=len) for a in flaguse.parser_of(verb)._actions if a.option_strings and not known & set(a.option_strings)}
    assert ours == EXTRA.get(verb, set())


@pytest.mark.parametrize("name", sorted(flaguse.TARGETS))
def test_no_flag_is_read_by_nobody(name: str) -> None:
    listed = {key.rpartition(" ")[2] for key in HARMLESS if key.rpartition(" ")[0] == name}
    assert set(flaguse.unread(name)) == listed


@pytest.mark.parametrize("name", sorted(flaguse.TARGETS))
def test_every_option_has_words_in_the_help(name: str) -> None:
    assert [a.option_strings for a in flaguse.parser_of(name).described() if a.option_strings and not a.help] == []


@pytest.mark.parametrize("words", [["exec", "--dry-run", "a", "true"], ["cp", "a:/x", ".", "--dry-run"], ["--dry-run", "container", "rm", "x"],
                                   ["--dry-run", "system", "prune"], ["--dry-run", "wait", "--down-project", "a"]])  # fmt: skip
def test_a_dry_run_that_is_none_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert "has no dry run" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "message"), [
    (["--progress", "foo", "version"], "unsupported --progress value foo"), (["--ansi", "foo", "version"], "invalid --ansi value foo"),
    (["--parallel", "x", "version"], "--parallel must be a number, not x"), (["pull", "--parallel", "web"], "--parallel must be a number, not web"),
    (["--progress", "tty", "--ansi", "never", "version"], "--progress tty needs ANSI control sequences"),
    (["--progress"], "flag needs an argument: --progress"), (["--projet-name", "x"], "unknown flag: --projet-name"),
])  # fmt: skip
def test_wrong_global_options(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert message in capsys.readouterr().err


def test_second_names_of_docker(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["container", "ps"], ["image", "list"], ["volume", "list"]):
        assert main([*words, "--nope"]) == 1
        assert "unknown flag: --nope" in capsys.readouterr().err


def test_the_feature_table_has_each_verb_with_its_flags() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/features.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z]+) \| ([^|]*) \|", text.partition("## Verbs")[2].partition("\n## ")[0], re.M))
    for name in set(VERBS) - {"convert"}:
        shown = [a for a in flaguse.parser_of(name)._actions if a.option_strings and a.help != argparse.SUPPRESS and a.dest != "help"]
        wanted = [" ".join(sorted(a.option_strings, key=len)) for a in shown]
        assert re.findall(r"`([^`]+)`", rows[name]) == wanted, name
    for group, words in GROUPS.items():
        assert rows[group].split(", ") == list(words), group


def test_the_names_of_groups_are_no_verbs() -> None:
    assert not set(GROUPS) & {*VERBS, *REFUSED}
    assert all(re.fullmatch(r"[a-z-]+", name) for name in [*VERBS, *GROUPS])


COMPOSE = "services: {web: {image: x}}"


@pytest.mark.parametrize(("words", "environ", "message"), [
    (["up", "--build", "--no-build"], {}, "--build and --no-build are incompatible"),
    (["create", "--build", "--no-build"], {}, "--build and --no-build are incompatible"),
    (["create", "--force-recreate", "--no-recreate"], {}, "--force-recreate and --no-recreate are incompatible"),
    (["plan", "--force-recreate", "--no-recreate"], {}, "--force-recreate and --no-recreate are incompatible"),
    (["up", "-V", "--no-recreate"], {}, "--no-recreate and --renew-anon-volumes are incompatible"),
    (["up", "--always-recreate-deps", "--no-recreate"], {}, "--always-recreate-deps and --no-recreate are incompatible"),
    (["up", "--attach", "web", "--attach-dependencies"], {}, "cannot combine --attach and --attach-dependencies"),
    (["up", "--no-build", "--watch"], {}, "--no-build and --watch are incompatible"),
    (["up", "-d", "--exit-code-from", "web"], {}, "--detach and --wait cannot be combined with --abort-on-container-exit"),
    (["up", "-d", "--menu"], {}, "--detach and --wait cannot be combined with --menu"),
    (["up", "--remove-orphans"], {"COMPOSE_IGNORE_ORPHANS": "true"}, "cannot combine COMPOSE_IGNORE_ORPHANS and --remove-orphans"),
    (["run", "-P", "-p", "80", "web"], {}, "--service-ports and --publish are incompatible"),
    (["up", "--scale", "web"], {}, "invalid scale 'web'"), (["scale", "nope=1"], {}, "no such service: nope"),
    (["ps", "--filter", "status=nope"], {}, "unknown state nope"), (["ls", "--filter", "a=b"], {}, "unknown filter a"), (["build", "nope"], {}, "no such service: nope"), (["up", "nope"], {}, "no such service: nope"),
])  # fmt: skip
def test_combinations_and_values_that_docker_compose_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], environ: dict[str, str], message: str
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRA_ROOT", str(tmp_path / "root"))
    monkeypatch.setattr("orchestra.cli.client.Client._start", lambda _self: (_ for _ in ()).throw(OrchestraError("no daemon in this test")))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 1
    assert message in capsys.readouterr().err
